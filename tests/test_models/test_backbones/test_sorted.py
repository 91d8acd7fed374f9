"""Sorted backbones: the stock class computes what it did before."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from tiny_transformers import TINY, tensors

from mutualnet_mm.slimmable import sort_channels
from mutualnet_mm.slimmable.verify import already_verified

RESNET = dict(depth=50, base_channels=16, stem_channels=16)
THIN = dict(base_channels=8, stage_blocks=(1, 1, 1, 1))
IMAGE, CLIP = (1, 3, 64, 64), (1, 3, 8, 32, 32)
# Project, class, arguments, shape of an input.
FAMILIES = {
    'resnet': ('mmpretrain', 'ResNet', RESNET, IMAGE),
    'groups': ('mmpretrain', 'ResNeXt', dict(RESNET, groups=8), IMAGE),
    'group norm': (
        'mmpretrain',
        'ResNet',
        dict(RESNET, norm_cfg=dict(type='GN', num_groups=4)),
        IMAGE,
    ),
    'mobilenet v1': (
        'mmpretrain',
        'mutualnet_mm.MobileNetV1',
        dict(widen_factor=0.5),
        IMAGE,
    ),
    'mobilenet v2': (
        'mmpretrain',
        'MobileNetV2',
        dict(widen_factor=0.5),
        IMAGE,
    ),
    'gates': ('mmpretrain', 'MobileNetV3', dict(arch='small'), IMAGE),
    'wrn': (
        'mmpretrain',
        'mutualnet_mm.WideResNet',
        dict(depth=10, widen_factor=2),
        IMAGE,
    ),
    'vgg': (
        'mmpretrain',
        'VGG',
        dict(depth=11, norm_cfg=dict(type='BN')),
        IMAGE,
    ),
    'concatenations': (
        'mmpretrain',
        'DenseNet',
        dict(arch=dict(growth_rate=16, depths=[2, 2, 2, 2], init_channels=32)),
        IMAGE,
    ),
    'scales': ('mmpretrain', 'Res2Net', dict(depth=50, base_width=8), IMAGE),
    'layer scale': (
        'mmpretrain',
        'ConvNeXt',
        dict(arch=dict(depths=[1, 1, 1, 1], channels=[16, 32, 48, 64])),
        IMAGE,
    ),
    'halves': (
        'mmdet',
        'CSPDarknet',
        dict(deepen_factor=0.33, widen_factor=0.25),
        IMAGE,
    ),
    'several maps': (
        'mmdet',
        'ResNet',
        dict(depth=18, base_channels=16, norm_eval=False, frozen_stages=-1),
        IMAGE,
    ),
    'slow': ('mmaction', 'ResNet3dSlowOnly', THIN, CLIP),
    'x3d': ('mmaction', 'X3D', dict(gamma_d=0.5), CLIP),
    'two branches': (
        'mmaction',
        'ResNet3dSlowFast',
        dict(
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
        (1, 3, 32, 32, 32),
    ),
    'heads': (
        'mmpretrain',
        'VisionTransformer',
        *TINY['mmpretrain.VisionTransformer'],
    ),
    'windows': (
        'mmpretrain',
        'SwinTransformer',
        *TINY['mmpretrain.SwinTransformer'],
    ),
}


def randomise(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        for tensor in layer.parameters(recurse=False):
            if tensor.dim() > 1:
                std = tensor[0].numel() ** -0.5
                tensor.data.normal_(0, std, generator=generator)
            else:
                tensor.data.uniform_(0.5, 1.5, generator=generator)
        if getattr(layer, 'running_mean', None) is not None:
            layer.running_mean.uniform_(-1, 1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)


@pytest.fixture
def build(enter_scope):
    """Return the stock network, and its slimmable form of other weights."""

    def make(name):
        project, kind, settings, shape = FAMILIES[name]
        enter_scope(project)
        stock = MODELS.build(dict(copy.deepcopy(settings), type=kind))
        with already_verified():
            net = MODELS.build(
                dict(
                    copy.deepcopy(settings),
                    type='mutualnet_mm.Slimmable',
                    wraps=kind,
                )
            )
        return stock, net, shape

    return make


def run(net, state, x):
    net.load_state_dict(state)
    net.double().eval()
    for layer in net.modules():  # position encodings are made in single
        if layer._parameters.get('weight') is not None:
            layer.register_forward_pre_hook(
                lambda _, args: tuple(x.double() for x in args)
            )
    with torch.no_grad():
        return list(tensors(net(x)))


@pytest.mark.sweep(6)
@pytest.mark.parametrize('name', FAMILIES)
def test_the_stock_class_computes_the_same(name, build):
    stock, net, shape = build(name)
    randomise(net)
    before = copy.deepcopy(net.state_dict())
    frames = getattr(net, 'trial_frames', 8)
    report = sort_channels(net, 'bn', frames=frames)
    after = net.state_dict()
    x = torch.randn(shape, dtype=torch.double)
    outputs = [run(copy.deepcopy(stock), s, x) for s in (before, after)]
    assert outputs[0]
    for old, new in zip(*outputs):
        torch.testing.assert_close(new, old, rtol=1e-9, atol=1e-9)
    # Something has moved, and nothing was left without a known reason.
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert len(moved) > 5
    reasons = {found.stays for found in report}
    assert reasons <= {
        '',
        'they leave the network as they are',
        'they are of the inside of a layer, such as heads',
    }
    done = sum(found.channels for found in report if not found.stays)
    total = sum(found.channels for found in report)
    assert done > 0.3 * total if name not in ('heads', 'windows') else done


def falls(values):
    return bool((values.diff() <= 1e-6).all())


def by_mean(norm):
    return norm.weight.detach() / norm.weight.detach().mean()


def test_importance_falls_in_a_resnet(build):
    _, net, _ = build('resnet')
    randomise(net)
    sort_channels(net, 'bn')
    assert falls(net.bn1.weight)
    for stage in (net.layer1, net.layer2, net.layer3):
        streams = [by_mean(stage[0].downsample[1])]
        for block in stage:
            assert falls(block.bn1.weight) and falls(block.bn2.weight)
            streams.append(by_mean(block.bn3))
        assert falls(sum(streams)) and not falls(streams[1])
    # Its maps are those of before.
    assert not falls(by_mean(net.layer4[0].bn3))


def test_importance_falls_in_a_mobilenet(build):
    """Hidden channels: both norms, before and behind the depthwise one."""
    _, net, _ = build('mobilenet v2')
    randomise(net)
    sort_channels(net, 'bn')
    for block in net.layer3:
        first, second, _ = block.conv
        assert falls(by_mean(first.bn) + by_mean(second.bn))
    stream = sum(by_mean(block.conv[2].bn) for block in net.layer3)
    assert falls(stream)


def test_groups_move_whole(build):
    _, net, _ = build('groups')
    randomise(net)
    before = copy.deepcopy(net.layer1[0].conv2.weight.detach())
    sort_channels(net, 'bn')
    block = net.layer1[0]
    width = block.conv2.in_channels // block.conv2.groups
    after = block.conv2.weight.detach()
    groups = [w.unflatten(0, (-1, width)).flatten(1) for w in (before, after)]
    same = torch.cdist(*groups) == 0
    assert (same.sum(0) == 1).all() and (same.sum(1) == 1).all()
    assert not same.diagonal().all()
    norms = by_mean(block.bn1) + by_mean(block.bn2)
    assert falls(norms.view(-1, width).sum(1))


def test_heads_stay(build):
    _, net, _ = build('heads')
    randomise(net)
    before = copy.deepcopy(net.state_dict())
    sort_channels(net, 'l1')
    changed = {
        key.split('.', 2)[-1].rsplit('.', 1)[0]
        for key, value in net.state_dict().items()
        if not torch.equal(value, before[key])
    }
    assert changed == {'ffn.layers.0.0', 'ffn.layers.1'}
    for layer in net.layers:
        rows = layer.ffn.layers[0][0].weight.detach().abs().sum(1)
        assert falls(rows)
