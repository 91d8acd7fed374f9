import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config import augment_tests

RESIZE = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
PACK = dict(type='PackDetInputs', meta_keys=('img_id', 'flip', 'ori_shape'))


def make_config(*steps, scope='mmdet', **settings):
    return Config(
        dict(
            default_scope=scope,
            model=dict(type='Detector', mutual=dict(resolution=(800, 400))),
            test_dataloader=dict(dataset=dict(pipeline=[*steps, PACK])),
            **settings,
        )
    )


def augmented(*choices):
    return [
        dict(type='LoadImageFromFile'),
        dict(type='TestTimeAug', transforms=[*choices, [PACK]]),
    ]


def test_mirror_images():
    cfg = make_config(RESIZE)
    augment_tests(cfg)
    resize, views = cfg.test_dataloader.dataset.pipeline
    assert resize == RESIZE and views.type == 'TestTimeAug'
    flips, packing = views.transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    keys = ('img_id', 'flip', 'ori_shape', 'flip_direction')
    assert packing[0].meta_keys == keys
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.model.module.mutual.resolution == (800, 400)


def test_every_size_is_made_of_the_mirror_image():
    """MultiResolution packs; what it packs by tells of the mirroring, too."""
    sizes = dict(type='MultiResolution', resize=RESIZE, transforms=[PACK])
    cfg = make_config()
    cfg.test_dataloader.dataset.pipeline = [dict(type='Load'), sizes]
    augment_tests(cfg)
    (step,) = cfg.test_dataloader.dataset.pipeline[1].transforms[1]
    assert step.type == 'MultiResolution' and step.resize == RESIZE
    assert 'flip_direction' in step.transforms[0].meta_keys


def test_data_sets_in_wrappers():
    cfg = make_config()
    inner = dict(type='CocoDataset', pipeline=[RESIZE, PACK])
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[inner, dict(inner)]
    )
    augment_tests(cfg)
    wrapper = cfg.test_dataloader.dataset
    assert 'pipeline' not in wrapper
    for dataset in wrapper.datasets:
        assert dataset.pipeline[-1].type == 'TestTimeAug'


@pytest.mark.parametrize('others', [[], [(666, 400), (2000, 1200)]])
def test_pipelines_of_the_config(others):
    """Used as they are, with the full resolution among their sizes."""
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    sizes = [dict(RESIZE, scale=scale) for scale in others]
    steps = augmented([*sizes, RESIZE], flips)
    cfg = make_config(
        dict(RESIZE, scale=(1333, 400)),
        tta_pipeline=steps,
        tta_model=dict(type='Own'),
    )
    augment_tests(cfg)
    assert cfg.test_dataloader.dataset.pipeline == steps
    assert cfg.model.type == 'Own'


@pytest.mark.parametrize(
    'steps, settings, message',
    [
        (
            [],
            dict(scope='mmaction'),
            '--tta: the config does not say how predictions',
        ),
        (
            [RESIZE, dict(type='Pad', size_divisor=32)],
            {},
            'mirrored after Pad cannot be brought back, set tta_model and',
        ),
        (
            [dict(type='RandomCenterCropPad', test_mode=True)],
            {},
            'mirrored after RandomCenterCropPad cannot be brought back',
        ),
        (
            [RESIZE],
            dict(tta_pipeline=[RESIZE, PACK]),
            'tta_pipeline has no TestTimeAug',
        ),
        (
            [RESIZE],
            dict(
                tta_pipeline=augmented(
                    [
                        dict(RESIZE, scale=(666, 400)),
                        dict(RESIZE, scale=(999, 600)),
                    ]
                )
            ),
            r'--tta: tta_pipeline\.1 is a Resize of \(666, 400\), but the '
            r'full resolution, mutual\.resolution\[0\], is 800',
        ),
    ],
)
def test_what_cannot_be_augmented(steps, settings, message):
    with pytest.raises(ConfigError, match=message):
        augment_tests(make_config(*steps, **settings))
