"""Two gloo processes give what one gives on the joined batch.

Where batch norms are synchronised, or there are none; wrappers other than
MMDistributedDataParallel; and what happens where a process stops.
"""

import copy
import faulthandler
import time
from importlib.util import find_spec

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp as fsdp
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors

pytestmark = pytest.mark.subprocess
NUMBER = 2


def pooled_forward(self, x):
    """A synchronised batch norm from its formula, for a CPU.

    Stands in for the forward of ``nn.SyncBatchNorm``, which takes inputs of
    a GPU alone.
    """
    dims = [i for i in range(x.dim()) if i != 1]
    sums = torch.stack([x.sum(dims), (x * x).sum(dims)])
    if not x.is_meta:  # of shapes alone, which old PyTorch cannot reduce
        sums = all_reduce(sums)
    sums = sums / (dist.get_world_size() * x[:, 0].numel())
    mean, var = sums[0], sums[1] - sums[0] ** 2
    if self.running_mean is not None:
        count = dist.get_world_size() * x[:, 0].numel()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale = self.weight / (var + self.eps).sqrt()
    shift = self.bias - mean * scale
    return x * scale.reshape(shape) + shift.reshape(shape)


def build(job, norm=None):
    utils = __import__(f'{job["scope"]}.utils', fromlist=['utils'])
    utils.register_all_modules(init_default_scope=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    config = copy.deepcopy(job['config'])
    if config['backbone']['norm_cfg']['type'] == 'SyncBN':
        is_video = job['scope'] == 'mmaction'
        single = 'BN3d' if is_video else 'BN'
        config['backbone']['norm_cfg']['type'] = norm or single
    model = MODELS.build(config)
    model.load_state_dict(job['weights'])
    return model.train()


def step_of(model, batch, wrapper=None):
    """Loss and gradients of a step, by a wrapper or not."""
    torch.manual_seed(0)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    if wrapper is None:
        losses = model.loss(**data)
    else:
        losses = wrapper(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()


def found_in(model):
    """Gradients and running statistics, by name."""
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    found.update({n: b.clone() for n, b in model.named_buffers()})
    return found


def joined(batches):
    inputs = [batch['inputs'] for batch in batches]
    if isinstance(inputs[0], torch.Tensor):
        inputs = torch.cat(inputs)
    else:
        inputs = [one for some in inputs for one in some]
    samples = [one for b in batches for one in b['data_samples']]
    return dict(inputs=inputs, data_samples=samples)


def in_ddp(job, rank):
    from mmengine.model import MMDistributedDataParallel

    model = build(job, 'SyncBN')
    wrapper = MMDistributedDataParallel(model, broadcast_buffers=False)
    step_of(model, job['batches'][rank], wrapper)
    return found_in(model)


def in_fsdp(job, rank, kind, parts=False):
    """Weights after a step of SGD with the rate 1, in FSDP; or the error."""
    from torch.distributed.device_mesh import init_device_mesh

    model = build(job)
    inner = [model.backbone.layer1, model.backbone.layer2] if parts else []
    if kind == 'MMFullyShardedDataParallel':
        from mmengine.model import MMFullyShardedDataParallel

        options = dict(device_id=torch.device('cpu'), use_orig_params=True)
        for i, layer in enumerate(inner, start=1):
            setattr(
                model.backbone,
                f'layer{i}',
                fsdp.FullyShardedDataParallel(layer, **options),
            )
        wrapper = MMFullyShardedDataParallel(model, **options)
    else:
        mesh = init_device_mesh('cpu', (NUMBER,))
        for layer in inner:
            fsdp.fully_shard(layer, mesh=mesh)
        wrapper = fsdp.fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(wrapper.parameters(), lr=1.0)
    try:
        step_of(model, job['batches'][rank], wrapper)
    except UsageError as error:
        return str(error)
    optimizer.step()
    if kind == 'MMFullyShardedDataParallel':
        with wrapper.summon_full_params(wrapper):
            return {n: p.detach().clone() for n, p in model.named_parameters()}
    return {n: p.full_tensor().detach() for n, p in model.named_parameters()}


def refused(job, rank, change):
    model = change(build(job))
    try:
        step_of(model, job['batches'][rank])
    except UsageError as error:
        return str(error)


def with_mmcv(model):
    from mmengine.model.utils import convert_sync_batchnorm

    return convert_sync_batchnorm(model, 'mmcv')


def in_separate(model):
    from mmengine.model import MMSeparateDistributedDataParallel

    return MMSeparateDistributedDataParallel(model).module


def copied(model):
    return model._replicate_for_data_parallel()


def stopping(job, rank):
    """What each rank prints where the other raises in its second step."""
    from mmengine.model import MMDistributedDataParallel

    model = build(job)
    wrapper = MMDistributedDataParallel(model)
    batch = job['batches'][rank]
    began = time.monotonic()
    try:
        with one_line_errors():
            step_of(model, batch, wrapper)
            if rank == 1:
                batch = dict(batch, inputs=batch['inputs'][:, :1])
            step_of(model, batch, wrapper)
    except SystemExit as end:
        return str(end), time.monotonic() - began
    return 'went on', time.monotonic() - began


def work(rank, folder, jobs):
    faulthandler.dump_traceback_later(500)  # should it ever hang
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=NUMBER,
    )
    nn.SyncBatchNorm.forward = pooled_forward
    # Which would refuse it on a CPU.
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None
    results = {}
    for name, job in jobs.items():
        with DefaultScope.overwrite_default_scope(job['scope']):
            results[name] = in_ddp(job, rank)
    job = jobs.get('classification')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        if job is not None:
            for kind in FSDP:
                results[kind] = in_fsdp(job, rank, kind)
                results[f'parts of {kind}'] = in_fsdp(job, rank, kind, True)
            for name, change in CHANGES.items():
                results[name] = refused(job, rank, change)
            # The last: the processes cannot talk any more then.
            results['stopping'] = stopping(job, rank)
    torch.save(results, f'{folder}/{rank}.pth')


FSDP = []
if hasattr(fsdp, 'fully_shard'):  # since PyTorch 2.6, on a CPU, too
    FSDP = ['MMFullyShardedDataParallel', 'fully_shard']
CHANGES = dict(MMSeparateDDP=in_separate, DataParallel=copied)
if find_spec('mmcv._ext'):
    CHANGES['mmcv'] = with_mmcv


@pytest.fixture(scope='module')
def memory(tmp_path_factory):
    """What the first test that needs it puts in."""
    return dict(folder=tmp_path_factory.mktemp('ranks'))


@pytest.fixture
def classification(classifier_config, build_classifier, image_batch):
    config = classifier_config(dict(num_random=1))
    config['backbone']['norm_cfg'] = dict(type='SyncBN')
    batches = []
    for rank in range(NUMBER):
        images, samples = image_batch(number=2, seed=rank)
        images = (images * 40 + 120).clamp(0, 255).byte()
        batches.append(dict(inputs=images, data_samples=samples))
    job = dict(scope='mmpretrain', config=config, batches=batches)
    return dict(job, weights=build_classifier().state_dict())


@pytest.fixture
def action(recognizer_config, build_recognizer, clip_batch):
    batches = []
    for rank in range(NUMBER):
        clips, samples = clip_batch(number=2, seed=rank)
        batches.append(dict(inputs=list(clips), data_samples=samples))
    config = recognizer_config('slow')
    weights = build_recognizer('slow').state_dict()
    config['backbone']['norm_cfg'] = dict(type='SyncBN', requires_grad=True)
    return dict(
        scope='mmaction', config=config, weights=weights, batches=batches
    )


@pytest.fixture
def detection(load_batch):
    """An FCOS with group norms, and an image without objects on one rank."""
    batches = [load_batch((0,)), load_batch((4,))]  # of one size
    for sample in batches[1]['data_samples']:
        sample.gt_instances = sample.gt_instances[:0]
    norms = dict(type='GN', num_groups=8)
    config = dict(
        type='mutualnet_mm.MutualLearning',
        wraps='FCOS',
        mutual=dict(resolution=(64, 48), num_random=1),
        data_preprocessor=dict(type='DetDataPreprocessor', std=[50.0] * 3),
        backbone=dict(
            type='mutualnet_mm.Slimmable',
            wraps='ResNet',
            depth=18,
            base_channels=16,
            norm_cfg=norms,
            norm_eval=False,
            frozen_stages=-1,
        ),
        neck=dict(
            type='FPN',
            in_channels=[16, 32, 64, 128],
            out_channels=16,
            start_level=1,
            add_extra_convs='on_output',
            num_outs=5,
            relu_before_extra_convs=True,
        ),
        bbox_head=dict(
            type='FCOSHead',
            num_classes=2,
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            norm_cfg=norms,
        ),
    )
    config['data_preprocessor']['mean'] = [100.0] * 3
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    weights = model.state_dict()
    return dict(scope='mmdet', config=config, weights=weights, batches=batches)


@pytest.fixture
def ranks(request, memory):
    """Jobs, and what both processes found, once for all tests."""
    if 'found' in memory:
        return memory['jobs'], memory['found']
    scopes = dict(
        classification='mmpretrain', action='mmaction', detection='mmdet'
    )
    memory['jobs'] = jobs = {
        name: request.getfixturevalue(name)
        for name, scope in scopes.items()
        if find_spec(scope)
    }
    folder = memory['folder']
    run_forked(work, str(folder), jobs, seconds=500)
    memory['found'] = [
        torch.load(folder / f'{rank}.pth', weights_only=True)
        for rank in range(NUMBER)
    ]
    return jobs, memory['found']


def assert_close(found, expected, where):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype.is_floating_point:
            error = (found[name] - value).norm()
            assert error <= 1e-4 * value.norm() + 1e-6, (where, name)


@pytest.mark.parametrize('task', ['classification', 'action', 'detection'])
def test_as_one_process_on_the_joined_batch(task, ranks):
    """Gradients, and the running statistics of synchronised batch norms."""
    jobs, found = ranks
    if task not in jobs:
        pytest.skip(f'no project for {task}')
    job = jobs[task]
    with DefaultScope.overwrite_default_scope(job['scope']):
        model = build(job)
        step_of(model, joined(job['batches']))
    for rank in found:
        assert_close(rank[task], found_in(model), task)


@pytest.mark.parametrize('kind', FSDP)
def test_sharded_as_a_whole(kind, ranks):
    """A step in FSDP, which averages as DDP does."""
    jobs, found = ranks
    job = jobs.get('classification') or pytest.skip('no mmpretrain')
    with DefaultScope.overwrite_default_scope(job['scope']):
        parameters = build(job).named_parameters()
        expected = {n: p.detach() for n, p in parameters}
        for batch in job['batches']:
            model = build(job)
            step_of(model, batch)
            for name, p in model.named_parameters():
                expected[name] = expected[name] - p.grad / NUMBER
    for rank in found:
        names = {n.replace('_fsdp_wrapped_module.', ''): n for n in rank[kind]}
        weights = {n: rank[kind][old] for n, old in names.items()}
        assert_close(weights, expected, kind)


@pytest.mark.parametrize(
    'kind, texts',
    [
        *((f'parts of {k}', ['backbone.layer1 is wrapped']) for k in FSDP),
        ('MMSeparateDDP', ['backbone is wrapped', 'DistributedData']),
        ('DataParallel', ['DataParallel trains copies']),
        ('mmcv', ["sync_bn='mmcv'", "sync_bn='torch' works"]),
    ],
)
def test_what_runs_parts_is_refused(kind, texts, ranks):
    _, (one, two) = ranks
    if kind not in one:
        pytest.skip(f'no {kind} here')
    assert one[kind] == two[kind]
    assert '\n' not in one[kind]
    for text in texts:
        assert text in one[kind]


def test_all_stop_where_one_does(ranks):
    """At once, with a line each; that of the one names what is wrong."""
    _, found = ranks
    if 'stopping' not in found[0]:
        pytest.skip('no mmpretrain')
    (other, seconds), (one, _) = (rank['stopping'] for rank in found)
    assert one.startswith('error (rank 1 of 2): ')
    assert 'inputs of 1 channels' in one
    assert other.startswith('error (rank 0 of 2): another process has stopped')
    assert '\n' not in one + other
    assert seconds < 120
