"""A stock TSN of mmaction2 and a TRN, from the config to an exported file."""

import copy
import itertools

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner
from table_runs import Run, make_clips
from torch_versions import skip_without_export

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import (
    AdaptiveModel,
    build_table,
    count_macs,
    export_subnet,
    load_static,
)
from mutualnet_mm.apis.make_adaptive import prove
from mutualnet_mm.deploy.latency import measure_latencies
from mutualnet_mm.export.program_file import load_program
from mutualnet_mm.models import static_model

pytest.importorskip('mmaction')

SIDE, VIDEOS = 40, 4
STOCK = (
    'mmaction::recognition/tsn/'
    'tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py'
)
# Trained on 3 segments, tested on 5 of ten crops.
SEGMENTS, TESTED, CROPS = 3, 5, 10
PICKED = {3: [*range(50)], 2: [(2 * i + 1) * 50 // 66 for i in range(33)]}
SUBNETS = ['1.0x-32-3', '0.5x-32-3', '0.75x-24-3', '0.5x-24-2']
_numbers = itertools.count()


@METRICS.register_module(force=True)
class SquaredScores(BaseMetric):
    """Any change of the network or of its inputs shows in it."""

    default_prefix = 'scores'

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            self.results.append(sample['pred_score'].double().pow(2).sum())

    def compute_metrics(self, results):
        return dict(squares=sum(results).item())


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Folder of short videos, with the list of their labels."""
    root = tmp_path_factory.mktemp('clips')
    make_clips(root, VIDEOS)
    return root


def small(step):
    """A step of the stock pipelines at a seventh of its size."""
    sizes = {256: SIDE, 224: 32}

    def shrink(value):
        if isinstance(value, (tuple, list)):
            return type(value)(map(shrink, value))
        return sizes.get(value, value)

    step = {key: shrink(value) for key, value in step.items()}
    step['type'] = step['type'].replace('Decord', 'OpenCV')
    step.pop('io_backend', None)
    if step.get('num_clips') == 25:
        step['num_clips'] = TESTED
    return step


@pytest.fixture
def make_config(enter_scope, clips, tmp_path):
    """The stock config, changed as the README says and made small."""
    enter_scope('mmaction')
    from mmengine.hub import get_config

    def make(work_dir=tmp_path):
        cfg = get_config(STOCK)
        cfg.model.backbone.pop('pretrained')
        cfg.model.update(type='mutualnet_mm.MutualLearning')
        cfg.model.update(wraps='Recognizer2D')
        cfg.model.update(
            mutual=dict(
                width_range=(0.5, 1.0), resolution=(32, 24), frames=(3, 2)
            )
        )
        cfg.model.backbone.update(
            type='mutualnet_mm.Slimmable',
            wraps='ResNet',
            depth=18,
            num_stages=2,
            strides=(1, 2),
            dilations=(1, 1),
            out_indices=(1,),
        )
        cfg.model.cls_head.update(in_channels=128, num_classes=3, topk=(1, 2))
        for stage in ('train', 'val', 'test'):
            loader = cfg[f'{stage}_dataloader']
            loader.update(num_workers=0, persistent_workers=False)
            loader.batch_size = min(loader.batch_size, 2)
            loader.dataset.ann_file = str(clips / 'list.txt')
            loader.dataset.data_prefix.video = str(clips)
            loader.dataset.pipeline = list(map(small, loader.dataset.pipeline))
        cfg.test_evaluator = [
            dict(type='AccMetric'),
            dict(type='SquaredScores'),
        ]
        cfg.test_cfg = dict(type='mutualnet_mm.SubnetTestLoop')
        cfg.val_cfg = dict(type='mutualnet_mm.SubnetValLoop')
        cfg.train_cfg.update(max_epochs=1, val_interval=1)
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2)
        ]
        cfg.update(
            experiment_name=f'segments{next(_numbers)}',
            work_dir=str(work_dir / 'work'),
            launcher='none',
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        return cfg

    return make


@pytest.fixture(scope='module')
def runs():
    """The run that was made; no test changes it."""
    return []


@pytest.fixture
def run(runs, make_config, tmp_path_factory):
    """Train for an epoch with a validation, and build the table."""
    if not runs:
        folder = tmp_path_factory.mktemp('tsn')
        cfg = make_config(folder)
        runner = Runner.from_cfg(copy.deepcopy(cfg))
        runner.model.init_weights()
        nets.randomise(runner.model)
        runner.model.init_weights = lambda: None  # training would repeat it
        runner.train()
        scalars = runner.message_hub.log_scalars
        metrics = {name: scalars[name].current() for name in scalars}
        checkpoint = str(folder / 'work' / 'epoch_1.pth')
        table = build_table(cfg, checkpoint, folder, subnets=SUBNETS)
        net = AdaptiveModel.from_file(folder / 'adaptive.pth')
        runs.append(Run(cfg, metrics, folder, table, net))
    return runs[0]


def test_training_and_validation(run):
    """Losses of every subnet, metrics of two, as for clips."""
    for name in ('loss_cls', 'min/total', 'rand1/total', 'loss_mutual'):
        assert np.isfinite(run.metrics[f'train/{name}']), name
    assert {'val/acc/top1', 'val/0.5x-24-2/acc/top1'} <= set(run.metrics)


def stock_config(cfg):
    """The classes of mmaction2 alone."""
    cfg = copy.deepcopy(cfg)
    cfg.model.update(type=cfg.model.pop('wraps'))
    del cfg.model['mutual']
    cfg.model.backbone.type = cfg.model.backbone.pop('wraps')
    cfg.test_cfg = dict(type='TestLoop')
    cfg.custom_hooks = []
    cfg.experiment_name = f'segments-stock{next(_numbers)}'
    return cfg


@pytest.mark.parametrize('name', SUBNETS)
def test_the_table_is_what_a_stock_loop_finds(name, run, make_config):
    """Of all segments of the ten crops, those that are left."""
    subnet = Subnet.parse(name)
    cfg = stock_config(run.cfg)
    runner = Runner.from_cfg(cfg)
    if name != SUBNETS[0]:
        # The narrow network, of stock layers, where the stock one was.
        statistics = run.net.file.statistics[name]
        narrow = static_model(run.net.model, subnet, statistics)
        runner.model.backbone = narrow.backbone
        runner.model.cls_head = narrow.cls_head
    else:
        runner.model.load_state_dict(run.net.file.weights)  # strictly
    side = subnet.resolution  # of ten crops of the full one

    def reduce(module, args, out):
        frames = out['inputs']
        assert frames.shape == (1, TESTED * CROPS, 3, 32, 32)
        frames = frames[:, PICKED[subnet.frames]]
        images = F.interpolate(
            frames.flatten(0, 1),
            (side, side),
            mode='bilinear',
            antialias=True,
        )
        return dict(out, inputs=images[None])

    runner.model.data_preprocessor.register_forward_hook(reduce)
    found = runner.test()
    entry = next(e for e in run.table.entries if e.subnet == subnet)
    for key, value in found.items():
        assert entry.metrics[key] == pytest.approx(value, rel=1e-5), key
    assert len({e.metrics['scores/squares'] for e in run.table.entries}) == 4


def test_costs_are_of_a_crop_with_its_segments(run):
    table, model = run.table, run.net.model
    assert (table.task, table.views, table.num_images) == ('action', 10, 4)
    for entry in table.entries:
        one = count_macs(model, entry.subnet)
        assert entry.macs == count_macs(model, entry.subnet, (5, 32, 32))
        kept = {3: 5, 2: 3}[entry.subnet.frames]
        assert entry.macs / kept == pytest.approx(
            one / entry.subnet.frames, rel=1e-3
        )


def test_predictions_within_a_budget(run, clips):
    """Of files, arrays and tensors they are what the table tested."""
    net = run.net
    least = min(run.table.entries, key=lambda entry: entry.macs)
    with pytest.raises(UsageError, match='no subnet'):
        net.set_budget(macs=least.macs - 1)
    assert net.set_budget(macs=least.macs) == least.subnet
    files = [str(clips / f'{i}.avi') for i in range(VIDEOS)]
    inputs, samples = net.prepare(files)
    assert inputs.shape == (VIDEOS, TESTED * CROPS, 3, 32, 32)
    name = str(least.subnet)
    expected = nets.loop_outputs(
        net.model, name, net.file.statistics[name], inputs, samples
    )
    squares = sum(
        value.double().pow(2).sum().item()
        for key, value in expected.items()
        if key.endswith('pred_score')
    )
    assert squares == pytest.approx(least.metrics['scores/squares'], rel=1e-5)
    arrays = []
    for file in files:
        reader, frames = cv2.VideoCapture(file), []
        for _ in range(12):
            frames.append(cv2.cvtColor(reader.read()[1], cv2.COLOR_BGR2RGB))
        arrays.append(np.stack(frames))
    for given in (files, arrays, inputs):
        found = nets.outputs(net(given))
        for key, value in expected.items():
            if key.endswith('pred_score'):
                torch.testing.assert_close(found[key], value)
    one = net.prepare(inputs[0, :7])  # any number, without the batch
    assert one[0].shape == (1, 7, 3, 32, 32)
    assert net.inputs.one_view(inputs).shape == (VIDEOS, 5, 3, 32, 32)
    assert net.inputs.tensor_shape((1, 1)) == (5, 3, 32, 32)


@pytest.mark.parametrize(
    'given, match',
    [
        (torch.zeros(3, 4, 32, 32), r'\(T, 3, H, W\) or \(N, T, 3, H, W\)'),
        (torch.zeros(1, 2, 3, 3, 32, 32), 'shape'),
        (torch.zeros(5, 3, 24, 32), '24 x 32 .* resolution is 32'),
        (np.zeros((9, 48, 64, 2), np.uint8), r'\(T, H, W, 3\) in RGB order'),
    ],
)
def test_inputs_that_are_refused(run, given, match):
    with pytest.raises(UsageError, match=match):
        run.net(given)


def test_the_proof_of_a_config(make_config):
    """On random frames."""
    prove(make_config())


def test_latencies(run):
    found = measure_latencies(run.net, repeats=1)
    assert [str(subnet) for subnet in found] == [
        str(entry.subnet) for entry in run.table.entries
    ]


@pytest.mark.sweep(3)
@pytest.mark.parametrize('format', ['static', 'torch', 'stock'])
@pytest.mark.parametrize('name', [SUBNETS[0], SUBNETS[-1]])
def test_exports(format, name, run, tmp_path):
    skip_without_export(format)
    suffix = dict(torch='.pt2').get(format, '.pth')
    path = tmp_path / f'small{suffix}'
    proof = export_subnet(run.net, name, format, path)
    assert proof.difference.relative < 1e-4
    if format == 'torch':
        run.net.use(name)
        for number in (1, 4):  # any number of segments
            frames = torch.randn(3, number, 3, 24, 24)
            if name == SUBNETS[0]:
                frames = torch.randn(3, number, 3, 32, 32)
            with torch.no_grad():
                expected = run.net.model(frames, stage='head')
            (found,) = load_program(path)(frames)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    elif format == 'stock':
        network = load_static(path)
        is_full = name == SUBNETS[0]
        assert hasattr(network, 'task') is not is_full
