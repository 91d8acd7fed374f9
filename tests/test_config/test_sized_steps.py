"""What is read from single steps, by two readers that have to agree."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS

from mutualnet_mm import ConfigError
from mutualnet_mm.config import check_clips, check_resolution
from mutualnet_mm.config.full_size import clip_length, full_resolution
from mutualnet_mm.config.pipelines import Step
from mutualnet_mm.config.sized_steps import sizings


def step(kind, **settings):
    return dict(type=kind, **settings)


def read(settings, of_clips=False):
    (found,) = sizings([Step('here', settings)], of_clips)
    return found


LIMITS, FIXED, RANDOM, UNKNOWN = 'limits', 'fixed', 'random', 'unknown'
# Of the documentation of the steps: sides, and whether they are certain.
STEPS = [
    (step('Resize', scale=(640, 480)), (640, 480), FIXED),
    (step('Resize', scale=224), (224, 224), FIXED),
    (step('Resize', scale=(1333, 800), keep_ratio=True), (1333, 800), LIMITS),
    (step('mmdet.Resize', scale=[512, 512]), (512, 512), FIXED),
    (step('Resize', scale_factor=0.5), (), UNKNOWN),
    (step('Resize', scale=(-1, 256), keep_ratio=True), (256, 256), LIMITS),
    (
        step('Resize', scale=(float('inf'), 256), keep_ratio=True),
        *((256, 256), LIMITS),
    ),
    (step('torchvision/Resize', size=224), (224, 224), LIMITS),
    (step('torchvision/Resize', size=(224, 160)), (224, 160), FIXED),
    (step('torchvision/CenterCrop', size=224), (224, 224), FIXED),
    (step('ResizeEdge', scale=256), (256, 256), LIMITS),
    (step('ResizeEdge', scale=256, edge='long'), (256, 256), LIMITS),
    (step('ResizeEdge', scale=256, edge='width'), (), UNKNOWN),
    (step('ResizeShortestEdge', scale=480, max_size=800), (480,) * 2, LIMITS),
    (step('FixShapeResize', width=640, height=480), (640, 480), FIXED),
    (step('CenterCrop', crop_size=224), (224, 224), FIXED),
    (step('RandomCrop', size=224), (224, 224), FIXED),
    (step('RandomResizedCrop', scale=(224, 192)), (224, 192), FIXED),
    (step('RandomResizedCrop', area_range=(0.1, 1)), (), UNKNOWN),
    (
        step('RandomResizedCropAndInterpolation', size=224, scale=(0.1, 1.0)),
        *((224, 224), FIXED),
    ),
    (step('RandomCrop', crop_size=(0.3, 0.7), crop_type='relative'),
     (), UNKNOWN),
    (step('RandomCrop', crop_size=(384, 600), crop_type='absolute_range'),
     (), UNKNOWN),
    (step('RandomCenterCropPad', test_mode=True), (), UNKNOWN),
    (step('RandomResize', scale=(1333, 800), ratio_range=(0.5, 2)),
     (1333, 800), RANDOM),
    (step('RandomResize', scale=[(500, 300), (500, 400)]),
     (500, 400), RANDOM),
    (step('RandomResize', scale=[[500, 300], [500, 400]]),
     (500, 400), RANDOM),
    (step('RandomChoiceResize', scales=[(9, 640), (9, 768)]), (9, 640),
     RANDOM),
    (step('RandomChoiceResize', scales=[480, 512]), (512, 512), RANDOM),
    (step('RandomRescale', scale_range=(256, 320)), (), UNKNOWN),
    (step('MultiResolution', resize=step('Resize', scale=64)),
     (64, 64), FIXED),
]  # fmt: skip


@pytest.mark.parametrize('settings, sides, how', STEPS)
def test_steps(settings, sides, how):
    found = read(settings)
    assert found.sides == sides
    assert found.step.settings is settings
    assert found.certain == (how in (LIMITS, FIXED))
    assert found.is_exact == (how == FIXED)


@pytest.mark.parametrize('shape', [(90, 160), (160, 90), (64, 64), (50, 250)])
@pytest.mark.parametrize(
    'settings, scope',
    [
        (step('Resize', scale=(120, 48), keep_ratio=True), 'mmdet'),
        (step('Resize', scale=(-1, 48)), 'mmaction'),
        (step('Resize', scale=(100, 48)), 'mmaction'),
        (step('Resize', scale=(64, 48), keep_ratio=False), 'mmaction'),
        (step('ResizeEdge', scale=48), 'mmpretrain'),
        (step('ResizeEdge', scale=48, edge='long'), 'mmpretrain'),
        (step('ResizeShortestEdge', scale=48), 'mmdet'),
        (step('ResizeShortestEdge', scale=48, max_size=80), 'mmdet'),
        (step('torchvision/Resize', size=48), 'mmpretrain'),
        (step('torchvision/Resize', size=48, max_size=80), 'mmpretrain'),
    ],
)
def test_the_shape_behind_a_step(enter_scope, shape, settings, scope):
    """As the step itself makes it of an image."""
    pytest.importorskip(scope)
    enter_scope(scope)
    if settings['type'] == 'ResizeShortestEdge':
        settings = dict(settings, keep_ratio=True)
    results = dict(img=np.zeros((*shape, 3), np.uint8), img_shape=shape)
    if scope == 'mmaction':
        results = dict(
            results, imgs=[results['img']], modality='RGB', num_clips=1
        )
    steps = [settings]
    if settings['type'].startswith('torchvision'):
        steps = [step('torchvision/ToTensor'), settings]
    for each in steps:
        results = TRANSFORMS.build(each)(results)
    image = results['imgs'][0] if scope == 'mmaction' else results['img']
    made = image.shape[-2:] if torch.is_tensor(image) else image.shape[:2]
    found = read(settings, of_clips=scope == 'mmaction').applied(shape)
    assert np.abs(np.subtract(found, made)).max() <= 1  # they round


def test_other_steps():
    kinds = ('Pad', 'RandomFlip', 'Mosaic', 'RandomErasing', 'RandomAffine')
    steps = [Step('', step(kind, img_scale=(640, 640))) for kind in kinds]
    assert sizings(steps, of_clips=False) == []


@pytest.mark.parametrize('of_clips', [True, False])
def test_who_keeps_the_ratio_by_itself(of_clips):
    assert read(step('Resize', scale=64), of_clips).keeps_ratio == of_clips
    for kind in ('RandomCrop', 'ThreeCrop'):
        assert not read(step(kind, crop_size=64), of_clips).keeps_ratio


@pytest.mark.parametrize('settings, sides, how', STEPS)
def test_a_resolution_that_is_found_is_accepted(settings, sides, how):
    """And another one is refused where the step is certain."""
    loader = dict(dataset=dict(pipeline=[settings]))
    cfg = Config(dict(model=dict(), test_dataloader=loader))
    found = full_resolution(cfg, of_clips=False)
    assert (found and found.value) == min(sides, default=None)
    if found is None:
        return
    cfg.model.mutual = dict(resolution=(found.value,))
    check_resolution(cfg)
    cfg.model.mutual.resolution = (max(sides) + 1,)
    if how in (LIMITS, FIXED):
        with pytest.raises(ConfigError, match='must agree'):
            check_resolution(cfg)
    else:
        check_resolution(cfg)


@pytest.mark.parametrize('modality, segments', [('RGB', 8), ('Flow', 4)])
def test_a_number_of_segments_that_is_found_is_accepted(modality, segments):
    steps = [
        step('SampleFrames', clip_len=2, num_clips=4),
        step('FormatShape', input_format='NCHW'),
    ]
    loader = dict(dataset=dict(modality=modality, pipeline=steps))
    cfg = Config(dict(model=dict(), train_dataloader=loader))
    assert clip_length(cfg, of_segments=True).value == segments
    cfg.model.mutual = dict(frames=(segments,))
    check_clips(cfg)
    cfg.model.mutual = dict(frames=(segments + 1,))
    with pytest.raises(ConfigError, match=f'of {segments} segments'):
        check_clips(cfg)
