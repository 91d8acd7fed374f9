import gc
import pickle
import sys
import wave

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger, logger
from mmengine.registry import TRANSFORMS
from torch.utils.data import DataLoader

from mutualnet_mm import UsageError
from mutualnet_mm.datasets import read_clip as read_clip_module

pytest.importorskip('mmaction')
NUM_FRAMES, BRIGHTER = 30, 8  # levels from one frame to the next
PACKAGES = dict(Decord='decord', OpenCV='cv2', PyAV='av')
HALF_WHOLE = 'its second half is zeros'


@pytest.fixture(autouse=True)
def scope(enter_scope):
    enter_scope('mmaction')


@pytest.fixture(params=sorted(PACKAGES))
def decoder(request):
    pytest.importorskip(PACKAGES[request.param])
    return request.param


def write_video(path, num_frames=NUM_FRAMES, code='mp4v'):
    """Write noise on a background that gets brighter by every frame."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*code), 10, (64, 48)
    )
    for i in range(num_frames):
        noise = rng.integers(0, 9, (48, 64, 3), np.uint8)
        writer.write(noise + np.uint8(i * BRIGHTER))
    writer.release()
    return path


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / 'good.mp4')


def break_video(kind, video):
    """Write a broken file beside a good one; return its name."""
    path = video.with_name('broken.mp4')
    whole = video.read_bytes()
    start, end = whole.index(b'mdat') + 4, whole.index(b'moov') - 4
    if kind == 'audio':
        with wave.open(str(path), 'wb') as sound:
            sound.setparams((1, 2, 8000, 0, 'NONE', ''))
            sound.writeframes(bytes(8000))
    elif kind == 'no frames':
        write_video(path, 0)
    elif kind != 'missing':
        noise = np.random.default_rng(1).bytes(end - start)
        half = (start + end) // 2
        path.write_bytes(
            {
                'zero bytes': b'',
                'truncated': whole[: len(whole) * 9 // 10],
                'text': b'404 not found\n' * 99,
                'audio track': whole.replace(b'vide', b'soun'),
                'noise': whole[:start] + noise + whole[end:],
                HALF_WHOLE: whole[:half] + bytes(end - half) + whole[end:],
            }[kind]
        )
    return path.name


BROKEN = (
    'missing',
    'zero bytes',
    'truncated',
    'text',
    'audio',
    'audio track',
    'no frames',
    'noise',
    HALF_WHOLE,
)


def stock_steps(decoder, clip_len=8, frame_interval=3, **settings):
    clip = dict(clip_len=clip_len, frame_interval=frame_interval, **settings)
    return [
        dict(type=f'{decoder}Init'),
        dict(type='SampleFrames', **clip),
        dict(type=f'{decoder}Decode'),
    ]


def read_clip(decoder, **settings):
    steps = stock_steps(decoder, **settings)
    return TRANSFORMS.build(
        dict(type='mutualnet_mm.ReadClip', transforms=steps)
    )


def make_dataset(folder, names, step, test_mode=False):
    from mmaction.datasets import VideoDataset

    lines = [f'{name} {label}\n' for label, name in enumerate(names)]
    (folder / 'list.txt').write_text(''.join(lines))
    return VideoDataset(
        str(folder / 'list.txt'),
        [step],
        data_prefix=dict(video=str(folder)),
        test_mode=test_mode,
        serialize_data=False,
    )


def clip_of(path):
    return dict(filename=str(path), start_index=0, modality='RGB')


def frame_numbers(results):
    """Tell from the pictures which frames were read."""
    means = np.array([np.mean(image) for image in results['imgs']])
    return np.round((means - 4) / BRIGHTER).astype(int)


@pytest.mark.parametrize('num_frames', [NUM_FRAMES, 2, 1])
@pytest.mark.parametrize('test_mode', [False, True])
def test_what_stock_steps_read(decoder, num_frames, test_mode, tmp_path):
    """Clips of 24 frames: longer than the video, too."""
    path = write_video(tmp_path / 'clip.mp4', num_frames)
    settings = dict(num_clips=2, test_mode=test_mode)
    ours, stock = (
        read_clip(decoder, **settings),
        Compose(stock_steps(decoder, **settings)),
    )
    for seed in range(3):
        np.random.seed(seed)
        found = ours(clip_of(path))
        np.random.seed(seed)
        expected = stock(clip_of(path))
        assert found['total_frames'] == num_frames
        assert (found['frame_inds'] == expected['frame_inds']).all()
        assert (np.array(found['imgs']) == np.array(expected['imgs'])).all()
        assert found.keys() == expected.keys()
        assert (frame_numbers(found) == found['frame_inds']).all()


def test_short_clips_are_looped(decoder, tmp_path):
    path = write_video(tmp_path / 'clip.mp4', 2)
    found = read_clip(decoder, test_mode=True)(clip_of(path))
    # 0, 3, 6, ... of two frames.
    assert frame_numbers(found).tolist() == [0, 1] * 4


@pytest.fixture
def read_log(tmp_path):
    """Log as a runner does; return what reads it."""
    path = tmp_path / 'run.log'
    MMLogger.get_instance('run', log_file=str(path))
    return path.read_text


@pytest.mark.parametrize('kind', BROKEN)
def test_training_goes_on(decoder, kind, video, read_log):
    """The broken file is named once, another one is read for it."""
    name = break_video(kind, video)
    # Up to frame 27, the last quarter.
    step = read_clip(decoder, clip_len=10)
    dataset = make_dataset(video.parent, [video.name, name], step)
    for _ in range(3):
        sample = dataset[1]
        assert sample['filename'] == str(video) and sample['label'] == 0
        assert (frame_numbers(sample) == sample['frame_inds']).all()
    log, path = read_log(), str(video.with_name(name))
    assert log.count(f'WARNING - clip {path!r} cannot be read (') == 1
    assert video.name not in log


def test_every_rank_names_its_files(video, monkeypatch, capfd):
    pytest.importorskip('decord')
    # What mmengine's loggers are made by, and what says who shows warnings.
    monkeypatch.setattr(logger, '_get_rank', lambda: 1)
    monkeypatch.setattr(read_clip_module, 'is_main_process', lambda: False)
    MMLogger.get_instance('another rank')
    assert read_clip('Decord')(clip_of(video.with_name('away.mp4'))) is None
    assert "away.mp4' cannot be read" in ''.join(capfd.readouterr())


@pytest.mark.parametrize('kind', BROKEN)
def test_testing_ends(decoder, kind, video):
    path = video.with_name(break_video(kind, video))
    step = read_clip(decoder, clip_len=10, test_mode=True)
    dataset = make_dataset(
        video.parent, [video.name, path.name], step, test_mode=True
    )
    assert dataset[0]['label'] == 0
    with pytest.raises(UsageError, match='take its line out') as caught:
        dataset[1]
    message = str(caught.value)
    assert message.startswith(f'clip {str(path)!r} cannot be read (')
    assert '\n' not in message and '.cc' not in message


def test_reasons(video):
    """What a user can act upon; the rest is the decoder's own words."""
    pytest.importorskip('decord')
    step = read_clip('Decord', test_mode=True)
    for kind, reason in [
        ('missing', r'\(No such file or directory\)'),
        ('zero bytes', r'\(it is empty\)'),
        ('text', 'decord finds no video in it'),
        ('audio', 'cannot find video stream'),
    ]:
        video.with_name('broken.mp4').unlink(missing_ok=True)
        path = video.with_name(break_video(kind, video))
        with pytest.raises(UsageError, match=reason):
            step(clip_of(path))


def test_frames_that_are_not_counted(video, monkeypatch):
    """As by PyAV in Matroska, where stock steps repeat the first one."""
    monkeypatch.setattr('mmcv.VideoReader.__len__', lambda reader: 0)
    step = read_clip('OpenCV', test_mode=True)
    with pytest.raises(UsageError, match='it has no frames, or does not'):
        step(clip_of(video))


def test_testing_with_steps_of_training(video):
    """Even then mmengine leaves nothing out."""
    name = break_video('text', video)
    dataset = make_dataset(
        video.parent, [name], read_clip('OpenCV'), test_mode=True
    )
    with pytest.raises(Exception, match='Test time'):
        dataset[0]


def test_nothing_can_be_read(tmp_path):
    """An end, before mmengine has tried a thousand times."""
    dataset = make_dataset(tmp_path, ['a.mp4', 'b.mp4'], read_clip('OpenCV'))
    said = '100 clips in a row could not be read, the last one: .*mp4'
    with pytest.raises(UsageError, match=said) as caught:
        dataset[0]
    assert '.mp4' in str(caught.value) and 'data_prefix' in str(caught.value)


def test_every_second_one_can_be_read(video):
    step = read_clip('OpenCV')
    broken = video.with_name(break_video('zero bytes', video))
    for _ in range(101):
        assert step(clip_of(broken)) is None
        assert step(clip_of(video)) is not None


def readers():
    """List all readers, those that only the garbage collector would find."""
    names = ('VideoReader', '_PositionedReader', 'InputContainer')
    return [x for x in gc.get_objects() if type(x).__name__ in names]


@pytest.mark.parametrize('kind', ['good', *BROKEN])
def test_readers_are_closed_at_once(decoder, kind, video):
    """In a process that is forked later, closing one may never end."""
    path = video
    if kind != 'good':
        path = video.with_name(break_video(kind, video))
    step = read_clip(decoder)
    gc.collect()  # what earlier tests left
    before = readers()
    gc.disable()
    try:
        results = step(clip_of(path))
        left = [x for x in readers() if not any(x is y for y in before)]
    finally:
        gc.enable()
    assert left == [] and (kind == 'good') == (results is not None)


def test_readers_can_be_counted(decoder, video):
    count = len(readers())
    opened = read_clip(decoder).steps[0](clip_of(video))
    assert len(readers()) == count + 1
    del opened


def load(dataset):
    """Load a data set by two processes."""
    # Readers of decord that errors of other tests keep alive do not survive
    # a fork.
    gc.collect()
    loader = DataLoader(dataset, 2, num_workers=2, collate_fn=pseudo_collate)
    return list(loader)


def test_workers(video, read_log):
    pytest.importorskip('decord')
    names = [video.name] * 6
    names[1] = break_video('zero bytes', video)
    names[4] = 'missing.mp4'
    batches = load(make_dataset(video.parent, names, read_clip('Decord')))
    assert [b['filename'] for b in batches] == [[str(video)] * 2] * 3
    log = read_log()
    assert all(f"{name}' cannot be read" in log for name in names[1:5:3])


def test_truncated_avi_in_decord(tmp_path):
    """The stock step would end the process there, hence workers here."""
    pytest.importorskip('decord')
    whole = write_video(tmp_path / 'whole.avi', code='MJPG').read_bytes()
    (tmp_path / 'half.avi').write_bytes(whole[: len(whole) // 2])
    names = ['whole.avi', 'half.avi', 'half.avi', 'whole.avi']
    batches = load(make_dataset(tmp_path, names, read_clip('Decord')))
    assert [len(b['imgs'][0]) for b in batches] == [2, 2]


@pytest.mark.parametrize('name', ['a:b.mp4', 'no_extension'])
def test_names_of_files(name, tmp_path, monkeypatch):
    """Neither a URL, nor without the extension that the stock step adds."""
    pytest.importorskip('decord')
    path = tmp_path / name
    write_video(path if path.suffix else path.with_suffix('.mp4'))
    monkeypatch.chdir(tmp_path)
    assert read_clip('Decord')(clip_of(name))['total_frames'] == NUM_FRAMES


def test_other_storage_is_left_alone(video):
    """Whatever decord cannot open by a path, it is given as bytes."""
    pytest.importorskip('decord')
    steps = stock_steps('Decord')
    steps[0].update(io_backend='http')
    step = TRANSFORMS.build(
        dict(type='mutualnet_mm.ReadClip', transforms=steps)
    )

    class Client:
        def get(self, name):
            return video.read_bytes()

    step.steps[0].file_client = Client()
    assert step(clip_of('http://host/a'))['total_frames'] == NUM_FRAMES


def test_pickle(decoder, video):
    step = read_clip(decoder, test_mode=True)
    again = pickle.loads(pickle.dumps(step))
    found, expected = (s(clip_of(video))['imgs'] for s in (again, step))
    assert (np.array(found) == np.array(expected)).all()
    with pytest.raises(UsageError, match='gone'):
        again(clip_of(video.with_name('gone.mp4')))


@pytest.mark.parametrize('missing', ['Decord', 'PyAV'])
def test_missing_decoder(missing, video, monkeypatch):
    for package in ('decord', 'av'):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as caught:
        read_clip(missing)
    message = str(caught.value)
    other = dict(Decord='PyAV', PyAV='Decord')[missing]
    for part in (
        f'{missing}Init needs',
        f'pip install {PACKAGES[missing]}, or',
        f'{other}Init and {other}Decode (pip install {PACKAGES[other]})',
        'OpenCVInit and OpenCVDecode (installed)',
    ):
        assert part in message
    assert read_clip('OpenCV')(clip_of(video))['total_frames'] == NUM_FRAMES


def test_errors_of_programs_are_left_alone(decoder, video):
    with pytest.raises(KeyError, match='start_index'):
        read_clip(decoder)(dict(filename=str(video)))
    with pytest.raises(ZeroDivisionError):
        read_clip(decoder, num_clips=0)(clip_of(video))
    with pytest.raises(KeyError, match='filename'):
        read_clip(decoder)({})
    decode = TRANSFORMS.build(
        dict(
            type='mutualnet_mm.ReadClip',
            transforms=stock_steps(decoder)[-1:],
        )
    )
    with pytest.raises(KeyError, match='video_reader|frame_inds'):
        decode(clip_of(video))
