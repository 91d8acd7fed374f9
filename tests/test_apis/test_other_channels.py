"""Networks of other than three channels, from training to an exported file.

Grey images, images with an alpha channel, heat maps of 17 joints, and optical
flow, in clips and stacked for a 2D network: what other tests try piece by
piece is one run here.
"""

import copy
from pathlib import Path
from typing import NamedTuple

import adaptive_networks as nets
import channel_networks as channels
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from channel_networks import FLOW_FRAMES, KINDS, SIDE, TIME
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.flop_counter import FlopCounterMode
from torch_versions import skip_without_export

from mutualnet_mm import UsageError
from mutualnet_mm.apis import (
    AdaptiveModel,
    build_table,
    export_subnet,
    load_static,
)
from mutualnet_mm.export.metadata import program_metadata
from mutualnet_mm.export.onnx_file import load_onnx
from mutualnet_mm.export.program_file import load_program, tensors_of
from mutualnet_mm.query_table import QueryTable

each_kind = pytest.mark.parametrize('name', list(KINDS))


class Run(NamedTuple):
    """What was trained, and what was made of it."""

    cfg: Config
    initial: dict
    trained: dict
    folder: Path
    table: QueryTable
    net: AdaptiveModel


@pytest.fixture(scope='module')
def runs():
    """Runs that were made; no test changes one."""
    return {}


@pytest.fixture
def make_run(request, runs, enter_scope, tmp_path_factory):
    """Train a network for one step, and build its table."""

    def make(name):
        kind = KINDS[name]
        pytest.importorskip(kind.scope)
        enter_scope(kind.scope)
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            cfg = channels.make_config(name, request, folder)
            runner = Runner.from_cfg(copy.deepcopy(cfg))
            model = runner.model
            model.init_weights()
            nets.randomise(model)
            initial = copy.deepcopy(model.state_dict())
            model.init_weights = lambda: None  # which training would repeat
            runner.train()
            checkpoint = folder / 'work' / 'iter_1.pth'
            table = build_table(
                cfg, str(checkpoint), folder, subnets=kind.subnets
            )
            runs[name] = Run(
                cfg,
                initial,
                model.state_dict(),
                folder,
                table,
                AdaptiveModel.from_file(folder / 'adaptive.pth'),
            )
        return kind, runs[name]

    return make


@pytest.mark.sweep(2)
@each_kind
def test_a_step_reaches_the_first_layer(name, make_run):
    """In all of its channels."""
    kind, run = make_run(name)
    kernel = next(
        key
        for key, value in run.initial.items()
        if value.dim() > 3 and value.shape[1] == kind.channels
    )
    assert kernel.startswith('backbone.conv1')
    moved = run.trained[kernel] - run.initial[kernel]
    assert moved.isfinite().all()
    assert (moved.transpose(0, 1).flatten(1).abs().amax(1) > 0).all()
    for key, value in run.trained.items():
        assert torch.equal(run.net.file.weights[key], value), key


def stock_settings(cfg, scope):
    """Settings of the network with the classes of its project alone."""
    model = copy.deepcopy(cfg.model)
    model.update(type=model.pop('wraps'))
    del model['mutual']
    model.backbone.pop('wraps', None)
    clips = model.type == 'Recognizer3D'
    model.backbone.type = 'ResNet3dSlowOnly' if clips else 'ResNet'
    return model


def batches(cfg, model):
    """What the stock test loop gives a model, without the ground truth."""
    dataset = DATASETS.build(copy.deepcopy(cfg.test_dataloader.dataset))
    found = []
    for i in range(len(dataset)):
        batch = pseudo_collate([dataset[i]])
        batch = model.data_preprocessor(batch, False)
        samples = batch['data_samples']
        for name in [*samples[0].keys()]:
            delattr(samples[0], name)
        found.append((batch['inputs'], samples))
    return found


def close(found, expected):
    """Compare predictions; videos read as files have a label of -1, too."""
    found.pop('0/gt_label', None)
    assert found.keys() == expected.keys() and found
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value)


@pytest.mark.sweep(2)
@each_kind
def test_the_full_network_is_the_stock_one(name, make_run):
    kind, run = make_run(name)
    cfg = copy.deepcopy(run.cfg)
    cfg.model = stock_settings(run.cfg, kind.scope)
    cfg.test_cfg = dict(type='TestLoop')
    cfg.custom_hooks = []
    cfg.load_from = str(run.folder / 'work' / 'iter_1.pth')
    cfg.experiment_name += '-stock'
    runner = Runner.from_cfg(cfg)
    assert not hasattr(runner.model, 'task')
    metrics = runner.test()
    entry = run.table.entries[0]
    assert str(entry.subnet) == kind.subnets[0]
    for key, value in metrics.items():
        if np.isfinite(value):
            assert entry.metrics[key] == pytest.approx(value), key
    assert run.table.metric in metrics

    stock = runner.model.eval()
    stock.load_state_dict(run.net.file.weights)  # strictly
    run.net.use(kind.subnets[0])
    for inputs, samples in batches(cfg, stock):
        copies = [sample.new() for sample in samples]
        with torch.no_grad():
            expected = nets.outputs(stock(inputs, copies, mode='predict'))
        found = nets.outputs(run.net.predict(inputs, samples))
        close(found, expected)


def resize_by_hand(subnet, inputs):
    """Resize a batch of classifiers and recognizers, and pick its frames."""
    side = subnet.resolution * inputs.shape[-1] // SIDE
    shape = inputs.shape[:-2]
    if subnet.frames is not None:
        chosen = {4: [0, 1, 2, 3], 2: [1, 3]}[subnet.frames]
        if inputs.dim() == 6:
            inputs = inputs[:, :, :, chosen]
        else:  # of each view, one after the other
            views = inputs.unflatten(1, (-1, 4))[:, :, chosen]
            inputs = views.flatten(1, 2)
        shape = inputs.shape[:-2]
    images = F.interpolate(
        inputs.reshape(1, -1, *inputs.shape[-2:]),
        (side, side),
        mode='bilinear',
        antialias=True,
    )
    return images.view(*shape, side, side)


@torch.no_grad()
def run_by_hand(scope, model, inputs):
    """Run the whole network, of a detector what makes the maps."""
    if scope == 'mmdet':
        return model.extract_feat(inputs)
    stage = dict(stage='head') if scope == 'mmaction' else {}
    return [model(inputs, mode='tensor', **stage)]


@each_kind
def test_macs_are_those_of_a_pass(name, make_run):
    """With those of the pooling, which torch does not count."""
    kind, run = make_run(name)
    net = run.net
    assert [str(e.subnet) for e in run.table.entries] == kind.subnets
    assert len({e.macs for e in run.table.entries}) == len(kind.subnets)
    pooled = []
    hook = net.model.backbone.register_forward_hook(
        lambda module, args, maps: pooled.append(tensors_of(maps)[-1].numel())
    )
    for entry in run.table.entries:
        net.use(entry.subnet)
        if kind.scope == 'mmdet':
            # 480 x 640, COCO's commonest, resized and padded.
            width = {64: 96, 48: 64}[entry.subnet.resolution]
            inputs = torch.zeros(1, 4, 64, width)
        else:
            shape = dict(  # as it is tested
                grey=(1, SIDE, SIDE), stacked=(4, kind.channels, 36, 36)
            ).get(name, (1, kind.channels, 4, 36, 36))
            inputs = resize_by_hand(entry.subnet, torch.zeros(1, *shape))
        with FlopCounterMode(display=False) as counter:
            run_by_hand(kind.scope, net.model, inputs)
        added = 0 if kind.scope == 'mmdet' else pooled[-1]
        assert entry.macs == counter.get_total_flops() // 2 + added
    hook.remove()


def read_flow(folder):
    """Frames of x and y as an array, (T, H, W, 2)."""
    axes = [
        [str(folder / FLOW_FRAMES.format(axis, t)) for t in TIME]
        for axis in 'xy'
    ]
    return np.stack(
        [np.stack([cv2.imread(file, 0) for file in axis]) for axis in axes], -1
    )


def files_and_arrays(name, folder):
    """The test set as a user has it, in its order."""
    if name in ('flow', 'stacked'):
        files = sorted(folder.glob('video*'))
        return files, [read_flow(file) for file in files]
    pattern = dict(grey='test/*/*.png', alpha='val*.png')[name]
    files = sorted(folder.glob(pattern))
    return files, [cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in files]


@each_kind
def test_predictions_within_a_budget(name, make_run):
    """Of files, of arrays and of tensors they are what the table tested."""
    kind, run = make_run(name)
    net = run.net
    least = min(run.table.entries, key=lambda entry: entry.macs)
    with pytest.raises(UsageError, match='no subnet'):
        net.set_budget(macs=least.macs - 1)
    assert net.set_budget(macs=least.macs) == least.subnet
    subnet = str(least.subnet)
    assert subnet == kind.subnets[-1]
    statistics = net.file.statistics[subnet]
    tested = batches(run.cfg, net.model)
    expected = [
        nets.loop_outputs(net.model, subnet, statistics, *batch)
        for batch in tested
    ]
    if name == 'poses':
        with pytest.raises(UsageError, match='give them as a tensor'):
            net(run.folder / 'poses.pkl')
    else:
        for given in files_and_arrays(name, run.folder):
            assert len(given) == len(tested)
            for sample, outputs in zip(net(given), expected):
                close(nets.outputs([sample]), outputs)
    if name == 'alpha':  # original images, which are resized in another way
        assert len(net(torch.rand(4, 60, 80))[0].pred_instances) == 5
        return
    for (inputs, _), outputs in zip(tested, expected):
        close(nets.outputs(net(inputs)), outputs)


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    'name, format',
    [(name, format) for name in KINDS for format in ('static', 'onnx')]
    + [('grey', 'torch')],
)
def test_exports(name, format, make_run, tmp_path):
    """Their outputs are the adaptive network's on inputs resized by hand."""
    skip_without_export(format)
    kind, run = make_run(name)
    if format == 'onnx':
        pytest.importorskip('onnxscript')
        pytest.importorskip('onnxruntime')
    net, subnet = run.net, kind.subnets[-1]
    suffix = dict(static='.pth', onnx='.onnx', torch='.pt2')[format]
    path = tmp_path / f'a{suffix}'
    proof = export_subnet(net, subnet, format, path)
    assert proof.difference.relative < 1e-4
    net.use(subnet)
    inputs, samples = batches(run.cfg, net.model)[0]
    if kind.scope == 'mmdet':
        resized = inputs[..., :64, :64]
    else:
        resized = resize_by_hand(net.current, inputs)
    expected = run_by_hand(kind.scope, net.model, resized)
    if format == 'static':
        network = load_static(path)
        found = run_by_hand(kind.scope, network, resized)
        with torch.no_grad():
            copies = [sample.new() for sample in samples]
            predicted = nets.outputs(network(inputs, copies, mode='predict'))
        close(predicted, nets.outputs(net.predict(inputs, samples)))
    else:
        load = load_onnx if format == 'onnx' else load_program
        found = load(path)(resized)
        about = program_metadata(net, net.current)
        assert about['channel_order'] == kind.order
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
