import pytest
from mmengine.config import Config

from mutualnet_mm.survey.small import divided, make_small


@pytest.mark.parametrize(
    'value, expected',
    [
        (1333, 333),
        ((1333, 800), (333, 192)),
        ([(1333, 640), (1333, 800)], [(333, 160), (333, 192)]),
        (224, 64),
        (32, 32),
        (299, 74),
        # Parts, factors, and the edge that follows from the other.
        ((0.08, 1.0), (0.08, 1.0)),
        ((-1, 256), (-1, 64)),
        ((1, 0.8), (1, 0.8)),
        (None, None),
        (True, True),
        ('short', 'short'),
    ],
)
def test_divided(value, expected):
    assert divided(value, 4, 32) == expected
    assert type(divided(value, 4, 32)) is type(expected)


def test_multiples_stay_multiples():
    assert divided(640, 4, 128) == 128
    assert divided(896, 4, 128) == 256  # 224 is none


def config():
    pipeline = [
        dict(type='Mosaic', img_scale=(640, 640), pad_val=114.0),
        dict(type='RandomAffine', border=(-320, -320)),
        dict(type='RandomApply', transforms=[dict(type='Pad', size=640)]),
        dict(type='ColorJitter', brightness=32),
        dict(type='MultiScaleCrop', input_size=224, scales=(1, 0.8)),
    ]
    augment = dict(type='BatchSyncRandomResize', random_size_range=(480, 800))
    return Config(
        dict(
            model=dict(
                type='YOLOX',
                size=640,
                data_preprocessor=dict(
                    pad_size_divisor=32, batch_augments=[augment]
                ),
            ),
            train_dataloader=dict(
                dataset=dict(dataset=dict(pipeline=[]), pipeline=pipeline)
            ),
            test_dataloader=dict(dataset=dict(pipeline=pipeline[:1])),
            val_dataloader=None,
        )
    )


def test_pipelines_and_batch_augmentations():
    cfg = config()
    make_small(cfg, 4)
    assert cfg.train_dataloader.dataset.pipeline == [
        dict(type='Mosaic', img_scale=(160, 160), pad_val=114.0),
        dict(type='RandomAffine', border=(-80, -80)),
        dict(type='RandomApply', transforms=[dict(type='Pad', size=160)]),
        dict(type='ColorJitter', brightness=32),
        dict(type='MultiScaleCrop', input_size=64, scales=(1, 0.8)),
    ]
    assert cfg.test_dataloader.dataset.pipeline[0].img_scale == (160, 160)
    augment = cfg.model.data_preprocessor.batch_augments[0]
    assert augment.random_size_range == (128, 192)
    assert cfg.model.size == 640  # the network's own


def test_nothing_changes_at_full_size():
    cfg = config()
    make_small(cfg, 1)
    assert cfg.to_dict() == config().to_dict()
