"""Subnets of every family as ONNX files and programs of torch.export."""

import json

import pytest
import torch
from mmengine.registry import MODELS
from passes import leading_statistics
from torch import nn
from torch_versions import needs_export

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import count_heads, count_params
from mutualnet_mm.export.export import TOLERANCE
from mutualnet_mm.export.onnx_file import load_onnx, save_onnx
from mutualnet_mm.export.program_file import (
    SubnetProgram,
    load_program,
    save_program,
)
from mutualnet_mm.slimmable import BatchNormCollector

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')

IMAGES = ['1.0x-64', '0.5x-48', '0.25x-32']
CLIPS = ['1.0x-32-4', '0.8x-25-3', '0.63x-21-2']
# A network of one branch and one of two at every size, of the others one
# subnet that is smaller in every respect.
SUBNETS = dict(
    dict.fromkeys(
        ['mobilenet_v1', 'mobilenet_v2', 'mobilenet_v3'], IMAGES[1:2]
    ),
    resnet=IMAGES,
    mask_rcnn=['0.5x-48'],
    slow=CLIPS[1:2],
    slowfast=CLIPS,
    x3d=CLIPS[1:2],
)
FORMATS = dict(
    onnx=(save_onnx, load_onnx, 'a.onnx'),
    torch=(save_program, load_program, 'a.pt2'),
)


@pytest.fixture(scope='module')
def networks():
    """Networks with the statistics of their subnets, once made."""
    return {}


@pytest.fixture
def network(request, networks):
    """Return a network by its name, and the statistics of its subnets."""

    def make(name):
        if name not in networks:
            model = randomise(MODELS.build(config(name, request))).eval()
            subnets = map(Subnet.parse, SUBNETS[name])
            networks[name] = model, {s: statistics(model, s) for s in subnets}
        return networks[name]

    return make


def config(name, request):
    """Config of a network of the fewest blocks that its family has."""
    if name == 'mask_rcnn':
        pytest.importorskip('mmdet')
        return mask_rcnn(request)
    if name in ('slow', 'slowfast', 'x3d'):
        pytest.importorskip('mmaction')
        return recognizer(name, request)
    pytest.importorskip('mmpretrain')
    from mmpretrain.models import MobileNetV2, MobileNetV3

    # One block for each kind that there is.
    change = request.getfixturevalue('monkeypatch').setattr
    change(MobileNetV2, 'arch_settings', [[1, 16, 1, 1], [6, 24, 2, 2]])
    change(
        MobileNetV3,
        'arch_settings',
        dict(
            small=[
                [3, 16, 16, True, 'ReLU', 2],
                [5, 96, 40, True, 'HSwish', 2],
            ]
        ),
    )
    backbone, channels = dict(
        mobilenet_v1=(dict(depth_factor=0.1), 1024),
        mobilenet_v2=(dict(out_indices=(2,)), 1280),
        mobilenet_v3=(dict(arch='small', out_indices=(3,)), 96),
        resnet=({}, 128),
    )[name]
    model = request.getfixturevalue('classifier_config')()
    if name != 'resnet':
        kind = f'SlimmableMobileNetV{name[-1]}'
        model.update(backbone=dict(backbone, type=f'mutualnet_mm.{kind}'))
    model['head'].update(in_channels=channels, num_classes=10)
    return model


def mask_rcnn(request):
    model = request.getfixturevalue('detector_config')()
    model.backbone = dict(
        type='mutualnet_mm.SlimmableVGG',
        depth=11,
        norm_cfg=dict(type='BN'),
        out_indices=(1, 2, 3, 4),
    )
    model.neck.in_channels = [128, 256, 512, 512]
    return model


def recognizer(name, request):
    request.getfixturevalue('enter_scope')('mmaction')
    shape = dict(depth=50, stage_blocks=(1, 1, 1, 1))
    slow = dict(shape, base_channels=16, conv1_kernel=(1, 7, 7))
    fast = dict(shape, base_channels=2, conv1_kernel=(5, 7, 7))
    backbone, head, channels = dict(
        slow=(dict(slow, kind='ResNet3dSlowOnly'), 'I3DHead', 512),
        slowfast=(
            dict(
                kind='ResNet3dSlowFast',
                resample_rate=4,
                speed_ratio=4,
                channel_ratio=8,
                slow_pathway=dict(slow, type='resnet3d', lateral=True),
                fast_pathway=dict(fast, type='resnet3d', lateral=False),
            ),
            'SlowFastHead',
            576,
        ),
        x3d=(dict(kind='X3D', gamma_b=2.25, gamma_d=0.2), 'X3DHead', 432),
    )[name]
    return dict(
        type='mutualnet_mm.MutualLearning',
        wraps='Recognizer3D',
        mutual=dict(
            width_range=(0.63, 1.0), resolution=(32, 25, 21), frames=(4, 3, 2)
        ),
        backbone=dict(
            backbone, type=f'mutualnet_mm.Slimmable{backbone.pop("kind")}'
        ),
        cls_head=dict(type=head, num_classes=20, in_channels=channels),
    )


def randomise(model):
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.05)
        elif isinstance(getattr(layer, 'bias', None), nn.Parameter):
            nn.init.normal_(layer.bias, std=0.1)  # zeros would be left out
    return model


@torch.no_grad()
def statistics(model, subnet):
    collector = BatchNormCollector(model)
    with model.activate(subnet), collector.watch():
        model.task.forward_cost(model, inputs(model, subnet, 4))
    return collector.finish()


def inputs(model, subnet, number, **axes):
    """A batch of noise; ``axes`` have other sizes than the usual ones."""
    shape = [*model.task.input_shape(model, Subnet.parse(subnet), None)]
    for axis, size in dict({'0': number}, **axes).items():
        shape[int(axis.strip('_'))] = size
    return torch.randn(shape)


@torch.no_grad()
def adaptive(model, subnet, bank, batch):
    """Outputs of the sliced network."""
    subnet = Subnet.parse(subnet)
    with model.activate(subnet, bank[subnet]):
        outputs = model.task.forward_cost(model, batch)
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)


def trace(model, subnet, bank, fuse_bn=True):
    subnet = Subnet.parse(subnet)
    shape = model.task.input_shape(model, subnet, None)
    return SubnetProgram(model, subnet, bank[subnet], shape, fuse_bn)


def difference(found, expected):
    """The largest one, relative to the largest value of each output."""
    assert [f.shape for f in found] == [e.shape for e in expected]
    return max(
        float((f - e).abs().max() / e.abs().max())
        for f, e in zip(found, expected)
    )


def batches(model, subnet):
    """Two batch sizes, and of what else may have any size several."""
    return [
        inputs(model, subnet, number, **axes)
        for number, axes in dict(
            classification=[(1, {}), (3, {})],
            # The smallest maps of one pixel, and of several.
            detection=[(1, {}), (3, dict(_2=32, _3=32)), (1, dict(_3=224))],
            action=[(1, {}), (3, dict(_1=2))],
        )[model.task.name]
    ]


def number_of_weights(file):
    """Numbers in an ONNX file, without the arguments of operators."""
    graph = onnx.load(file).graph
    scales = {
        name
        for node in graph.node
        if node.op_type == 'Resize'
        for name in node.input[1:]
    }
    return sum(
        onnx.numpy_helper.to_array(tensor).size
        for tensor in graph.initializer
        if tensor.dims
        and tensor.data_type == onnx.TensorProto.FLOAT
        and tensor.name not in scales
    )


@needs_export
@pytest.mark.sweep(2)
@pytest.mark.slow
@pytest.mark.parametrize('name', list(SUBNETS))
def test_agrees_with_the_sliced_network(name, network, tmp_path):
    """Files shrink with the width."""
    model, bank = network(name)
    params, sizes = {}, {}
    for subnet in SUBNETS[name]:
        program = trace(model, subnet, bank)
        params[subnet] = program.params
        for format, (save, load, file) in FORMATS.items():
            path = tmp_path / file
            save(program, path, {})
            run = load(path)
            for batch in batches(model, subnet):
                expected = adaptive(model, subnet, bank, batch)
                assert difference(run(batch), expected) < TOLERANCE / 100
            # Four bytes of each, and the description of the layers.
            size = path.stat().st_size
            assert 4 * program.params < size < 4 * program.params + 5e5
            assert b'site-packages' not in path.read_bytes()  # a machine's
            sizes[format, subnet] = size
        assert number_of_weights(tmp_path / 'a.onnx') == program.params
        if name == 'mask_rcnn':
            assert program.outputs == [f'feat{i}' for i in range(5)]
    # From the widest to the narrowest.
    order = sorted(
        SUBNETS[name], key=lambda subnet: -Subnet.parse(subnet).width
    )
    for wide, narrow in zip(order, order[1:]):
        assert params[narrow] < 0.85 * params[wide]
        for format in FORMATS:
            assert sizes[format, narrow] < sizes[format, wide]


@needs_export
@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', ['mobilenet_v3', 'mask_rcnn', 'x3d'])
def test_batch_norms_as_they_are(name, network, tmp_path):
    """Nothing is folded, so nothing is rounded in another way."""
    model, bank = network(name)
    (subnet,) = SUBNETS[name]
    program = trace(model, subnet, bank, fuse_bn=False)
    save_program(program, tmp_path / 'a.pt2', {})
    run = load_program(tmp_path / 'a.pt2')
    batch = batches(model, subnet)[1]
    expected = adaptive(model, subnet, bank, batch)
    assert all(map(torch.equal, run(batch), expected))
    heads = count_heads(model, subnet)
    assert program.params == count_params(model, subnet) - (
        heads.params if heads else 0
    )


def test_statistics_of_another_subnet_do_not_pass(network):
    model, bank = network('resnet')
    batch = inputs(model, '0.5x-48', 2)
    expected = adaptive(model, '0.5x-48', bank, batch)
    wrong = leading_statistics(model, '0.5x-48')  # the full network's
    wrong = {Subnet.parse('0.5x-48'): wrong}
    found = adaptive(model, '0.5x-48', wrong, batch)
    assert difference(found, expected) > 10 * TOLERANCE


@needs_export
@pytest.mark.nightly
def test_names_and_properties(network, tmp_path):
    model, bank = network('slowfast')
    program = trace(model, '0.63x-21-2', bank)
    save_onnx(program, tmp_path / 'a.onnx', dict(subnet='x', std=[1.5, 2.0]))
    model = onnx.load(tmp_path / 'a.onnx')
    (made,) = model.graph.input
    assert made.name == 'inputs'
    dims = made.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == [
        *('batch', 'views', 3, 16, 32, 32)
    ]
    assert [output.name for output in model.graph.output] == ['logits']
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties['subnet'] == 'x'
    assert json.loads(properties['std']) == [1.5, 2.0]
    scaled = [
        {a.name: a.s or a.i for a in node.attribute}
        for node in model.graph.node
        if node.op_type == 'Resize'
    ]
    # Nearest are the strides in time; the others are the Slow input and what
    # joins it, but where both are of two pixels at last.
    scaled = [found for found in scaled if found['mode'] != b'nearest']
    assert len(scaled) == 4
    assert all(found['antialias'] == 1 for found in scaled)


@needs_export
def test_properties_of_a_program(network, tmp_path):
    model, bank = network('resnet')
    program = trace(model, '0.25x-32', bank)
    save_program(program, tmp_path / 'a.pt2', dict(subnet='x', std=[1.5]))
    found = {'metadata.json': ''}
    torch.export.load(tmp_path / 'a.pt2', extra_files=found)
    assert json.loads(found['metadata.json']) == dict(subnet='x', std=[1.5])


class NoOperator(nn.Module):
    """Which ONNX does not have."""

    def forward(self, x):
        return torch.special.bessel_j0(x)


class Branches(nn.Module):
    """Which cannot be traced."""

    def forward(self, x):
        return x if x.is_meta or x.sum() > 0 else x + 1


@needs_export
@pytest.mark.parametrize(
    'layer, message',
    [
        (Branches, 'torch.export cannot trace subnet 0.25x-32: '),
        (NoOperator, 'torch.onnx cannot export this network: '),
    ],
)
def test_what_cannot_be_exported(layer, message, network, tmp_path):
    model, bank = network('resnet')
    handle = model.head.register_forward_hook(
        lambda module, args, out: layer()(out)
    )
    try:
        with pytest.raises(UsageError) as error:
            save_onnx(trace(model, '0.25x-32', bank), tmp_path / 'a.onnx', {})
    finally:
        handle.remove()
    assert str(error.value).startswith(message)
    assert '\n' not in str(error.value) and 'static' in str(error.value)
    print(error.value)


def test_of_a_damaged_file(tmp_path):
    (tmp_path / 'a.onnx').write_bytes(b'nothing')
    with pytest.raises(UsageError, match="cannot load '.*a.onnx': "):
        load_onnx(tmp_path / 'a.onnx')


@needs_export
def test_a_torch_that_cannot(network, monkeypatch):
    model, bank = network('resnet')
    monkeypatch.delattr(torch.export.Dim, 'DYNAMIC')
    with pytest.raises(UsageError, match='need 2.6 or later; use format st'):
        trace(model, '0.25x-32', bank)
