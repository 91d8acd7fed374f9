"""Activation of frames beside products and gradients by hand."""

import adaptive_networks as nets
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.analysis.frame_activation import (
    frame_activation,
    seen_frames,
)
from mutualnet_mm.models.build import build_model
from mutualnet_mm.models.static import static_model

pytest.importorskip('torchcam')
pytest.importorskip('mmaction')

FRAMES = {1: [[0, 1, 2, 3], [0, 2, 3]], 4: [[0, 4, 8, 12], [0, 8, 12]]}


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
@pytest.mark.parametrize('number', [0, 1])
def test_linear_heads_give_the_weighted_map(kind, number, request):
    """Of SlowFast, the Slow branch's columns, which are the last ones."""
    model, bank = nets.network(kind, request)
    subnet = nets.KINDS[kind][1][number]
    inputs, samples = nets.full_batch(model, 1)
    inputs = torch.randn(*inputs.shape[:4], 64, 64)  # larger views, as well
    clips, _ = model.task.resize(
        model, inputs, samples, model.space.check(subnet)
    )
    with torch.no_grad(), model.activate(subnet, bank.get(subnet)):
        features = model.backbone(clips[:, 0])
        logits = model(clips, mode='tensor', stage='head')
    fast = 0
    if isinstance(features, tuple):
        features, fast = features[0], features[1].shape[1]
    channels = features.shape[1]
    weight = model.cls_head.fc_cls.weight.numpy(force=True)
    weight = weight[:, fast : fast + channels]
    values = features[0].numpy()
    products = np.einsum('kc,cthw->kthw', weight, values) / values[0].size
    label = int(products.max((1, 2, 3)).argmax())
    expected = products[label]
    assert expected.max() > 0 and expected.shape[1:] == (2, 2)
    found = frame_activation(
        static_model(model, subnet, bank.get(subnet)), inputs, label
    )
    assert found.label == label
    np.testing.assert_allclose(
        found.maps, expected.clip(0), rtol=1e-3, atol=1e-6
    )
    means = expected.clip(0).mean((1, 2))
    np.testing.assert_allclose(found.curve, means / means.max(), rtol=1e-3)
    assert found.frames == FRAMES[model.backbone.frame_stride][number]
    assert found.score == pytest.approx(
        float(logits[0].softmax(0)[label]), rel=1e-4
    )
    assert found.predicted == int(logits.argmax())


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_frames_are_those_that_the_network_is_given(kind, request):
    model, bank = nets.network(kind, request)
    subnet = nets.KINDS[kind][1][1]
    net = static_model(model, subnet, bank[subnet])
    inputs, _ = nets.full_batch(model, 1)
    length = inputs.shape[-3]
    inputs[:] = torch.arange(length).view(-1, 1, 1)
    slow = getattr(net.backbone, 'slow_path', net.backbone)
    seen = []
    slow.conv1.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].mean((0, 1, 3, 4)))
    )
    found = frame_activation(net, inputs)
    assert seen[0].tolist() == pytest.approx(found.frames, abs=1e-3)
    assert seen_frames(net, length) == found.frames
    assert len(found.maps) == 3


@pytest.fixture
def x3d(enter_scope):
    enter_scope('mmaction')
    model = dict(
        type='mutualnet_mm.MutualLearning',
        wraps='Recognizer3D',
        mutual=dict(
            width_range=(0.63, 1.0), resolution=(32, 24), frames=(4, 3)
        ),
        backbone=dict(type='mutualnet_mm.SlimmableX3D', gamma_d=0.5),
        cls_head=dict(
            type='X3DHead', in_channels=192, num_classes=5, fc1_bias=False
        ),
        data_preprocessor=dict(
            type='ActionDataPreprocessor', format_shape='NCTHW'
        ),
    )
    cfg = Config(dict(default_scope='mmaction', model=model))
    return nets.randomise(build_model(cfg)).eval()


def test_x3d_is_grad_cam_by_hand(x3d):
    inputs, samples = nets.full_batch(x3d, 1)
    statistics = nets.random_statistics(x3d, x3d.space.check('0.63x-24-3'))
    found = frame_activation(
        static_model(x3d, '0.63x-24-3', statistics), inputs
    )
    clips, _ = x3d.task.resize(
        x3d, inputs, samples, x3d.space.check('0.63x-24-3')
    )
    with x3d.activate('0.63x-24-3', statistics):
        with torch.no_grad():
            features = x3d.backbone(clips[:, 0])
        features.requires_grad_()
        score = x3d.cls_head(features)[0].max()
    (gradient,) = torch.autograd.grad(score, features)
    expected = np.einsum(
        'c,cthw->thw',
        gradient[0].mean((1, 2, 3)).numpy(),
        features[0].numpy(force=True),
    ).clip(0)
    assert expected.any()
    np.testing.assert_allclose(found.maps, expected, rtol=1e-3, atol=1e-7)
    assert found.frames == [0, 2, 3]


def test_refusals(request):
    model, _ = nets.network('classifier', request)
    inputs, _ = nets.full_batch(model, 1)
    with pytest.raises(ConfigError, match='model is for classification'):
        frame_activation(static_model(model, '1.0x-32'), inputs)
    model, _ = nets.network('slow', request)
    inputs, _ = nets.full_batch(model, 1)
    with pytest.raises(ConfigError, match='class 5 .* has 5'):
        frame_activation(static_model(model, '1.0x-32-4'), inputs, label=5)


def test_networks_of_single_frames(request):
    model, _ = nets.network('tsn', request)
    inputs, _ = nets.full_batch(model, 1)
    with pytest.raises(ConfigError, match='ResNet sees each frame for itself'):
        frame_activation(static_model(model, '1.0x-32-4'), inputs)
