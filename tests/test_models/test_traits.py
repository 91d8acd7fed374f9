import pytest
from mmengine.config import Config
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.config.adaptive import derive
from mutualnet_mm.models.build import build_stock, without_weights
from mutualnet_mm.models.traits import _argument, read_traits


class Named:
    def __init__(self, depth, norm_eval=True):
        pass


class PassesOn(Named):
    def __init__(self, depth, **kwargs):
        super().__init__(depth, **kwargs)


class DoesNot(Named):
    def __init__(self, depth):
        super().__init__(depth, norm_eval=False)


class Inherits(PassesOn):
    pass


@pytest.mark.parametrize(
    'cls, found',
    [
        (Named, (True, True)),
        (PassesOn, (True, True)),
        (Inherits, (True, True)),
        (DoesNot, (False, None)),
        (nn.ReLU, (False, None)),
    ],
)
def test_arguments(cls, found):
    assert _argument(cls, 'norm_eval') == found


@pytest.fixture
def detector(enter_scope):
    """Return the traits of a RetinaNet with changes of its backbone."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')

    def make(divisor=32, **backbone):
        cfg = Config(
            dict(
                default_scope='mmdet',
                model=dict(
                    type='RetinaNet',
                    data_preprocessor=dict(
                        type='DetDataPreprocessor', pad_size_divisor=divisor
                    ),
                    backbone=dict(dict(type='ResNet', depth=18), **backbone),
                    neck=dict(
                        type='FPN',
                        in_channels=[64, 128, 256, 512],
                        out_channels=8,
                        num_outs=5,
                    ),
                    bbox_head=dict(
                        type='RetinaHead', num_classes=2, in_channels=8
                    ),
                ),
            )
        )
        return cfg, build_stock(cfg)

    return make


@pytest.mark.parametrize(
    'backbone, frozen',
    [
        # mmdet's ResNet freezes batch norms by default.
        (dict(), dict(norm_eval=False)),
        (dict(norm_eval=False), dict()),
        (
            dict(norm_eval=True, frozen_stages=1),
            dict(norm_eval=False, frozen_stages=-1),
        ),
        # Families that count from 1, and one that freezes nothing.
        (dict(type='EfficientNet', arch='b0', depth=None), dict()),
        (
            dict(
                type='mmpretrain.ConvNeXt',
                depth=None,
                out_indices=(0, 1, 2, 3),
                frozen_stages=2,
                gap_before_final_norm=False,
            ),
            dict(frozen_stages=0),
        ),
        (dict(type='PyramidVisionTransformerV2', depth=None), dict()),
        # Of which 0 freezes the stem, and which accepts -1.
        (
            dict(type='mmpretrain.PoolFormer', depth=None, out_indices=6),
            dict(frozen_stages=-1),
        ),
        (
            dict(
                type='mmpretrain.PoolFormer',
                depth=None,
                out_indices=6,
                frozen_stages=2,
            ),
            dict(frozen_stages=-1),
        ),
        (
            dict(type='EfficientNet', arch='b0', depth=None, frozen_stages=3),
            dict(frozen_stages=0),
        ),
        # A backward pass of its own, which sums no gradients.
        (
            dict(
                type='mmpretrain.RevVisionTransformer',
                arch='deit-tiny',
                depth=None,
            ),
            dict(no_custom_backward=True),
        ),
    ],
)
def test_what_freezes(detector, backbone, frozen):
    if backbone.get('type', '').startswith('mmpretrain'):
        pytest.importorskip('mmpretrain')
    if 'depth' in backbone:
        cfg, _ = detector()
        cfg.model.backbone = {k: v for k, v in backbone.items() if v}
        model = build_stock(cfg)
    else:
        cfg, model = detector(**backbone)
    assert read_traits(cfg, model).frozen == frozen


@pytest.mark.parametrize(
    'norm, batch_norms, synchronised',
    [('BN', True, False), ('SyncBN', True, True), ('GN', False, False)],
)
def test_norms(detector, norm, batch_norms, synchronised):
    norm_cfg = dict(type=norm, requires_grad=True)
    if norm == 'GN':
        norm_cfg.update(num_groups=32)
    traits = read_traits(*detector(norm_cfg=norm_cfg))
    assert traits.batch_norms == batch_norms
    assert traits.synchronised == synchronised


SMALL = dict(arch='deit-t', img_size=64, patch_size=16)


@pytest.mark.parametrize(
    'backbone, sides',
    [
        # Its table of relative positions is for one size.
        (dict(type='BEiTViT', **SMALL), [64]),
        (dict(type='VisionTransformer', **SMALL), [32, 48, 64]),
        (dict(type='ResNet', depth=18), [32, 48, 64]),
        (dict(type='ResNet', depth=18, in_channels=1), [32, 48, 64]),
        # Grey digits, the last map of which has to be a single place.
        (dict(type='LeNet5', num_classes=10), [32]),
        # Which keeps position biases once it is in evaluation mode.
        (dict(type='TinyViT', arch='5m', img_size=(64, 64)), [64]),
    ],
    ids=[
        'BEiTViT',
        'VisionTransformer',
        'ResNet',
        'grey',
        'LeNet5',
        'TinyViT',
    ],
)
def test_sizes_that_a_backbone_takes(enter_scope, backbone, sides):
    enter_scope('mmpretrain')
    model = dict(type='ImageClassifier', backbone=backbone)
    cfg = Config(dict(default_scope='mmpretrain', model=model))
    traits = read_traits(cfg, build_stock(cfg))
    assert [side for side in (32, 48, 64) if traits.takes(side)] == sides


def test_sizes_of_clips(enter_scope):
    """Position encodings of TimeSformer are for one size, and one length."""
    enter_scope('mmaction')
    backbone = dict(
        type='TimeSformer',
        num_frames=4,
        img_size=32,
        patch_size=16,
        embed_dims=64,
        num_heads=2,
        num_transformer_layers=1,
    )
    model = dict(type='Recognizer3D', backbone=backbone)
    cfg = Config(dict(default_scope='mmaction', model=model))
    traits = read_traits(cfg, build_stock(cfg))
    assert [side for side in (32, 48) if traits.takes(side)] == [32]
    assert [n for n in (2, 4, 8) if traits.takes(32, n)] == [4]


@pytest.mark.parametrize('name', ['C2D', 'ResNet3dSlowOnly', 'ResNetTSM'])
def test_lengths_of_clips(enter_scope, name):
    """Any will do, but for 2D layers that see frames as images."""
    enter_scope('mmaction')
    backbone = dict(type=name, depth=18)
    if name == 'ResNet3dSlowOnly':
        backbone.update(stage_blocks=(1, 1, 1, 1))
    model = dict(type='Recognizer3D', backbone=backbone)
    cfg = Config(dict(default_scope='mmaction', model=model))
    traits = read_traits(cfg, build_stock(cfg))
    taken = [n for n in (2, 4, 8) if traits.takes(32, n)]
    assert taken == ([] if name == 'ResNetTSM' else [2, 4, 8])


@pytest.mark.parametrize('divisor', [1, 64])
def test_divisor(detector, divisor):
    traits = read_traits(*detector(divisor))
    assert traits.divisor == divisor
    assert traits.task == 'detection' and traits.place == 'model'


def test_weights_are_left_out(detector):
    """Nothing is downloaded; other initialisations stay."""
    xavier = dict(type='Xavier', layer='Conv2d')
    pretrained = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    cfg, _ = detector()
    cfg.load_from = 'nowhere.pth'
    cfg.model.backbone.init_cfg = pretrained
    cfg.model.neck.init_cfg = [pretrained, xavier]
    # As mmdet's PVT has it, which loads them itself.
    cfg.model.bbox_head.init_cfg = dict(checkpoint='https://nowhere/pvt.pth')
    cfg.model.teacher_ckpt = 'https://nowhere/teacher.pth'
    cfg.model.more = [dict(pretrained='https://nowhere/more.pth')]
    found = without_weights(cfg)
    assert found.load_from is None
    assert found.model.backbone.init_cfg is None
    assert found.model.neck.init_cfg == [xavier]
    assert found.model.bbox_head.init_cfg is None
    assert found.model.teacher_ckpt is None
    assert found.model.more == [dict(pretrained=None)]
    assert cfg.model.backbone.init_cfg == pretrained


@pytest.mark.parametrize(
    'model, message',
    [
        (dict(type='NoSuchDetector'), "type='NoSuchDetector' is not in the"),
        (dict(type='RetinaNet', depth=3), 'got an unexpected keyword argum'),
        (dict(type='RPN', backbone=dict(type='ResNet')), 'missing . required'),
    ],
)
def test_models_that_cannot_be_built(enter_scope, model, message):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    cfg = Config(dict(default_scope='mmdet', model=model))
    with pytest.raises(ConfigError, match=message):
        build_stock(cfg)


class Wrapper(nn.Module):
    """Holds a detector as semi-supervised training does."""

    def __init__(self, student):
        super().__init__()
        self.student = student


def test_wrappers(detector):
    cfg, model = detector(norm_eval=False, frozen_stages=2)
    cfg.model = dict(type='Wrapper', detector=cfg.model)
    traits = read_traits(cfg, Wrapper(model))
    assert traits.place == 'model.detector'
    assert traits.frozen == dict(frozen_stages=-1)


def test_no_backbone():
    cfg = Config(dict(model=dict(type='Linear')))
    with pytest.raises(ConfigError, match='Linear has no model.backbone'):
        read_traits(cfg, nn.Linear(1, 1))
    cfg = Config(dict(model=dict(type='Linear', backbone=dict())))
    with pytest.raises(ConfigError, match="wraps='Linear' cannot be trained"):
        read_traits(cfg, nn.Linear(1, 1))


VIDEOS = {
    'recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_'
    'kinetics400-rgb.py': ((8, 5, 3), (224, 178, 142)),
    'recognition/trn/trn_imagenet-pretrained-r50_8xb16-1x1x8-50e_'
    'sthv1-rgb.py': ((8,), (224, 178, 142)),
    'recognition/tsm/tsm_imagenet-pretrained-mobilenetv2_8xb16-1x1x8-100e_'
    'kinetics400-rgb.py': ((8, 5, 3), (224, 178, 142)),
    'detection/slowonly/slowonly_kinetics400-pretrained-r50_8xb16-4x16x1-20e_'
    'ava21-rgb.py': ((4, 3, 2), (256, 203, 162)),
}


@pytest.mark.parametrize('name', VIDEOS)
def test_videos(enter_scope, name):
    """Weights for a certain number of segments leave no other."""
    pytest.importorskip('mmaction')
    if 'ava' in name:
        pytest.importorskip('mmdet')
        enter_scope('mmdet')
    enter_scope('mmaction')
    from mmengine.hub import get_config

    cfg = get_config(f'mmaction::{name}')
    traits = read_traits(cfg, build_stock(cfg))
    changes = {c.key: c.value for c in derive(cfg, traits)}
    frames, resolution = VIDEOS[name]
    assert changes['model.mutual.frames'] == frames
    assert changes['model.mutual.resolution'] == resolution
    assert ('trn' in name) == bool(
        changes.get('model.backbone.partial_bn') is False
    )
