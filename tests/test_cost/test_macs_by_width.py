"""Many widths from few traces: equal to counting each on its own."""

import pytest
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import expected_macs, macs_by_width
from mutualnet_mm.cost.macs_by_width import MacsByWidth

WIDTHS = (0.25, 0.3, 0.52, 0.77, 1.0)


@pytest.fixture
def traces(monkeypatch):
    """Note what is counted by running operators."""
    runs = []
    count = macs_by_width.count_on_meta

    def noting(*args, **kwargs):
        runs.append(args)
        return count(*args, **kwargs)

    monkeypatch.setattr(macs_by_width, 'count_on_meta', noting)
    return runs


def equal_counts(model, image_shape=None):
    fast = MacsByWidth(model, image_shape)
    for frames in model.space.frames or (None,):
        for resolution in model.space.resolutions:
            for width in WIDTHS:
                width = max(width, model.space.min_width)
                subnet = Subnet(width, resolution, frames)
                assert fast(subnet) == count_macs(model, subnet, image_shape)


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'backbone, channels',
    [
        (dict(type='MobileNetV1', widen_factor=0.5), 512),
        (dict(type='MobileNetV2', widen_factor=0.5), 1280),
        (dict(type='MobileNetV3', arch='small'), 576),  # squeeze-excite
        (dict(type='ResNet', depth=50, base_channels=32), 1024),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_classifiers(enter_scope, traces, backbone, channels):
    enter_scope('mmpretrain')
    name = f'mutualnet_mm.Slimmable{backbone["type"]}'
    model = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(width_range=(0.25, 1.0), resolution=(64, 48)),
            backbone=dict(backbone, type=name),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=9, in_channels=channels
            ),
        )
    )
    equal_counts(model)
    assert len(traces) == 4  # the widest and the narrowest at two sizes


@MODELS.register_module(force=True)
class OtherKinds(BaseModule):
    """Transposed, deformable and padded convolutions, in groups too."""

    def __init__(self):
        from mmcv.ops import ModulatedDeformConv2dPack

        super().__init__()
        self.layers = nn.Sequential(
            Conv2dAdaptivePadding(3, 64, 5, 2),
            nn.ConvTranspose2d(64, 64, 4, 2, groups=8),
            nn.GroupNorm(4, 64),
            ModulatedDeformConv2dPack(64, 64, 3, 1, 1, groups=4),
            nn.ConvTranspose2d(64, 96, 3),
            nn.Conv2d(96, 64, 1),
        )

    def forward(self, x):
        return (self.layers(x),)


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'backbone',
    [
        dict(wraps='OtherKinds'),
        dict(
            wraps='ConvNeXt',
            arch=dict(depths=[1, 1, 1, 1], channels=[16, 32, 48, 64]),
            gap_before_final_norm=False,
            use_grn=True,
        ),
    ],
    ids=lambda backbone: backbone['wraps'],
)
def test_other_kinds_of_layers(enter_scope, traces, backbone):
    enter_scope('mmpretrain')
    pytest.importorskip('mmcv.ops')
    model = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(width_range=(0.25, 1.0), resolution=(64, 48)),
            backbone=dict(backbone, type='mutualnet_mm.Slimmable'),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=9, in_channels=64),
        )
    )
    equal_counts(model)
    assert len(traces) == 4


def test_each_size_is_traced_once(build_classifier, traces):
    """However many widths there are; it was every width at every size."""
    model = build_classifier(dict(resolution=(64, 48, 32)))
    expected_macs(model, [model.sampler])
    assert len(traces) == 2 * 3


def test_products_outside_of_layers(build_classifier):
    """What does not follow from layers is counted at every width."""
    model = build_classifier(dict(resolution=(64, 48)))

    class Attending(type(model.neck)):
        """Multiplies channels by channels, outside of any layer."""

        def forward(self, x):
            maps = x[-1].flatten(2)
            product = maps @ maps.transpose(1, 2)
            return super().forward((x[-1] + product.mean(),))

    before = count_macs(model, '0.5x-64')
    model.neck.__class__ = Attending
    assert count_macs(model, '0.5x-64') > before
    equal_counts(model)
