"""What is refused of a video config before any work starts."""

import pytest

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import load_config

RECOGNIZER = (
    'model = dict(type="M", wraps={!r}, backbone={}, '
    'mutual=dict(resolution=(32, 16), frames=(4, 2)))\n'
    '{}_dataloader = dict(dataset=dict(pipeline=[{}]))\n'
)
SLOW = dict(type='mutualnet_mm.SlimmableResNet3dSlowOnly')
SLOWFAST = dict(type='mutualnet_mm.Slimmable', wraps='ResNet3dSlowFast')
SHORT_EDGE = 'dict(type="Resize", scale=(-1, 40))'
CROP = f'{SHORT_EDGE}, dict(type="RandomCrop", size={{}})'
RESIZED_CROP = (
    f'{SHORT_EDGE}, dict(type="RandomResizedCrop"), '
    'dict(type="Resize", scale={}, keep_ratio=False), dict(type="Flip")'
)


@pytest.fixture
def write(tmp_path):
    """Write a config file and return its path."""

    def make(text):
        file = tmp_path / 'small_config.py'
        file.write_text(f'model = dict(type="M")\n{text}')
        return str(file)

    return make


def recognizer(steps, split='train', backbone=SLOW):
    return RECOGNIZER.format('mmaction.Recognizer3D', backbone, split, steps)


@pytest.mark.parametrize(
    'steps, right, wrong, message',
    [
        (CROP, 32, 28, '1 is a RandomCrop of 28'),
        (RESIZED_CROP, (32, 32), (28, 28), '2 is a Resize of (28, 28)'),
        (RESIZED_CROP, (32, 28), (24, 28), '2 is a Resize of (24, 28)'),
        (RESIZED_CROP, (40, 32), (40, 28), '2 is a Resize of (40, 28)'),
    ],
)
def test_the_size_of_training_clips(write, steps, right, wrong, message):
    load_config(write(recognizer(steps.format(right))))
    with pytest.raises(ConfigError) as error:
        load_config(write(recognizer(steps.format(wrong))))
    side = min(wrong) if isinstance(wrong, tuple) else wrong
    assert str(error.value) == (
        f'train_dataloader.dataset.pipeline.{message}, but the full '
        'resolution, mutual.resolution[0], is 32: they must agree, set '
        f'mutual.resolution[0]={side} (--resolution {side},...) or the size '
        'of the step'
    )


def test_clips_whose_size_training_will_see(write):
    """The short edge of a video, whatever the other one."""
    load_config(write(recognizer(SHORT_EDGE.replace('40', '32'))))
    with pytest.raises(ConfigError, match=r'Resize of \(-1, 40\)'):
        load_config(write(recognizer(SHORT_EDGE)))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_larger_test_views(write, split):
    steps = f'{SHORT_EDGE}, dict(type="ThreeCrop", crop_size=40)'
    load_config(write(recognizer(steps, split)))
    with pytest.raises(ConfigError, match='ThreeCrop of 40,'):
        load_config(write(recognizer(steps, 'train')))


@pytest.mark.parametrize('split', ['val', 'test'])
def test_smaller_test_views(write, split):
    steps = f'{SHORT_EDGE}, dict(type="CenterCrop", crop_size=28)'
    with pytest.raises(ConfigError, match='CenterCrop of 28,'):
        load_config(write(recognizer(steps, split)))


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
@pytest.mark.parametrize(
    'backbone, length, times',
    [
        (SLOW, 4, ''),
        (SLOWFAST, 32, ' x resample_rate=8'),
        (dict(SLOWFAST, resample_rate=2), 8, ' x resample_rate=2'),
    ],
)
def test_the_length_of_clips(write, split, backbone, length, times):
    inside = (
        'dict(type="mutualnet_mm.ReadClip", transforms=[dict(type="X"), '
        'dict(type="mmaction.SampleFrames", clip_len={})])'
    )
    load_config(write(recognizer(inside.format(length), split, backbone)))
    path = write(recognizer(inside.format(5), split, backbone))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    step = f'{split}_dataloader.dataset.pipeline.0.transforms.1'
    assert str(error.value) == (
        f'{step} is a SampleFrames of clip_len=5, but the full network takes '
        f'mutual.frames[0]=4{times} frames: set clip_len={length}'
    )
    load_config(path, {f'{step}.clip_len': length})
    other = 'test' if split == 'train' else 'train'
    load_config(path, stages=(other,))


SEGMENTS = (
    'dict(type="mutualnet_mm.ReadClip", transforms=[dict(type="X"), '
    'dict(type="SampleFrames", clip_len={}, num_clips={})]), '
    'dict(type="FormatShape", input_format="NCHW")'
)


@pytest.mark.parametrize(
    'length, clips, wrong', [(1, 4, 3), (2, 2, 4), (4, 1, 2)]
)
def test_the_number_of_segments(write, length, clips, wrong):
    """In training as many as the full network has, of one or more clips."""
    load_config(write(recognizer(SEGMENTS.format(length, clips))))
    path = write(recognizer(SEGMENTS.format(length, wrong)))
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert str(error.value) == (
        'train_dataloader.dataset.pipeline.0.transforms.1 is a SampleFrames '
        f'of {length * wrong} segments, but the full network takes '
        'mutual.frames[0]=4: set clip_len=1, num_clips=4, or another '
        'mutual.frames[0]'
    )


@pytest.mark.parametrize('split', ['val', 'test'])
def test_other_numbers_of_segments_in_testing(write, split):
    """As stock TSN has them."""
    load_config(write(recognizer(SEGMENTS.format(1, 25), split)))


def test_segments_of_flow(write):
    """Of which one is several frames."""
    steps = SEGMENTS.format(5, 4)
    text = recognizer(steps).replace(
        'dict(pipeline=', 'dict(modality="Flow", pipeline='
    )
    load_config(write(text))
    with pytest.raises(ConfigError, match='of 20 segments'):
        load_config(write(recognizer(steps)))


def test_lengths_that_are_not_compared(write):
    """Those of a transform that counts otherwise."""
    for steps in (
        'dict(type="MMUniformSampleFrames", clip_len=dict(RGB=8, Pose=32))',
        'dict(type="SampleFrames")',
    ):
        load_config(write(recognizer(steps)))


def test_several_clips_of_a_video(write):
    steps = 'dict(type="SampleFrames", clip_len=4, num_clips=2)'
    load_config(write(recognizer(steps, 'test')))
    with pytest.raises(
        ConfigError, match='0 is a SampleFrames of num_clips=2'
    ):
        load_config(write(recognizer(steps, 'train')))


def test_sizes_in_a_wrong_order_are_left_to_the_model(write):
    path = write(recognizer('dict(type="SampleFrames", clip_len=4)'))
    load_config(path, {'model.mutual.frames': (2, 3, 4)})
    with pytest.raises(ConfigError, match='clip_len=4, but'):
        load_config(path, {'model.mutual.frames': (3, 2)})


@pytest.mark.parametrize('split', ['train', 'test'])
def test_video_lists_and_folders(write, tmp_path, split):
    """The list is found without the folder, both from ``data_root``."""
    (tmp_path / 'clips').mkdir()
    (tmp_path / 'list.txt').write_text('')

    def load(file, folder, root=None):
        dataset = dict(type='VideoDataset', ann_file=str(file))
        dataset['data_prefix'] = dict(video=folder and str(folder))
        if root is not None:
            dataset['data_root'] = str(root)
        loader = dict(dataset=dict(type='Repeat', dataset=dataset))
        load_config(write(f'{split}_dataloader = {loader}'))

    load('list.txt', 'clips', tmp_path)
    load(tmp_path / 'list.txt', tmp_path / 'clips')
    load(tmp_path / 'list.txt', tmp_path / 'clips', 'elsewhere')
    load('list.txt', '', tmp_path)
    load('list.txt', None, tmp_path)
    load(tmp_path / 'list.txt', 's3://bucket/clips')
    place = f'{split}_dataloader.dataset.dataset'
    with pytest.raises(ConfigError) as error:
        load('gone.txt', 'clips', tmp_path)
    assert str(error.value) == (
        f'annotation file {str(tmp_path / "gone.txt")!r} does not exist: set '
        f'{place}.data_root or {place}.ann_file'
    )
    for folder in ('gone', 'list.txt'):
        with pytest.raises(ConfigError) as error:
            load('list.txt', folder, tmp_path)
        assert str(error.value) == (
            f'video folder {str(tmp_path / folder)!r} does not exist: set '
            f'{place}.data_root or {place}.data_prefix.video'
        )
