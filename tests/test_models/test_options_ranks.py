"""Options beyond the paper on two gloo processes, for several steps."""

import copy
import faulthandler
from collections import OrderedDict

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope

from mutualnet_mm import UsageError

WORLD_SIZE, STEPS = 2, 3


def work(rank, folder, jobs):
    faulthandler.dump_traceback_later(200)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=WORLD_SIZE,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        found = {name: run(job, rank) for name, job in jobs.items()}
    torch.save(found, f'{folder}/{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


def run(job, rank):
    """What happened on a rank; gradients of each of some steps."""
    from mmengine.model import MMDistributedDataParallel

    if job['config']['mutual'].get('norm'):
        return dict(refusal=refused(job, rank), found=[*train(job, rank)])
    model = build(job, load=False)
    wrapper = MMDistributedDataParallel(model, find_unused_parameters=True)
    wrapper.module.init_weights()  # as the runner does, after it has wrapped
    begun = {k: v.clone() for k, v in model.state_dict().items()}
    found = [*train(job, rank, wrapper)]
    averages = getattr(model._teacher, 'averages', None)
    return dict(begun=begun, found=found, averages=averages)


def refused(job, rank):
    from mmengine.model import MMDistributedDataParallel

    wrapper = MMDistributedDataParallel(build(job))
    data = wrapper.module.data_preprocessor(job['batches'][rank], True)
    try:
        wrapper(**data, mode='loss')
    except UsageError as error:
        return str(error)


def train(job, rank, wrapper=None):
    """Yield the gradients of each of some steps."""
    from mmengine.model import MMDistributedDataParallel

    if wrapper is None:
        wrapper = MMDistributedDataParallel(
            build(job), find_unused_parameters=True
        )
    model = wrapper.module.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        data = model.data_preprocessor(job['batches'][rank], True)
        logged = wrapper(**data, mode='loss')
        model.parse_losses(logged)[0].backward()
        yield {n: p.grad for n, p in model.named_parameters()}
        optimizer.step()


def build(job, load=True):
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)  # of what no checkpoint holds
    model = MODELS.build(copy.deepcopy(job['config']))
    if load:
        model.load_state_dict(job['weights'])
    return model.train()


def alone(job, weights=None):
    """The same steps with the mean of both ranks' gradients, in turn.

    Yields the gradients, and the weights that the step began with.
    """
    job = dict(job, weights=weights or job['weights'])
    model = build(job)
    states = [build(job) for _ in range(WORLD_SIZE)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        means = {}
        for rank, net in enumerate(states):
            net.zero_grad()
            with torch.no_grad():
                for own, p in zip(net.parameters(), model.parameters()):
                    own.copy_(p)
            batch = copy.deepcopy(job['batches'][rank])
            data = net.data_preprocessor(batch, True)
            net.parse_losses(net.loss(**data))[0].backward()
            for name, p in net.named_parameters():
                if p.grad is not None:
                    half = p.grad / WORLD_SIZE
                    means[name] = means.get(name, 0) + half
        for name, p in model.named_parameters():
            p.grad = means.get(name)
        yield means, {n: p.clone() for n, p in model.named_parameters()}
        optimizer.step()


@pytest.fixture
def jobs(classifier_config, build_classifier, image_batch, tmp_path):
    """One for each option; the classifier that some of them start from."""
    batches = []
    for rank in range(WORLD_SIZE):
        images, samples = image_batch(seed=rank)
        images = (images * 40 + 120).clamp(0, 255).byte()
        batches.append(dict(inputs=images, data_samples=samples))
    weights = build_classifier().state_dict()
    start = dict(type='Pretrained', checkpoint=str(tmp_path / 'start.pth'))
    stock = OrderedDict(weights)  # without what it was trained for
    torch.save(dict(state_dict=stock), start['checkpoint'])

    def job(init_cfg, **options):
        config = dict(classifier_config(options), init_cfg=init_cfg)
        return dict(config=config, weights=weights, batches=batches)

    return dict(
        # The full network, and one other.
        norms=job(None, norm='per-resolution', num_random=0),
        average=job(start, teacher='ema', num_random=1),
        sorted=job(dict(start, sort='l1'), num_random=1),
    )


@pytest.mark.subprocess
def test_steps_under_ddp(jobs, tmp_path):
    """Three steps of each, in one pair of processes."""
    run_forked(work, str(tmp_path), jobs)
    ranks = [
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in range(WORLD_SIZE)
    ]
    for name, check in (
        ('norms', check_norms),
        ('average', check_average),
        ('sorted', check_sorted),
    ):
        check(jobs[name], *[rank[name] for rank in ranks])


def check_norms(job, one, two):
    """None of the steps draws all resolutions."""
    assert check_steps(alone(job), one, two) == {'at_48', 'at_32'}
    for rank in (one, two):
        assert 'find_unused_parameters=True' in rank['refusal']
        assert '\n' not in rank['refusal']


def check_average(job, one, two):
    """Both ranks average the weights that they share."""
    steps = [*alone(job)]
    assert not check_steps(steps, one, two)
    for name, found in one['averages'].items():
        assert torch.equal(found, two['averages'][name]), name
        first, *others = [weights[name] for _, weights in steps]
        mean = first.double()
        for weight in others:
            mean = 0.997 * mean + 0.003 * weight.double()
        moved = (others[-1] - first).norm()
        assert moved > 0
        assert (found - mean).norm() <= 1e-4 * moved + 1e-6, name
    assert len(one['averages']) == len(steps[0][1])


def check_sorted(job, one, two):
    """Both ranks begin with the channels in the one order."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = build(job, load=False)
        model.init_weights()
    state = model.state_dict()
    for name, value in state.items():
        assert torch.equal(one['begun'][name], value), name
        assert torch.equal(two['begun'][name], value), name
    name = 'backbone.layer1.0.conv1.weight'
    assert not torch.equal(state[name], job['weights'][name])
    assert not check_steps(alone(job, state), one, two)


def check_steps(steps, one, two):
    """Both ranks have the mean gradients; return whose there are none of."""
    unreached = set()
    for step, (expected, _) in enumerate(steps):
        for name, gradient in one['found'][step].items():
            other, where = two['found'][step][name], (step, name)
            if name not in expected:
                assert gradient is None and other is None, where
                unreached.add(name.split('.')[-2])
                continue
            assert torch.equal(gradient, other), where
            error = (gradient - expected[name]).norm()
            assert error <= 1e-4 * expected[name].norm() + 1e-6, where
    return unreached
