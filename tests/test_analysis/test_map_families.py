"""Maps of the paper's families of networks beside the active networks'."""

import adaptive_networks as nets
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mutualnet_mm.analysis.activation_maps import (
    classifier_maps,
    uses_class_weights,
)
from mutualnet_mm.models.build import build_model
from mutualnet_mm.models.static import static_model

pytest.importorskip('torchcam')

FAMILIES = dict(  # backbone, channels of its last map
    MobileNetV1=(dict(widen_factor=0.25), 256),
    MobileNetV2=(dict(widen_factor=0.25), 1280),
    MobileNetV3=(dict(arch='small'), 576),
    ResNet=(dict(depth=50, stem_channels=8, base_channels=8), 256),
    WideResNet=(dict(depth=10, widen_factor=1), 64),
    VGG=(dict(depth=11, norm_cfg=dict(type='BN')), 512),
)
SUBNET = '0.75x-48'


@pytest.mark.sweep(3)
@pytest.mark.parametrize('family', FAMILIES)
def test_a_narrow_networks_map(family, enter_scope):
    enter_scope('mmpretrain')
    settings, channels = FAMILIES[family]
    head = dict(type='LinearClsHead', in_channels=channels, num_classes=10)
    if family == 'MobileNetV3':  # its own head: two layers
        head.update(type='StackedLinearClsHead', mid_channels=[32])
    model = dict(
        type='mutualnet_mm.MutualLearning',
        wraps='ImageClassifier',
        mutual=dict(width_range=(0.7, 1.0), resolution=(64, 48)),
        backbone=dict(type=f'mutualnet_mm.Slimmable{family}', **settings),
        neck=dict(type='GlobalAveragePooling'),
        head=head,
    )
    cfg = Config(dict(default_scope='mmpretrain', model=model))
    model = nets.randomise(build_model(cfg)).eval()
    statistics = nets.random_statistics(model, model.space.check(SUBNET))
    inputs, samples = nets.full_batch(model, 1)
    net = static_model(model, SUBNET, statistics)
    assert uses_class_weights(net) == (family != 'MobileNetV3')
    small, _ = model.task.resize(
        model, inputs, samples, model.space.check(SUBNET)
    )
    with model.activate(SUBNET, statistics):
        with torch.no_grad():
            features = model.backbone(small)[-1]
        features.requires_grad_()
        scores = model.head((model.neck((features,))[0],))[0]
    maps = []
    for score in scores:
        (gradient,) = torch.autograd.grad(score, features, retain_graph=True)
        # The score's derivative by the mean of a channel is its weight.
        weights = gradient[0].mean((1, 2)).numpy()
        maps.append(np.tensordot(weights, features[0].numpy(force=True), 1))
    label = int(np.argmax([values.max() for values in maps]))
    expected = maps[label]
    if family == 'MobileNetV3':
        expected = expected.clip(0)
    else:
        expected *= features[0, 0].numel()
    (found,) = classifier_maps(net, inputs, samples, [label])
    assert expected.max() > 1e-4
    np.testing.assert_allclose(
        found.values,
        expected,
        rtol=1e-3,
        atol=1e-4 * float(abs(expected).max()),
    )
