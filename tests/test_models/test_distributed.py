"""Gloo processes under the stock MMDistributedDataParallel."""

import copy
import faulthandler
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope

MOST = 4  # processes, and batches of a job
SCOPES = dict(
    classification='mmpretrain', detection='mmdet', action='mmaction'
)


def work(rank, number, folder, jobs):
    """Train some steps of each job and write down what happened."""
    faulthandler.dump_traceback_later(500)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=number,
    )
    results = {}
    for name, job in jobs.items():
        with DefaultScope.overwrite_default_scope(job['scope']):
            results[name] = train(job, rank, number)
    torch.save(results, f'{folder}/{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


def train(job, rank, number):
    """Return the gradients of each step, and what happened to them."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    model = build(job)
    drawn, activate = [], model.activate

    def record(subnet, **kwargs):
        drawn.append(str(subnet))
        return activate(subnet, **kwargs)

    model.activate = record
    wrapper = MMDistributedDataParallel(model, **job.get('wrapper', {}))
    reduced = []

    def count(state, bucket):
        reduced.append(bucket.buffer().numel())
        mean = bucket.buffer() / number
        # Waited for here: a callback of Python would be run and freed by a
        # thread of gloo, and ending the process group while it waits for
        # the interpreter's lock never returns.
        dist.all_reduce(mean)
        future = torch.futures.Future()
        future.set_result(mean)
        return future

    wrapper.register_comm_hook(None, count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    keeper = KeepGradients(OptimWrapper(optimizer))
    torch.manual_seed(rank)
    steps = []
    for _ in range(job.get('steps', 1)):
        optimizer.zero_grad()
        drawn.clear()
        reduced.clear()
        batch = copy.deepcopy(job['batches'][rank])
        logged = wrapper.train_step(batch, keeper)
        steps.append(
            dict(
                gradients=gradients_of(model),
                drawn=list(drawn),
                reduced=sum(reduced),
                logged={
                    k: v.item() for k, v in logged.items() if v.dim() == 0
                },
            )
        )
    return steps


def gradients_of(model):
    return {
        name: None if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


class KeepGradients:
    """Shows a stock OptimWrapper whose gradients outlive the step."""

    def __init__(self, wrapper):
        self.wrapper = wrapper
        wrapper.zero_grad = lambda **kwargs: None

    def __getattr__(self, name):
        return getattr(self.wrapper, name)


def build(job):
    """Build a job's model; its scope is the default one."""
    utils = __import__(f'{job["scope"]}.utils', fromlist=['utils'])
    utils.register_all_modules(init_default_scope=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    model = MODELS.build(copy.deepcopy(job['config']))
    model.load_state_dict(job['weights'])
    return model.train()


@pytest.fixture
def detection(detector_config, build_detector, load_batch):
    """A Mask R-CNN; the last batch is an image without objects."""
    # Stock Mask R-CNN leaves no parameter out, whatever a batch holds.
    return dict(
        scope='mmdet',
        config=detector_config(dict(distill=2.0)),
        weights=build_detector().state_dict(),
        batches=[load_batch(i) for i in ((0, 1), (2, 3), (4,), (5,))],
    )


@pytest.fixture
def classification(classifier_config, build_classifier, image_batch):
    batches = []
    for rank in range(MOST):
        images, samples = image_batch(seed=rank)
        images = (images * 40 + 120).clamp(0, 255).byte()
        batches.append(dict(inputs=images, data_samples=samples))
    return dict(
        scope='mmpretrain',
        config=classifier_config(),
        weights=build_classifier().state_dict(),
        batches=batches,
    )


@pytest.fixture
def action(recognizer_config, build_recognizer, clip_batch):
    batches = []
    for rank in range(MOST):
        clips, samples = clip_batch(number=2, frames=16, seed=rank)
        batches.append(dict(inputs=list(clips), data_samples=samples))
    return dict(
        scope='mmaction',
        config=recognizer_config('slowfast'),
        weights=build_recognizer('slowfast').state_dict(),
        batches=batches,
    )


# Of DistributedDataParallel; small buckets, so that there are many.
WRAPPERS = dict(
    static=dict(static_graph=True),
    unused=dict(find_unused_parameters=True),
    views=dict(gradient_as_bucket_view=True),
    buckets=dict(bucket_cap_mb=0.05),
    all=dict(
        static_graph=True,
        gradient_as_bucket_view=True,
        broadcast_buffers=False,
        bucket_cap_mb=0.05,
    ),
)


def of_wrappers(job, names=WRAPPERS):
    """The job in each wrapper, for some steps: each draws other subnets."""
    return {
        name: dict(job, wrapper=WRAPPERS[name], steps=3, same='wrappers')
        for name in names
    }


def uneven(job):
    """The last batch of an epoch: one image alone, on all ranks but one."""
    batches = [
        dict(
            inputs=batch['inputs'][: 3 if rank == 0 else 1],
            data_samples=batch['data_samples'][: 3 if rank == 0 else 1],
        )
        for rank, batch in enumerate(job['batches'])
    ]
    return dict(job, batches=batches)


def with_options(job, classifier_config):
    """What goes beyond the paper, as far as it goes together."""
    options = dict(
        teacher='ema',
        divergence='alpha',
        label_weight=0.5,
        weights='width',
        stratified=True,
    )
    return dict(job, config=classifier_config(options), passes=5)


def check_all(jobs, number, folder):
    """Run all jobs in one set of processes, and check what they found."""
    assert jobs
    run_forked(work, number, str(folder), jobs, processes=number, seconds=550)
    ranks = [
        torch.load(folder / f'{rank}.pth', weights_only=True)
        for rank in range(number)
    ]
    alone = {}
    for name, job in jobs.items():
        same = job.get('same', name)
        if same not in alone:
            with DefaultScope.overwrite_default_scope(job['scope']):
                alone[same] = alone_gradients(job, number)
        for step in range(job.get('steps', 1)):
            check(
                f'{name}, step {step}',
                [rank[name][step] for rank in ranks],
                alone[same][step],
                job.get('passes', 4),
            )


def check(where, ranks, mean, passes):
    """Ranks hold the mean of the gradients that each has alone."""
    elements = 0
    for name, gradient in ranks[0]['gradients'].items():
        for rank in ranks[1:]:
            assert torch.equal(gradient, rank['gradients'][name]), where
        error = (gradient - mean[name]).norm()
        assert error <= 1e-5 * mean[name].norm() + 1e-7, (where, name)
        elements += gradient.numel()
    for rank in ranks:
        assert rank['drawn'] == ranks[0]['drawn'], where
        assert len(rank['drawn']) == passes, where
        assert rank['reduced'] == elements, where
    assert ranks[0]['logged'] != ranks[1]['logged'], where  # data of its own


def alone_gradients(job, number):
    """Means of each step, of all ranks' batches in this process in turn."""
    means = [{} for _ in range(job.get('steps', 1))]
    for rank in range(number):
        model = build(job)
        torch.manual_seed(rank)
        for mean in means:
            model.zero_grad()
            batch = copy.deepcopy(job['batches'][rank])
            data = model.data_preprocessor(batch, True)
            model.parse_losses(model.loss(**data))[0].backward()
            for name, gradient in gradients_of(model).items():
                mean[name] = mean.get(name, 0) + gradient / number
    return means


def chosen(request, names):
    """Jobs of the projects that are installed, by kind."""
    there = [name for name in names if find_spec(SCOPES[name])]
    if not there:
        pytest.skip(f'needs the project of {" or ".join(names)}')
    return {name: request.getfixturevalue(name) for name in there}


@pytest.mark.subprocess
def test_gradients_of_two(request, tmp_path):
    """Of every task, an uneven batch and options, in one pair of processes."""
    jobs = chosen(request, SCOPES)
    if 'detection' in jobs:
        one, *_, without = jobs['detection']['batches']
        jobs['detection']['batches'] = [one, without]
    if 'classification' in jobs:
        job = jobs['classification']
        make = request.getfixturevalue('classifier_config')
        jobs['options'] = with_options(job, make)
        jobs['uneven'] = uneven(job)
        jobs.update(of_wrappers(job, ['unused', 'all']))
    check_all(jobs, 2, tmp_path)


@pytest.mark.subprocess
def test_gradients_of_four(request, tmp_path):
    jobs = chosen(request, ['classification'])
    jobs = {name: uneven(job) for name, job in jobs.items()}
    check_all(jobs, 4, tmp_path)


@pytest.mark.nightly
@pytest.mark.subprocess
@pytest.mark.parametrize('number', [2, 4])
@pytest.mark.parametrize('task', SCOPES)
def test_each_wrapper(task, number, request, tmp_path):
    """Of every task; an image without objects is among the last batches."""
    (job,) = chosen(request, [task]).values()
    if task == 'detection':
        job['batches'] = job['batches'][-number:]
    check_all(of_wrappers(job), number, tmp_path)
