"""Two gloo processes under the stock MMDistributedDataParallel."""

import copy
import faulthandler
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope

WORLD_SIZE = 2


def work(rank, folder, jobs):
    """Train one step of each job and write down what happened."""
    faulthandler.dump_traceback_later(200)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=WORLD_SIZE,
    )
    for kind, job in jobs.items():
        with DefaultScope.overwrite_default_scope(job['scope']):
            result = train(job, rank)
        torch.save(result, f'{folder}/{kind}{rank}.pth')
    dist.barrier()
    dist.destroy_process_group()


def train(job, rank):
    """Return the gradients of one step, and what happened to them."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    model = build(job)
    drawn, activate = [], model.activate

    def record(subnet, **kwargs):
        drawn.append(str(subnet))
        return activate(subnet, **kwargs)

    model.activate = record
    wrapper = MMDistributedDataParallel(model)
    reduced = []

    def count(state, bucket):
        reduced.append(bucket.buffer().numel())
        mean = bucket.buffer() / WORLD_SIZE
        # Waited for here: a callback of Python would be run and freed by a
        # thread of gloo, and ending the process group while it waits for
        # the interpreter's lock never returns.
        dist.all_reduce(mean)
        future = torch.futures.Future()
        future.set_result(mean)
        return future

    wrapper.register_comm_hook(None, count)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    torch.manual_seed(rank)
    logged = wrapper.train_step(
        job['batches'][rank], KeepGradients(OptimWrapper(optimizer))
    )
    return dict(
        gradients={n: p.grad for n, p in model.named_parameters()},
        drawn=drawn,
        reduced=sum(reduced),
        logged={k: v.item() for k, v in logged.items() if v.dim() == 0},
    )


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
def detection_job(detector_config, build_detector, load_batch):
    config = detector_config(dict(distill=2.0))
    # Stock Mask R-CNN leaves no parameter out, whatever a batch holds.
    return dict(
        scope='mmdet',
        config=config,
        weights=build_detector().state_dict(),
        batches=[load_batch((0, 1)), load_batch((2, 3))],
    )


@pytest.fixture
def classification_job(classifier_config, build_classifier, image_batch):
    batches = []
    for rank in range(WORLD_SIZE):
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
def options_job(classification_job, classifier_config):
    """What goes beyond the paper, as far as it goes together."""
    options = dict(
        teacher='ema',
        divergence='alpha',
        label_weight=0.5,
        weights='width',
        stratified=True,
    )
    config = classifier_config(options)
    return dict(classification_job, config=config, passes=5)


@pytest.fixture
def action_job(recognizer_config, build_recognizer, clip_batch):
    batches = []
    for rank in range(WORLD_SIZE):
        clips, samples = clip_batch(number=2, frames=16, seed=rank)
        batches.append(dict(inputs=list(clips), data_samples=samples))
    return dict(
        scope='mmaction',
        config=recognizer_config('slowfast'),
        weights=build_recognizer('slowfast').state_dict(),
        batches=batches,
    )


@pytest.fixture
def jobs(request):
    """A job of each task whose project is installed."""
    scopes = dict(
        classification='mmpretrain',
        options='mmpretrain',
        detection='mmdet',
        action='mmaction',
    )
    return {
        kind: request.getfixturevalue(f'{kind}_job')
        for kind, scope in scopes.items()
        if find_spec(scope)
    }


@pytest.mark.subprocess
def test_gradients_under_ddp(jobs, tmp_path):
    """Of every task, in one pair of processes."""
    assert jobs
    run_forked(work, str(tmp_path), jobs)
    for kind, job in jobs.items():
        ranks = [
            torch.load(tmp_path / f'{kind}{rank}.pth', weights_only=True)
            for rank in range(WORLD_SIZE)
        ]
        with DefaultScope.overwrite_default_scope(job['scope']):
            alone = [alone_gradients(job, rank) for rank in range(WORLD_SIZE)]
        check(kind, ranks, alone, job.get('passes', 4))


def check(kind, ranks, alone, passes):
    """Ranks hold the mean of the gradients that each has alone."""
    elements = 0
    for name, gradient in ranks[0]['gradients'].items():
        where = f'{kind}: {name}'
        assert torch.equal(gradient, ranks[1]['gradients'][name]), where
        mean = (alone[0][name] + alone[1][name]) / 2
        error = (gradient - mean).norm()
        assert error <= 1e-5 * mean.norm() + 1e-7, where
        elements += gradient.numel()
    assert ranks[0]['drawn'] == ranks[1]['drawn'], kind
    assert len(ranks[0]['drawn']) == passes, kind
    assert [r['reduced'] for r in ranks] == [elements, elements], kind
    assert ranks[0]['logged'] != ranks[1]['logged'], kind  # data of their own


def alone_gradients(job, rank):
    """Gradients of the rank's batch in this process, without a wrapper."""
    model = build(job)
    torch.manual_seed(rank)
    data = model.data_preprocessor(copy.deepcopy(job['batches'][rank]), True)
    loss, _ = model.parse_losses(model.loss(**data))
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters()}
