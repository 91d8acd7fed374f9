import pytest
from mmengine.config import Config

from mutualnet_mm.survey.selection import (
    choose,
    combination,
    size,
    stock_configs,
)


def config(depth=50, steps=('Resize',), **model):
    settings = dict(
        type='RetinaNet',
        backbone=dict(type='ResNet', depth=depth, norm_cfg=dict(type='BN')),
        neck=dict(type='FPN'),
        bbox_head=dict(type='RetinaHead', loss_cls=dict(type='FocalLoss')),
    )
    settings.update(model)
    pipeline = [dict(type=step) for step in steps]
    return Config(
        dict(
            model=settings,
            train_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )


def test_a_combination():
    found = combination(config())
    assert found.model == 'RetinaNet'
    assert found.backbone == {'ResNet', 'BN'}
    assert found.neck == {'FPN'}
    assert found.heads == {'RetinaHead', 'FocalLoss'}
    assert found.norms == {'BN'}
    assert found.steps == {'Resize'}


@pytest.mark.parametrize(
    'other',
    [
        config(type='FCOS'),
        config(backbone=dict(type='ResNet', norm_cfg=dict(type='GN'))),
        config(
            backbone=dict(
                type='ResNet',
                norm_cfg=dict(type='BN'),
                dcn=dict(type='DCNv2'),
            )
        ),
        config(neck=[dict(type='FPN'), dict(type='BFP')]),
        config(mask_head=dict(type='FCNMaskHead')),
        config(neck=dict(type='FPN', norm_cfg=dict(type='SyncBN'))),
        config(steps=('Resize', 'Mosaic')),
    ],
)
def test_what_tells_configs_apart(other):
    assert combination(other) != combination(config())


def test_what_does_not():
    base = combination(config())
    assert combination(config(depth=18)) == base
    assert combination(config(steps=('Resize', 'Resize'))) == base
    backbone = dict(
        type='mmdet.ResNet',
        norm_cfg=dict(type='BN'),
        init_cfg=dict(type='Pretrained'),
    )
    assert combination(config(backbone=backbone)) == base


def test_wrapped_detectors_and_data():
    cfg = config()
    cfg.model = dict(type='SoftTeacher', detector=cfg.model)
    inside = dict(pipeline=[dict(type='LoadImageFromFile')])
    cfg.train_dataloader.dataset = dict(
        dataset=inside,
        pipeline=[dict(type='RandomApply', transforms=[dict(type='Flip')])],
    )
    found = combination(cfg)
    assert found.model == 'SoftTeacher' and found.neck == {'FPN'}
    assert found.steps == {'LoadImageFromFile', 'RandomApply', 'Flip'}


def test_the_smallest_is_chosen():
    depths = {'a/r101.py': 101, 'a/r18_long_name.py': 18, 'a/r18.py': 18}
    found = [
        (name, combination(cfg), size(cfg, name))
        for name, depth in depths.items()
        for cfg in [config(depth)]
    ]
    other = config(type='FCOS')
    found.append(('b/fcos.py', combination(other), size(other, 'b/fcos.py')))
    for order in (found, found[::-1]):
        assert choose(order) == ['a/r18.py', 'b/fcos.py']


@pytest.mark.parametrize(
    'small, large',
    [
        (dict(arch='tiny'), dict(arch='base')),
        (dict(arch='deit-small'), dict(arch='deit-large')),
        (dict(embed_dims=96), dict(embed_dims=192)),
        (dict(widen_factor=0.375), dict(widen_factor=1.25)),
    ],
)
def test_sizes(small, large):
    configs = [
        Config(dict(model=dict(type='A', backbone=dict(type='B', **args))))
        for args in (small, large)
    ]
    assert size(configs[0], 'long_name.py') < size(configs[1], 'n.py')


def test_configs_of_a_folder(tmp_path):
    for name, text in (
        ('a/one.py', 'model = dict(type="A")'),
        ('a/two.py', 'model = dict(type="A")'),
        ('a/schedule.py', 'lr = 0.1'),
        ('a/broken.py', 'model = dict('),
        ('_base_/models/a.py', 'model = dict(type="A")'),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found, unreadable = stock_configs(tmp_path)
    assert list(found) == ['a/one.py', 'a/two.py']
    assert unreadable == ['a/broken.py']
    found, unreadable = stock_configs(tmp_path, 'two')
    assert list(found) == ['a/two.py'] and not unreadable


# Of each kind of pipeline, head and neck; the norm layers that differ.
SPREAD = [
    'atss/atss_r50_fpn_1x_coco.py',
    'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
    'detr/detr_r50_8xb2-150e_coco.py',
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
    'htc/htc_r50_fpn_1x_coco.py',
    'mask_rcnn/mask-rcnn_r50-caffe_fpn_ms-1x_coco.py',
    'nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    'ssd/ssd300_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
]


def test_stock_configs_that_differ():
    pytest.importorskip('mmdet')
    from mutualnet_mm.config.stock import config_folder

    folder = config_folder('mmdet')
    configs = {
        name: Config.fromfile(folder / name, import_custom_modules=False)
        for name in SPREAD
    }
    found = [(n, combination(c), size(c, n)) for n, c in configs.items()]
    assert choose(found) == SPREAD
    # A longer schedule of one of them is the same; the first is shorter.
    name = 'atss/atss_r101_fpn_1x_coco.py'
    cfg = Config.fromfile(folder / name)
    assert combination(cfg) == combination(configs[SPREAD[0]])
    assert choose([*found, (name, combination(cfg), size(cfg, name))]) == (
        SPREAD
    )
