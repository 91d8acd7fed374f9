"""Configs of exported networks, compared with stock ones and by hand."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import MODELS
from torch.nn import Module

from mutualnet_mm.export.stock_config import (
    inferencer_config,
    registered_name,
    static_config,
    stock_config,
)
from mutualnet_mm.models import MobileNetV1, WideResNet

CONFIGS = Path(__file__).parents[2] / 'configs'
INIT, DECODE = dict(type='DecordInit'), dict(type='DecordDecode')
SAMPLE = dict(type='SampleFrames', clip_len=4, num_clips=10, test_mode=True)
CROP = dict(type='ThreeCrop', crop_size=(32, 32))
PACK = dict(type='PackActionInputs')


def network(model, backbone):
    """All that is read of a built network."""
    return SimpleNamespace(
        stock_class=model, backbone=SimpleNamespace(stock_class=backbone)
    )


@pytest.fixture
def slow():
    """Classes of a Slow recognizer."""
    models = pytest.importorskip('mmaction.models')
    return network(models.Recognizer3D, models.ResNet3dSlowOnly)


def read_clip(*steps):
    return dict(type='mutualnet_mm.ReadClip', transforms=[*steps])


def dataset(pipeline):
    return dict(dataset=dict(type='VideoDataset', pipeline=pipeline))


@pytest.fixture
def video():
    """A config with something of ours wherever there can be."""
    read = read_clip(INIT, SAMPLE, DECODE)
    return Config(
        dict(
            default_scope='mmaction',
            custom_imports=dict(
                imports=['mutualnet_mm', 'my_data'],
                allow_failed_imports=True,
            ),
            model=dict(
                type='mutualnet_mm.MutualLearning',
                wraps='mmaction.Recognizer3D',
                mutual=dict(width_range=(0.5, 1.0), resolution=(32, 24)),
                backbone=dict(
                    type='mutualnet_mm.SlimmableResNet3dSlowOnly',
                    max_width=1.0,
                    rounding='paper',
                    depth=50,
                    pretrained='https://a.b/c.pth',
                    slow_pathway=dict(pretrained=None, depth=18),
                    init_cfg=[
                        dict(type='Kaiming', layer=['Conv3d']),
                        dict(type='Pretrained', checkpoint='a.pth'),
                    ],
                ),
                cls_head=dict(
                    type='I3DHead',
                    init_cfg=dict(type='Pretrained', checkpoint='b.pth'),
                ),
            ),
            data_preprocessor=dict(type='ActionDataPreprocessor'),
            load_from='c.pth',
            read=read,
            test_pipeline=[read, CROP, PACK],
            train_dataloader=dict(
                dataset=dict(
                    type='RepeatDataset',
                    dataset=dict(
                        type='VideoDataset',
                        pipeline=(
                            dict(type='MyWrapper', transforms=[read]),
                            PACK,
                        ),
                    ),
                )
            ),
            test_dataloader=dataset([read, CROP, PACK]),
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop', fp16=True),
            test_cfg=dict(
                type='mutualnet_mm.engine.loops.SubnetTestLoop',
                subnets=['1.0x-32-4'],
                group_size=3,
            ),
            custom_hooks=[
                dict(type='EMAHook'),
                dict(
                    type='mutualnet_mm.BNCalibrationHook',
                    dataloader=dataset([read]),
                ),
            ],
            default_hooks=dict(
                calibration=dict(type='mutualnet_mm.BNCalibrationHook'),
                timer=dict(type='IterTimerHook'),
            ),
        )
    )


def cleaned():
    """What stays of it but for the model, written down by hand."""
    read = [INIT, SAMPLE, DECODE]
    return dict(
        default_scope='mmaction',
        custom_imports=dict(imports=['my_data'], allow_failed_imports=True),
        data_preprocessor=dict(type='ActionDataPreprocessor'),
        test_pipeline=[*read, CROP, PACK],
        train_dataloader=dict(
            dataset=dict(
                type='RepeatDataset',
                dataset=dict(
                    type='VideoDataset',
                    pipeline=(dict(type='MyWrapper', transforms=read), PACK),
                ),
            )
        ),
        test_dataloader=dataset([*read, CROP, PACK]),
        val_cfg=dict(type='ValLoop', fp16=True),
        test_cfg=dict(type='TestLoop'),
        custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(timer=dict(type='IterTimerHook')),
    )


BACKBONE = dict(
    depth=50,
    slow_pathway=dict(pretrained=None, depth=18),
    init_cfg=[dict(type='Kaiming', layer=['Conv3d'])],
)
REST = dict(
    cls_head=dict(type='I3DHead'),
    data_preprocessor=dict(type='ActionDataPreprocessor'),
)


def test_full_network(video, slow):
    before = video.to_dict()
    found = stock_config(video, slow).to_dict()
    assert video.to_dict() == before
    model = dict(
        type='Recognizer3D',
        backbone=dict(BACKBONE, type='ResNet3dSlowOnly'),
        **REST,
    )
    assert found == dict(cleaned(), model=model)


def test_static_form(video):
    before = video.to_dict()
    found = static_config(video, '0.5x-24-2', fuse_bn=True)
    assert video.to_dict() == before
    model = dict(
        type='mutualnet_mm.StaticSubnet',
        wraps='mmaction.Recognizer3D',
        subnet='0.5x-24-2',
        fuse_bn=True,
        verified=True,
        mutual=before['model']['mutual'],
        backbone=dict(
            BACKBONE,
            type='mutualnet_mm.SlimmableResNet3dSlowOnly',
            max_width=1.0,
            rounding='paper',
        ),
        **REST,
    )
    imports = dict(
        imports=['my_data', 'mutualnet_mm'], allow_failed_imports=False
    )
    expected = dict(cleaned(), model=model, custom_imports=imports)
    assert found.to_dict() == expected
    again = Config.fromstring(
        found.pretty_text.replace('my_data', 'json'), '.py'
    )
    again.custom_imports.imports[0] = 'my_data'
    assert again.to_dict() == expected  # as it is written
    video.pop('custom_imports')  # of who imports this package otherwise
    found = static_config(video, '0.5x-24-2')
    assert found.custom_imports.imports == ['mutualnet_mm']
    assert found.model.fuse_bn is False


def test_inferencer_samples_one_clip(video, slow):
    """Only where mmaction2's does: it changes steps called so at the top."""
    found = inferencer_config(video, slow, '0.5x-24-2')
    expected = static_config(video, '0.5x-24-2').to_dict()
    steps = expected['test_dataloader']['dataset']['pipeline']
    assert steps[1]['num_clips'] == 10
    steps[1] = dict(steps[1], num_clips=1)
    assert found.to_dict() == expected
    assert found.test_pipeline[1].num_clips == 10

    models = pytest.importorskip('mmaction.models')
    other = network(models.Recognizer2D, slow.backbone.stock_class)
    found = inferencer_config(video, other, '0.5x-24-2')
    assert found.test_dataloader.dataset.pipeline[1].num_clips == 10


def test_unknown_things_of_ours_stay(video, slow):
    video.visualizer = dict(type='mutualnet_mm.Painter')
    found = stock_config(video, slow)
    assert found.visualizer == video.visualizer
    assert found.custom_imports.imports == ['my_data', 'mutualnet_mm']
    video.visualizer = dict(type='mutualnet.Painter')
    assert stock_config(video, slow).custom_imports.imports == ['my_data']


def test_sizes_of_images():
    """In place of all sizes, what makes the full one."""
    pytest.importorskip('mmdet')
    detectors = pytest.importorskip('mmdet.models.detectors')
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    classes = network(detectors.MaskRCNN, backbones.VGG)
    name = 'mutual-mask-rcnn_vgg16_fpn_8xb2-2x_coco-multires.py'
    cfg = Config.fromfile(CONFIGS / 'detection' / name)
    plain = Config.fromfile(CONFIGS / 'mutual_mask_rcnn_vgg16.py')
    found = stock_config(cfg, classes)
    assert found.model.backbone == dict(
        type='mmpretrain.VGG',
        depth=16,
        norm_cfg=dict(type='BN'),
        out_indices=(1, 2, 3, 4),
    )
    load, annotate, resize, flip, pack = plain.train_pipeline
    steps = [load, annotate, flip, resize, pack]
    assert found.train_dataloader.dataset.pipeline == steps
    assert found.train_pipeline == steps
    assert found.test_dataloader == plain.test_dataloader


def without_scopes(value):
    """Leave out what inheriting from another project's config puts in."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_scopes, value))
    if not isinstance(value, dict):
        return value
    return {k: without_scopes(v) for k, v in value.items() if k != '_scope_'}


def test_against_a_stock_config():
    """Batch norms that are not frozen are all that is left in the model."""
    models = pytest.importorskip('mmdet.models')
    name = 'detection/mutual-mask-rcnn_r50_fpn_8xb2-2x_coco.py'
    cfg = Config.fromfile(CONFIGS / name)
    stock = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py')
    found = stock_config(cfg, network(models.MaskRCNN, models.ResNet))
    found, stock = map(without_scopes, (found.to_dict(), stock.to_dict()))
    del stock['model']['backbone']['init_cfg'], stock['load_from']
    stock['model']['backbone'].update(norm_eval=False, frozen_stages=-1)
    changed = [key for key in stock if found.pop(key) != stock[key]]
    assert changed == [
        *('train_pipeline', 'test_pipeline'),  # images of another size
        *('train_dataloader', 'val_dataloader', 'test_dataloader'),
    ]
    assert set(found) == {'custom_hooks', 'resize', 'sync_bn'}
    assert found['custom_hooks'] == [] and found['sync_bn'] == 'torch'


@pytest.mark.parametrize(
    'name, own',
    [
        ('classification/mutual-mobilenet-v1_8xb128_in1k', MobileNetV1),
        ('classification/mutual-wrn10-2_1xb64_cifar10-16px', WideResNet),
        ('classification/mutual-resnet50_8xb64_in1k', None),
        ('detection/mutual-retinanet_r50_fpn_8xb2-2x_coco', None),
        ('video/mutual-x3d-m_8xb16-16x5_k400-10view', None),
    ],
)
def test_our_configs(name, own):
    """This package is imported for its own two networks alone."""
    folder = name.partition('/')[0]
    pytest.importorskip(
        dict(classification='mmpretrain', detection='mmdet').get(
            folder, 'mmaction'
        )
    )
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    text = stock_config(cfg, network(Module, own or Module)).pretty_text
    assert ('custom_imports' in text) == (own is not None)
    expected = [f"type='mutualnet_mm.{own.__name__}'"] if own else []
    assert re.findall(r"type='mutualnet_mm\S*'", text) == expected
    assert text.count('mutualnet_mm') == 2 * len(expected)
    assert 'Pretrained' not in text and 'ReadClip' not in text


class Unregistered(Module):
    pass


def test_names_of_classes():
    mmdet = pytest.importorskip('mmdet.models')
    mmpretrain = pytest.importorskip('mmpretrain.models')
    for stock, scope, name in (
        (mmdet.ResNet, 'mmdet', 'ResNet'),
        (mmdet.ResNet, 'mmpretrain', 'mmdet.ResNet'),
        (mmpretrain.ResNet, 'mmpretrain', 'ResNet'),
        (mmpretrain.ResNet, 'mmdet', 'mmpretrain.ResNet'),
        (mmpretrain.ResNet, None, 'mmpretrain.ResNet'),
        (WideResNet, 'mmpretrain', 'mutualnet_mm.WideResNet'),
        (Unregistered, 'mmdet', f'{__name__}.Unregistered'),
    ):
        assert registered_name(stock, scope) == name
        with MODELS.switch_scope_and_registry(scope or 'mmengine') as found:
            if scope and stock is not Unregistered:
                assert found.get(name) is stock


def test_scope_of_what_is_inherited(slow):
    """A name means what the scope says that a base config left behind."""
    backbones = pytest.importorskip('mmdet.models')
    model = dict(type='a', _scope_='mmaction', backbone=dict(type='b'))
    cfg = Config(dict(default_scope='mmdet', model=model))
    classes = network(slow.stock_class, backbones.ResNet)
    found = stock_config(cfg, classes).model
    assert (found.type, found.backbone.type) == (
        'Recognizer3D',
        'mmdet.ResNet',
    )
