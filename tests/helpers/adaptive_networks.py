"""Small networks of every task, as an adaptive file holds them.

Weights and statistics are random, so that any two subnets differ. Test files
load this one by its path: the folder is on none.
"""

import copy
import gc

import segment_networks
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mutualnet_mm import Subnet
from mutualnet_mm.apis import AdaptiveFile, build_model
from mutualnet_mm.query_table import QueryTable, TableEntry
from mutualnet_mm.slimmable import BatchNormCollector

# Of each network: the project, and the subnets of the table, full one first.
KINDS = dict(
    classifier=('mmpretrain', ['1.0x-32', '0.5x-24', '0.25x-16', '0.75x-32']),
    detector=('mmdet', ['1.0x-64', '0.5x-48', '0.25x-64']),
    slow=('mmaction', ['1.0x-32-4', '0.63x-25-3', '0.8x-21-2']),
    slowfast=('mmaction', ['1.0x-32-4', '0.63x-25-3', '0.8x-21-2']),
    tsn=('mmaction', ['1.0x-32-4', '0.63x-25-3', '0.8x-21-2']),
)


def config(kind, request):
    """Config of one of ``KINDS``; pytest's request gives small models."""
    scope = KINDS[kind][0]
    request.getfixturevalue('enter_scope')(scope)
    if kind == 'classifier':
        make = request.getfixturevalue('classifier_config')
        model = make(dict(resolution=(32, 24, 16)))
        steps = ['LoadImageFromFile', 'PackInputs']
    elif kind == 'detector':
        model = request.getfixturevalue('detector_config')()
        model.test_cfg.rcnn.score_thr = 0.0  # of random weights
        steps = request.getfixturevalue('detection_pipeline')(train=False)
    else:
        is_2d = kind == 'tsn'
        model = segment_networks.config() if is_2d else _recognizer(kind)
        sampling = dict(clip_len=4 if kind == 'slow' else 16)
        if is_2d:
            sampling = dict(clip_len=1, num_clips=4)
        steps = [
            dict(type='OpenCVInit'),
            dict(type='SampleFrames', **sampling, test_mode=True),
            dict(type='OpenCVDecode'),
            dict(type='Resize', scale=(32, 32), keep_ratio=False),
            dict(
                type='FormatShape', input_format='NCHW' if is_2d else 'NCTHW'
            ),
            dict(type='PackActionInputs'),
        ]
    steps = [dict(type=s) if isinstance(s, str) else s for s in steps]
    dataset = dict(type='CustomDataset', pipeline=steps)
    return Config(
        dict(
            default_scope=scope,
            model=copy.deepcopy(model),
            test_dataloader=dict(dataset=dataset),
        )
    )


def _recognizer(kind):
    shape = dict(depth=18, stage_blocks=(1, 1, 1, 1))
    slow = dict(
        shape,
        base_channels=16,
        conv1_kernel=(1, 7, 7),
        inflate=(0, 0, 1, 1),
    )
    backbone = dict(slow, type='mutualnet_mm.SlimmableResNet3dSlowOnly')
    head = dict(type='I3DHead', in_channels=128)
    if kind == 'slowfast':
        fast = dict(
            shape,
            type='resnet3d',
            lateral=False,
            base_channels=2,
            conv1_kernel=(5, 7, 7),
        )
        backbone = dict(
            type='mutualnet_mm.SlimmableResNet3dSlowFast',
            resample_rate=4,
            speed_ratio=4,
            channel_ratio=8,
            slow_pathway=dict(slow, type='resnet3d', lateral=True),
            fast_pathway=fast,
        )
        head = dict(type='SlowFastHead', in_channels=144)
    return dict(
        type='mutualnet_mm.MutualLearning',
        wraps='Recognizer3D',
        mutual=dict(
            width_range=(0.63, 1.0), resolution=(32, 25, 21), frames=(4, 3, 2)
        ),
        backbone=backbone,
        cls_head=dict(head, num_classes=5, average_clips='prob'),
        data_preprocessor=dict(
            type='ActionDataPreprocessor', format_shape='NCTHW'
        ),
    )


def randomise(model, seed=0):
    """Make every batch norm and classifier differ from channel to channel."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor in (layer.weight, layer.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (layer.bias, layer.running_mean):
                nn.init.normal_(tensor, std=0.3)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.05)
    return model


def full_batch(model, number=2, seed=0):
    """Return inputs of the full resolution, and stock samples."""
    task, full = model.task, model.space.full
    image = (60, 80) if task.name == 'detection' else None
    shape = [number, *task.input_shape(model, full, image)[1:]]
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(shape, generator=generator)
    if task.name == 'classification':
        from mmpretrain.structures import DataSample as Sample
    elif task.name == 'action':
        from mmaction.structures import ActionDataSample as Sample
    else:
        from mmdet.structures import DetDataSample

        meta = dict(
            ori_shape=(60, 80),
            img_shape=(64, 85),
            scale_factor=(85 / 80, 64 / 60),
            batch_input_shape=tuple(shape[2:]),
            pad_shape=tuple(shape[2:]),
        )
        return inputs, [DetDataSample(metainfo=meta) for _ in inputs]
    return inputs, [Sample() for _ in inputs]


def random_statistics(model, subnet):
    """Statistics of every batch norm, with variances from 0.5 to 1.5."""
    resized = model.task.resize(model, *full_batch(model), subnet)
    collector = BatchNormCollector(model)  # for the channels of each layer
    with model.activate(subnet), collector.watch():
        model.task.forward_batch_norms(model, *resized)
    return {
        name: (torch.randn_like(mean) * 0.3, torch.rand_like(mean) + 0.5)
        for name, (mean, _) in collector.finish().items()
    }


def network(kind, request):
    """Return a network in evaluation mode and a bank of statistics."""
    return _network(config(kind, request), KINDS[kind][1])


def _network(cfg, subnets):
    model = randomise(build_model(cfg)).eval()
    bank = {
        subnet: random_statistics(model, Subnet.parse(subnet))
        for subnet in subnets[1:]
    }
    return model, bank


def adaptive_file(kind, request, subnets=None, **settings):
    """Return an adaptive file with figures made up.

    ``settings`` are of its config.
    """
    cfg = config(kind, request)
    for name, value in settings.items():
        cfg[name] = value  # not merged with what is there
    return file_of(cfg, subnets or KINDS[kind][1])


def file_of(cfg, subnets):
    """Return an adaptive file of a config, with figures made up."""
    model, bank = _network(cfg, subnets)
    entries = [
        TableEntry(
            Subnet.parse(subnet),
            macs=1000 - 100 * i,
            params=500 - 50 * i,
            metrics={'accuracy/top1': 90.0 - i},
        )
        for i, subnet in enumerate(subnets)
    ]
    return AdaptiveFile(
        config=cfg.pretty_text,
        weights=model.state_dict(),
        statistics=bank,
        table=QueryTable(
            entries, 'accuracy/top1', model.task.name, model.space.full
        ),
        width=(model.space.min_width, model.space.max_width),
        rounding=model.slim_state.rounding,
        calibration=dict(num_batches=2, dataloader=None),
    )


@torch.no_grad()
def loop_outputs(model, subnet, statistics, inputs, samples):
    """Predict as the evaluation loops do with a preprocessed batch."""
    subnet = Subnet.parse(subnet)
    samples = [sample.new() for sample in samples]
    resized = model.task.resize(model, inputs, samples, subnet)
    with model.activate(subnet, statistics):
        return outputs(model(*resized, mode='predict'))


def outputs(samples):
    """All tensors that were predicted, by name."""
    found = {}
    for i, sample in enumerate(samples):
        for key, value in sample.items():
            parts = value if isinstance(value, InstanceData) else {key: value}
            for name, tensor in parts.items():
                found[f'{i}/{name}'] = tensor.clone()
    return found


def same(a, b):
    """Whether two outputs are equal, bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class CountOperations(TorchDispatchMode):
    """Lists whatever is done to tensors in a ``with`` block."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def tensor_memory():
    """Bytes of each storage of the process that some tensor uses."""
    gc.collect()
    storages = [
        tensor.untyped_storage()
        for tensor in gc.get_objects()
        # Stand-ins that other tests leave behind have no memory.
        if type(tensor) in (torch.Tensor, torch.nn.Parameter)
    ]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}
