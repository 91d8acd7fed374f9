"""What is read from a config is what its pipeline delivers."""

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import Compose

from mutualnet_mm import ConfigError
from mutualnet_mm.config import TestViews, check_resolution, find_views
from mutualnet_mm.config.full_size import full_resolution
from mutualnet_mm.config.views import frame_stride


def sample(kind='SampleFrames', **settings):
    return dict(dict(type=kind, clip_len=4, test_mode=True), **settings)


def crop(kind, size):
    return dict(type=kind, crop_size=size)


def resize(width, height, keep_ratio=False):
    return dict(type='Resize', scale=(width, height), keep_ratio=keep_ratio)


SHORT_EDGE = dict(type='Resize', scale=(-1, 40))
CASES = {
    'one': ([sample()], [SHORT_EDGE, crop('CenterCrop', 32)], 1),
    'ten': ([sample(num_clips=10)], [crop('CenterCrop', (32, 24))], 10),
    '30': ([sample(num_clips=10)], [SHORT_EDGE, crop('ThreeCrop', 40)], 30),
    'crops': ([sample(num_clips=2)], [crop('TenCrop', 32)], 20),
    'twice': (
        [sample(num_clips=3, twice_sample=True)],
        [resize(36, 36)],
        6,
    ),
    'not twice': (
        [sample(num_clips=3, twice_sample=True, test_mode=False)],
        [dict(type='RandomCrop', size=30)],
        3,
    ),
    'uniform': (
        [sample('UniformSample', num_clips=2)],
        [crop('CenterCrop', 32), resize(20, 28)],
        2,
    ),
    'dense': (
        [sample('DenseSampleFrames', num_clips=2, num_sample_positions=3)],
        [resize(64, 28), crop('ThreeCrop', 28)],
        18,
    ),
    'dense, by default': (
        [sample('DenseSampleFrames')],
        [resize(64, 28), crop('ThreeCrop', (28, 28))],
        30,
    ),
}


def video_config(pipeline, frames=(8, 4), **dataset):
    dataset = dict(type='VideoDataset', pipeline=pipeline, **dataset)
    return Config(
        dict(
            model=dict(mutual=dict(frames=frames)),
            test_dataloader=dict(dataset=dataset),
        )
    )


@pytest.mark.parametrize('wrapped', [False, True], ids=['flat', 'wrapped'])
@pytest.mark.parametrize('samples, sizes, number', CASES.values(), ids=CASES)
def test_views_are_those_of_the_stock_pipeline(
    enter_scope, samples, sizes, number, wrapped
):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    read = [dict(type='ArrayDecode')]
    pipeline = Compose(
        [*samples, *read, *sizes]
        + [
            dict(type='FormatShape', input_format='NCTHW'),
            dict(type='PackActionInputs'),
        ]
    )
    video = np.zeros((90, 48, 64, 3), np.uint8)
    results = dict(array=video, total_frames=90, start_index=0, label=0)
    inputs = pipeline(dict(results, modality='RGB'))['inputs']
    assert inputs.shape[:3] == (number, 3, 4)

    steps = [*samples, *read]
    if wrapped:
        steps = [dict(type='mutualnet_mm.ReadClip', transforms=steps)]
    found = find_views(video_config([*steps, *sizes]))
    assert found == TestViews(number, tuple(inputs.shape[-2:]))


@pytest.mark.parametrize(
    'sizes',
    [
        [],
        [crop('CenterCrop', 32), dict(type='RandomResizedCrop')],
    ],
    ids=['none', 'cropped at random'],
)
def test_sizes_that_depend_on_the_video(sizes):
    found = find_views(video_config([sample(num_clips=5), *sizes]))
    assert found == TestViews(5, None)


SEGMENTS = {
    'segments': ([sample(clip_len=1, num_clips=3)], [resize(32, 28)], 1),
    'ten crops': (
        [sample(clip_len=1, num_clips=25)],
        [SHORT_EDGE, crop('TenCrop', 32)],
        10,
    ),
    'twice': (
        [sample(clip_len=1, num_clips=4, twice_sample=True)],
        [SHORT_EDGE, crop('ThreeCrop', 40)],
        6,
    ),
    'dense': (
        [
            sample(
                'DenseSampleFrames',
                clip_len=1,
                num_clips=4,
                num_sample_positions=3,
            )
        ],
        [crop('CenterCrop', 32)],
        3,
    ),
    'uniform': (
        [sample('UniformSample', clip_len=5, num_clips=1)],
        [crop('CenterCrop', 32)],
        1,
    ),
    'uniform, several clips': (
        [sample('UniformSample', clip_len=5, num_clips=3)],
        [crop('CenterCrop', 32)],
        dict(RGB=3, Flow=1),
    ),
    'several frames of each': (
        [sample(clip_len=2, num_clips=3)],
        [crop('CenterCrop', 32)],
        1,
    ),
}


@pytest.mark.parametrize('modality', ['RGB', 'Flow'])
@pytest.mark.parametrize(
    'samples, sizes, number', SEGMENTS.values(), ids=SEGMENTS
)
def test_segments_are_those_of_the_stock_pipeline(
    enter_scope, samples, sizes, number, modality
):
    """2D networks get the frames of all views in one axis."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    shape = dict(type='FormatShape', input_format='NCHW')

    def frames(results):  # as RawFrameDecode stacks flow
        picked = results['array'][results['frame_inds'].reshape(-1)]
        return dict(results, imgs=list(picked), img_shape=picked.shape[1:3])

    pipeline = Compose([*samples, frames, *sizes, shape])
    channels = 2 if modality == 'Flow' else 3
    results = pipeline(
        dict(
            array=np.zeros((90, 48, 64, channels), np.uint8),
            total_frames=90,
            start_index=0,
            modality=modality,
        )
    )
    inputs = results['imgs']
    cfg = video_config([*samples, *sizes, shape], modality=modality)
    found = find_views(cfg)
    if isinstance(number, dict):
        number = number[modality]
    assert found.number == number
    segments, height, width = found.shape
    assert inputs.shape[0] == number * segments
    assert inputs.shape[2:] == (height, width)


@pytest.mark.parametrize('scaling, size', [(1, 56), (0.25, 14), (0.3, 17)])
def test_maps_of_poses(enter_scope, scaling, size):
    """They may be smaller than what the poses were resized to."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    steps = [
        sample('UniformSampleFrames'),
        dict(type='PoseDecode'),
        resize(56, 56),
        dict(type='GeneratePoseTarget', scaling=scaling),
        dict(type='FormatShape', input_format='NCTHW_Heatmap'),
        dict(type='PackActionInputs'),
    ]
    poses = dict(
        keypoint=np.ones((1, 9, 17, 2), np.float32),
        keypoint_score=np.ones((1, 9, 17), np.float32),
        img_shape=(64, 48),
    )
    results = dict(poses, total_frames=9, start_index=0, label=0)
    inputs = Compose(steps)(dict(results, modality='Pose'))['inputs']
    assert inputs.shape == (1, 17, 4, size, size)
    cfg = video_config(steps)
    assert find_views(cfg) == TestViews(1, (size, size))
    assert full_resolution(cfg, of_clips=True).value == size
    cfg.model.mutual.resolution = (size,)
    check_resolution(cfg)
    cfg.model.mutual.resolution = (size + 40,)
    with pytest.raises(ConfigError, match='must agree'):
        check_resolution(cfg)


@pytest.mark.parametrize(
    'scale', [(-1, 40), (40, -1), (float('inf'), 40), (50, 40), (50, 50)]
)
def test_sizes_that_keep_the_ratio(enter_scope, scale):
    """They are those of a common video, by the stock step."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    steps = [crop('CenterCrop', 32), dict(type='Resize', scale=scale)]
    frames = [np.zeros((480, 640, 3), np.uint8)]
    results = dict(imgs=frames, img_shape=(480, 640), modality='RGB')
    delivered = Compose(steps[1:])(results)['imgs'][0].shape[:2]
    found = find_views(video_config([sample(num_clips=5), *steps]))
    assert found == TestViews(5, delivered)


def test_segments_whose_size_depends_on_the_video():
    """Their number is known, and the size is that of the network."""
    shape = dict(type='FormatShape', input_format='NCHW')
    steps = [sample(clip_len=1, num_clips=5), shape]
    cfg = video_config(steps)
    assert find_views(cfg) == TestViews(1, None)
    cfg.model.mutual.resolution = (32, 24)
    assert find_views(cfg) == TestViews(1, (5, 32, 32))


def test_what_says_nothing():
    cfg = video_config([sample(num_clips=5)], frames=None)
    assert find_views(cfg) == TestViews(None, None)
    assert find_views(Config(dict())) == TestViews(None, None)
    cfg.test_dataloader = None
    cfg.model.mutual.frames = (8, 4)
    assert find_views(cfg) == TestViews(1, None)


def test_data_sets_inside_of_others():
    cfg = video_config([sample(num_clips=5)])
    inside = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dict(dataset=inside)]
    )
    assert find_views(cfg).number == 5


@pytest.mark.parametrize(
    'backbone, stride',
    [
        (dict(type='mutualnet_mm.SlimmableResNet3dSlowFast'), 8),
        (dict(type='X', wraps='ResNet3dSlowFast', resample_rate=4), 4),
        (dict(type='mutualnet_mm.SlimmableResNet3dSlowOnly'), 1),
        (dict(type='mutualnet_mm.Slimmable', wraps='X3D'), 1),
    ],
)
def test_frames_of_a_clip_for_one_of_a_subnet(backbone, stride):
    assert frame_stride(Config(dict(model=dict(backbone=backbone)))) == stride
