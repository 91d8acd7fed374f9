"""Parameters of some resolutions alone, on two gloo processes."""

import copy
import faulthandler

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope

from mutualnet_mm import UsageError

WORLD_SIZE, STEPS = 2, 3


def work(rank, folder, job):
    faulthandler.dump_traceback_later(200)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=WORLD_SIZE,
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        refusal = refused(job, rank)
        found = list(train(job, rank))
    torch.save(dict(refusal=refusal, found=found), f'{folder}/{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


def refused(job, rank):
    from mmengine.model import MMDistributedDataParallel

    wrapper = MMDistributedDataParallel(build(job))
    data = wrapper.module.data_preprocessor(job['batches'][rank], True)
    try:
        wrapper(**data, mode='loss')
    except UsageError as error:
        return str(error)


def train(job, rank):
    """Yield the gradients of each of some steps."""
    from mmengine.model import MMDistributedDataParallel

    model = build(job)
    wrapper = MMDistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        data = wrapper.module.data_preprocessor(job['batches'][rank], True)
        logged = wrapper(**data, mode='loss')
        model.parse_losses(logged)[0].backward()
        yield {n: p.grad for n, p in model.named_parameters()}
        optimizer.step()


def build(job):
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = MODELS.build(copy.deepcopy(job['config']))
    model.load_state_dict(job['weights'])
    return model.train()


def alone(job):
    """The same steps with the mean of both ranks' gradients, in turn."""
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
        yield means
        optimizer.step()


@pytest.mark.subprocess
def test_steps_under_ddp(
    classifier_config, build_classifier, image_batch, tmp_path
):
    """Three steps, none of which draws all resolutions."""
    batches = []
    for rank in range(WORLD_SIZE):
        images, samples = image_batch(seed=rank)
        images = (images * 40 + 120).clamp(0, 255).byte()
        batches.append(dict(inputs=images, data_samples=samples))
    # The full network, and one other.
    options = dict(norm='per-resolution', num_random=0)
    job = dict(
        config=classifier_config(options),
        weights=build_classifier().state_dict(),
        batches=batches,
    )
    run_forked(work, str(tmp_path), job)
    ranks = [
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in range(WORLD_SIZE)
    ]
    unreached = set()
    for step, expected in enumerate(alone(job)):
        for name, gradient in ranks[0]['found'][step].items():
            other, where = ranks[1]['found'][step][name], (step, name)
            if name not in expected:
                assert gradient is None and other is None, where
                unreached.add(name.split('.')[-2])
                continue
            assert torch.equal(gradient, other), where
            error = (gradient - expected[name]).norm()
            assert error <= 1e-4 * expected[name].norm() + 1e-6, where
    assert unreached == {'at_48', 'at_32'}
    for rank in ranks:
        assert 'find_unused_parameters=True' in rank['refusal']
        assert '\n' not in rank['refusal']
