"""Activation maps beside matrix products, stock and active networks."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.activation_maps import (
    classifier_maps,
    detector_map,
    uses_class_weights,
)
from mutualnet_mm.models.static import static_model

pytest.importorskip('torchcam')

SUBNETS = ['1.0x-32', '0.5x-16']
SIZE = 32


@pytest.fixture
def network(make_config, checkpoint):
    cfg = make_config(
        custom_hooks=[
            dict(
                type='mutualnet_mm.BNCalibrationHook',
                num_batches=2,
                priority='LOW',
            )
        ]
    )
    return TrainedNetwork(cfg, checkpoint, SUBNETS)


def by_hand(features, weight):
    """Multiply (C, h, w) by (K, C)."""
    height, width = features.shape[1:]
    return (weight @ features.reshape(len(features), -1)).reshape(
        -1, height, width
    )


def test_the_full_map_is_the_stock_networks(network, image_batch, weights):
    settings = {
        k: v for k, v in network.cfg.model.items() if k not in ('mutual',)
    }
    settings.update(
        type=settings.pop('wraps'),
        backbone=dict(
            type='ResNet', depth=18, stem_channels=16, base_channels=16
        ),
    )
    stock = MODELS.build(settings)
    stock.load_state_dict(weights)
    stock.eval()
    images, samples = image_batch(size=SIZE)
    net = network.static('1.0x-32')
    assert uses_class_weights(net)
    found = classifier_maps(net, images, samples)
    with torch.no_grad():
        (features,) = stock.backbone(images)
        logits = stock(images)
    for i, entry in enumerate(found):
        expected = by_hand(
            features[i].numpy(), stock.head.fc.weight.numpy(force=True)
        )
        assert entry.label == entry.predicted == logits[i].argmax()
        assert entry.score == pytest.approx(
            float(logits[i].softmax(0)[entry.label]), rel=1e-5
        )
        np.testing.assert_allclose(
            entry.values, expected[entry.label], rtol=1e-4, atol=1e-5
        )
        # The score is the map's mean, plus a bias.
        assert entry.values.mean() + stock.head.fc.bias[
            entry.label
        ].item() == pytest.approx(float(logits[i].max()), rel=1e-4)
    assert (net.subnet.width, found[0].subnet.resolution) == (1.0, 32)


def test_a_subnets_map_is_that_of_the_active_network(network, image_batch):
    """With its own statistics, at its own resolution, of a given class."""
    images, samples = image_batch(size=SIZE)
    found = classifier_maps(
        network.static('0.5x-16'), images, samples, labels=[3, 2, 1, 0]
    )
    small = F.interpolate(
        images, (16, 16), mode='bilinear', antialias=True, align_corners=False
    )
    model = network.model
    with torch.no_grad(), model.activate(
        '0.5x-16', network.statistics['0.5x-16']
    ):
        (features,) = model.backbone(small)
    weight = model.head.fc.weight.numpy(force=True)[:, : features.shape[1]]
    assert features.shape[1] == 64  # of 128
    for i, entry in enumerate(found):
        expected = by_hand(features[i].numpy(), weight)[3 - i]
        np.testing.assert_allclose(
            entry.values, expected, rtol=1e-4, atol=1e-5
        )
        assert entry.label == 3 - i


def test_grad_cam_is_the_map_of_positive_evidence(network, image_batch):
    """Where both exist, they are the same but for a factor and the sign."""
    images, samples = image_batch(size=SIZE)
    net = network.static('0.5x-16')
    expected = classifier_maps(net, images, samples)
    other = copy.copy(net)  # of another neck by name
    other._modules = dict(net._modules, neck=torch.nn.Sequential(net.neck))
    assert not uses_class_weights(other)
    found = classifier_maps(other, images, samples)
    for one, two in zip(found, expected):
        points = two.values.size
        np.testing.assert_allclose(
            one.values * points, two.values.clip(0), rtol=1e-4, atol=1e-5
        )
        assert one.label == two.label
        assert one.score == pytest.approx(two.score)


def test_the_network_stays_as_it_is(network, image_batch):
    net = network.static('0.5x-16')
    before = list(net.state_dict()), dict(net.named_modules()).keys()
    classifier_maps(net, *image_batch(size=SIZE))
    assert before == (list(net.state_dict()), dict(net.named_modules()).keys())
    assert not net.backbone._forward_hooks
    assert all(p.grad is None for p in net.parameters())


def test_a_class_that_is_none(network, image_batch):
    net = network.static('0.5x-16')
    with pytest.raises(ConfigError, match='class 4 .* classifier has 4'):
        classifier_maps(net, *image_batch(1, SIZE), labels=[4])


@pytest.fixture
def detector(enter_scope, load_batch):
    """A thin RetinaNet, of random weights, and two images."""
    enter_scope('mmdet')
    from mmengine.hub import get_config
    from thin_detectors import thin

    model = get_config('mmdet::retinanet/retinanet_r50_fpn_1x_coco.py').model
    thin(model)
    model.backbone.update(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=18,
        norm_eval=False,
        frozen_stages=-1,
        init_cfg=None,
    )
    model.neck.in_channels = [8, 16, 32, 64]
    model.bbox_head.num_classes = 2
    model.test_cfg.update(score_thr=0.0, max_per_img=8)
    model.update(
        type='mutualnet_mm.MutualLearning',
        wraps='RetinaNet',
        mutual=dict(resolution=(64, 48)),
    )
    model = MODELS.build(model)
    model.init_weights()
    with torch.no_grad():  # all that is found speaks for a class
        for name, weight in model.named_parameters():
            if name.startswith(('neck.', 'bbox_head.cls', 'bbox_head.retina')):
                weight.abs_()
        model.bbox_head.retina_cls.bias.zero_()
    model.eval()
    data = model.data_preprocessor(load_batch(range(1), split='val'))
    images = data['inputs']
    with torch.no_grad():  # and nothing is sure
        (highest, *_), _ = model.bbox_head(model.neck(model.backbone(images)))
        model.bbox_head.retina_cls.weight /= highest.max()
    return model, images, data['data_samples']


@pytest.mark.parametrize('label', [None, 1])
def test_a_detectors_map_is_layer_cam_by_hand(detector, label):
    model, images, samples = detector
    net = static_model(model, '1.0x-64')
    found = detector_map(net, images, samples, label)
    with torch.no_grad():
        features = list(model.backbone(images))
    features[-1].requires_grad_()
    levels = model.bbox_head(model.neck(features))[0]
    every = torch.cat([level.flatten() for level in levels]).sigmoid()
    (predicted,) = model.predict(images, samples)
    predicted = predicted.pred_instances
    chosen = predicted.scores
    if label is not None:
        chosen = chosen[predicted.labels == label]
        assert 0 < len(chosen) < len(predicted)
    # Predictions are cut off from the network: find their scores in it.
    places = (every[None] - chosen[:, None]).abs().argmin(1)
    assert len(places.unique()) == len(chosen)
    chosen = every[places]
    (gradient,) = torch.autograd.grad(chosen.sum(), features[-1])
    expected = gradient[0].numpy().clip(0) * features[-1][0].numpy(force=True)
    expected = expected.sum(0)
    assert expected.max() > 0
    np.testing.assert_allclose(found.values, expected, rtol=1e-3, atol=1e-7)
    assert found.score == pytest.approx(float(chosen.sum()), rel=1e-5)
    height, width = samples[0].img_shape
    assert found.inside == (height / images.shape[2], width / images.shape[3])


def test_a_detector_that_finds_nothing(detector):
    model, images, samples = detector
    net = static_model(model, '0.25x-48')
    net.bbox_head.test_cfg.score_thr = 1.0
    found = detector_map(net, images, samples)
    assert not found.values.any()
    assert (found.score, found.values.ndim) == (0.0, 2)
    assert min(found.inside) < 1  # 48 x 64 in a canvas of 64 x 64
