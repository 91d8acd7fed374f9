"""Every backbone of mmaction2: right at every width, or refused by name.

As test_every_backbone.py does for mmpretrain. Narrow networks with the shifts
of TSM, whose channels are not the leading ones, are in test_segments.py.
"""

import copy
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from tiny_transformers import settings_of, tensors
from torch import nn

from mutualnet_mm import UsageError
from mutualnet_mm.models.backbones import TransformerMixin
from mutualnet_mm.slimmable import active_width, make_static
from mutualnet_mm.slimmable.slim_layer import SlimLayer

pytest.importorskip('mmaction')
ROOT = Path(__file__).parents[3]
PAGE = ROOT / 'docs/backbones_mmaction2.md'
spec = spec_from_file_location('tool', ROOT / 'tools/list_backbones.py')
tool = module_from_spec(spec)
spec.loader.exec_module(tool)
BACKBONES = tool.stock_backbones('mmaction2')
# Its map is flattened at 112 pixels: half a minute, for the largest layers.
del BACKBONES['C3D']
THIN = dict(base_channels=8, stage_blocks=(1, 1, 1, 1))
# The large ones with fewer channels, or with fewer of the same blocks.
SMALLER = {
    'C2D': dict(depth=18),
    'MobileOneTSM': dict(
        arch=dict(
            num_blocks=[1, 2, 2, 1],
            width_factor=[0.75, 1.0, 1.0, 1.0],
            num_conv_branches=[1, 1, 1, 1],
            num_se_blocks=[0, 0, 0, 0],
        )
    ),
    'OmniResNet': dict(layers=[1, 1, 1, 1]),
    'ResNet': dict(depth=18, partial_bn=False),
    'ResNet2Plus1d': dict(depth=18, base_channels=16),
    'ResNet3d': dict(
        base_channels=8, stage_blocks=(1, 1, 1, 1), inflate=(1, 1, 1, 1)
    ),
    'ResNet3dCSN': THIN,
    'ResNet3dSlowFast': dict(
        slow_pathway=dict(
            type='resnet3d',
            depth=50,
            lateral=True,
            conv1_kernel=(1, 7, 7),
            inflate=(0, 0, 1, 1),
            **dict(THIN, base_channels=16),
        ),
        fast_pathway=dict(
            type='resnet3d',
            depth=50,
            lateral=False,
            conv1_kernel=(5, 7, 7),
            **dict(THIN, base_channels=2),
        ),
    ),
    'ResNet3dSlowOnly': THIN,
    'ResNetAudio': dict(base_channels=32),
    'ResNetTSM': dict(depth=18, out_indices=(2, 3)),
    'X3D': dict(gamma_d=0.5),
    'UniFormerV2': dict(
        clip_pretrained=False,
        width=64,
        layers=2,
        heads=4,
        n_dim=64,
        n_head=4,
        return_list=[1],
        n_layers=1,
        t_size=8,
        input_resolution=64,
    ),
    **settings_of('mmaction'),
}
for class_name, smaller in SMALLER.items():
    if class_name in BACKBONES:  # MobileOneTSM needs mmpretrain
        BACKBONES[class_name].update(smaller)
# Batches that are not one clip of eight frames.
INPUTS = dict(
    MobileNetV2=(1, 3, 64, 64),
    MobileNetV2TSM=(8, 3, 64, 64),
    MobileOneTSM=(8, 3, 64, 64),
    ResNet=(1, 3, 64, 64),
    ResNetAudio=(1, 1, 64, 64),
    ResNetTSM=(8, 3, 64, 64),
    ResNet3dSlowFast=(1, 3, 32, 64, 64),
    TANet=(8, 3, 64, 64),
)
SHIFTED = {'MobileNetV2TSM', 'MobileOneTSM', 'ResNetTSM'}
# Layers behind joints, which take a part of each piece: of two branches
# (test_slowfast.py has narrow networks) and of convolutions side by side.
JOINED = {'ResNet3dSlowFast', 'ResNetAudio'}
REASONS = {}  # what the tests found


def randomise(net):
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)


@pytest.mark.sweep(5)
@pytest.mark.parametrize('name', BACKBONES)
def test_right_or_refused(enter_scope, name):
    enter_scope('mmaction')
    try:
        net = tool.try_backbone(name, BACKBONES[name], 'mmaction2')
    except UsageError as error:
        REASONS[name] = str(error)
        assert '\n' not in str(error) and name in str(error)
        return
    REASONS[name] = ''
    if isinstance(net, TransformerMixin):
        check_transformer(name, net)
        return
    randomise(net)
    shape = INPUTS.get(name, (1, 3, 8, 64, 64))
    x = torch.randn(shape, dtype=torch.double)
    stock = MODELS.build(dict(type=name, **copy.deepcopy(BACKBONES[name])))
    assert isinstance(net, type(stock))
    stock.load_state_dict(net.state_dict(), strict=True)
    net.load_state_dict(stock.state_dict(), strict=True)
    for network in (net, stock):
        network.double().eval()  # `train` of stock backbones returns nothing
    with torch.no_grad():
        for ours, theirs in zip(maps(net(x)), maps(stock(x))):
            assert torch.equal(ours, theirs)
    narrow, outputs = narrow_copy(net, x, 0.45)
    if name not in SHIFTED | JOINED:
        with torch.no_grad():
            for ours, theirs in zip(outputs, maps(narrow(x))):
                torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)
    count = sum(p.numel() for p in narrow.parameters())
    assert count < 0.6 * sum(p.numel() for p in net.parameters())


def check_transformer(name, net):
    """As the stock network, and as the narrow one of stock layers.

    More is shown of them in test_transformers.py.
    """
    stock = MODELS.build(dict(type=name, **copy.deepcopy(BACKBONES[name])))
    stock.load_state_dict(net.state_dict(), strict=True)
    x = torch.randn(net.slim_joints.input_shape)
    static = copy.deepcopy(net)
    for network in (net, stock, static):
        network.eval()
    with torch.no_grad():
        for ours, theirs in zip(tensors(net(x)), tensors(stock(x))):
            assert torch.equal(ours, theirs)
    with active_width(static, 0.45):
        make_static(static, x)
    with torch.no_grad(), active_width(net, 0.45):
        for ours, theirs in zip(tensors(net(x)), tensors(static(x))):
            torch.testing.assert_close(ours, theirs)


def maps(outputs):
    return outputs if isinstance(outputs, tuple) else (outputs,)


def narrow_copy(net, x, width):
    """The network of plain layers that are as wide as ``net`` ran."""
    shapes, handles = {}, []
    for name, layer in net.named_modules():
        if isinstance(layer, SlimLayer):

            def record(layer, args, out, name=name):
                axis = -1 if isinstance(layer, nn.Linear) else 1
                shapes[name] = args[0].shape[axis], out.shape[axis]

            handles.append(layer.register_forward_hook(record))
    with torch.no_grad(), active_width(net, width):
        outputs = maps(net(x))
    for handle in handles:
        handle.remove()
    narrow = copy.deepcopy(net)
    for name, (inputs, outputs_) in shapes.items():
        *path, last = name.split('.')
        parent = narrow.get_submodule('.'.join(path))
        setattr(parent, last, plain(net.get_submodule(name), inputs, outputs_))
    narrow.eval()
    return narrow, outputs


PLAIN = {
    nn.Linear: nn.Linear,
    nn.Conv1d: nn.Conv1d,
    nn.BatchNorm1d: nn.BatchNorm1d,
    nn.Conv2d: nn.Conv2d,
    nn.Conv3d: nn.Conv3d,
    nn.BatchNorm2d: nn.BatchNorm2d,
    nn.BatchNorm3d: nn.BatchNorm3d,
    nn.SyncBatchNorm: nn.BatchNorm3d,  # the same in evaluation
}


def plain(layer, inputs, outputs):
    """A stock layer with the leading part of what ``layer`` holds."""
    kind = next(new for old, new in PLAIN.items() if isinstance(layer, old))
    if issubclass(kind, nn.modules.batchnorm._BatchNorm):
        new = kind(outputs, eps=layer.eps)
    elif kind is nn.Linear:
        new = kind(inputs, outputs, bias=layer.bias is not None)
    else:
        groups = max(1, layer.groups * inputs // layer.in_channels)
        new = kind(
            inputs,
            outputs,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            groups if layer.groups > 1 else 1,
            bias=layer.bias is not None,
        )
    state = layer.state_dict()
    new = new.double()
    with torch.no_grad():
        for key, value in new.state_dict().items():
            value.copy_(state[key][tuple(slice(n) for n in value.shape)])
    return new


def test_the_page_lists_what_was_found():
    """It is written by tools/list_backbones.py, not by hand."""
    import mmaction

    text = PAGE.read_text()
    if f'mmaction2 {mmaction.__version__}\n' not in text:
        pytest.skip('the page was written with another mmaction2')
    found = dict(REASONS, C3D='')
    if REASONS.keys() == BACKBONES.keys():
        found = {name: found[name] for name in sorted(found)}
        assert tool.survey_page(found, 'mmaction2') == text
    for name, reason in found.items():
        line = f'| {name} | {reason} |' if reason else f'- {name}'
        assert line in text.splitlines()
