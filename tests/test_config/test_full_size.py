import pytest
from mmengine.config import Config

from mutualnet_mm.config.full_size import clip_length, full_resolution


def config(**pipelines):
    """Config of the pipelines of some stages."""
    return Config(
        {
            f'{stage}_dataloader': dict(dataset=dict(pipeline=steps))
            for stage, steps in pipelines.items()
        }
    )


def step(kind, **settings):
    return dict(type=kind, **settings)


LOAD = step('LoadImageFromFile')
RESIZE = step('Resize', scale=(1333, 800), keep_ratio=True)


@pytest.mark.parametrize(
    'pipelines, full',
    [
        (dict(test=[LOAD, RESIZE]), 800),
        # A fixed canvas.
        (dict(test=[step('Resize', scale=(640, 640)), step('Pad')]), 640),
        (dict(test=[step('mmdet.Resize', scale=[512, 512])]), 512),
        # The crop, not what comes before it.
        (
            dict(
                test=[
                    step('ResizeEdge', scale=256, edge='short'),
                    step('CenterCrop', crop_size=224),
                ]
            ),
            224,
        ),
        (dict(test=[step('torchvision/Resize', size=176)]), 176),
        (dict(test=[step('FixShapeResize', width=640, height=512)]), 512),
        # Testing counts, whatever is trained on.
        (
            dict(
                train=[step('RandomResizedCrop', scale=160)],
                test=[step('CenterCrop', crop_size=224)],
            ),
            224,
        ),
        # Data of one size: what the training makes of it.
        (
            dict(
                train=[step('RandomCrop', crop_size=32, padding=4)],
                test=[step('PackInputs')],
            ),
            32,
        ),
        # Of many sizes the largest one.
        (
            dict(
                train=[
                    step(
                        'RandomChoiceResize',
                        scales=[(1333, 640), (1333, 768), (1333, 672)],
                    )
                ]
            ),
            768,
        ),
        (
            dict(train=[step('RandomResize', scale=[(500, 300), (500, 400)])]),
            400,
        ),
        # A relative crop names no size.
        (
            dict(
                test=[
                    RESIZE,
                    step('RandomCrop', crop_size=(0.5, 0.9)),
                    step('RandomErasing', min_area_ratio=0.1),
                ]
            ),
            800,
        ),
        # What a wrapper runs; what it only may run.
        (dict(test=[step('MultiBranch', transforms=[RESIZE])]), 800),
        (dict(test=[step('RandomApply', transforms=[RESIZE])]), None),
        (dict(test=[LOAD]), None),
        (dict(), None),
    ],
)
def test_full_resolution_of_images(pipelines, full):
    found = full_resolution(config(**pipelines), of_clips=False)
    assert (found and found.value) == full


def test_the_first_of_wrapped_data_sets():
    inside = dict(type='CocoDataset', pipeline=[LOAD])
    outside = dict(
        type='MultiImageMixDataset',
        dataset=inside,
        pipeline=[step('Mosaic', img_scale=(640, 640)), RESIZE],
    )
    cfg = Config(dict(train_dataloader=dict(dataset=outside)))
    assert full_resolution(cfg, of_clips=False).value == 800
    assert str(full_resolution(cfg, False)) == 'Resize of the train pipeline'


def test_several_loaders_are_left_alone():
    cfg = Config(dict(train_dataloader=[dict(), dict()]))
    assert full_resolution(cfg, of_clips=False) is None
    assert clip_length(cfg, of_segments=False) is None


CLIPS = dict(
    train=[
        step('SampleFrames', clip_len=32, frame_interval=2, num_clips=1),
        step('Resize', scale=(-1, 256)),
        step('RandomResizedCrop'),
        step('Resize', scale=(224, 224), keep_ratio=False),
    ],
    test=[
        step('SampleFrames', clip_len=32, num_clips=10, test_mode=True),
        step('Resize', scale=(-1, 256)),
        step('ThreeCrop', crop_size=256),
    ],
)


def test_clips_are_as_they_are_trained():
    cfg = config(**CLIPS)
    assert full_resolution(cfg, of_clips=True).value == 224
    assert clip_length(cfg, of_segments=False).value == 32


def test_segments():
    steps = [step('SampleFrames', clip_len=1, num_clips=8)]
    cfg = config(train=steps, test=CLIPS['test'])
    assert clip_length(cfg, of_segments=True).value == 8
    assert clip_length(cfg, of_segments=False).value == 1
    assert str(clip_length(cfg, True)) == 'SampleFrames of the train pipeline'


def test_poses():
    steps = [
        step('UniformSampleFrames', clip_len=48),
        step('Resize', scale=(-1, 64)),
        step('RandomResizedCrop', area_range=(0.56, 1.0)),
        step('Resize', scale=(56, 56), keep_ratio=False),
    ]
    cfg = config(train=steps)
    assert full_resolution(cfg, of_clips=True).value == 56
    assert clip_length(cfg, of_segments=False).value == 48
