"""Odd videos: read as the stock steps read them, or one line."""

import importlib.util
import re
import wave

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose

from mutualnet_mm import UsageError
from mutualnet_mm.datasets import ReadClip
from mutualnet_mm.datasets.named_files import NamingCompose
from mutualnet_mm.errors import UnreadableError

pytest.importorskip('mmaction')
PACKAGES = dict(Decord='decord', OpenCV='cv2', PyAV='av')
NUM_LONG = 600


@pytest.fixture(params=sorted(PACKAGES))
def decoder(request, enter_scope):
    enter_scope('mmaction')
    if importlib.util.find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f'there is no {PACKAGES[request.param]}')
    return request.param


def write_video(path, number, size=(64, 48)):
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), 15, size
    )
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    width, height = size
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    for t in range(number):
        writer.write(
            np.uint8((x + 3 * y + 7 * t)[..., None] % [256] * [1, 1, 1])
        )
    writer.release()
    return path


def write_two_sizes(path):
    """A transport stream that goes on in another size."""
    av = pytest.importorskip('av')
    content = b''
    for width, height in ((64, 48), (96, 80)):
        part = path.with_name(f'{width}.ts')
        with av.open(str(part), 'w', format='mpegts') as container:
            stream = container.add_stream('mpeg4', rate=15)
            stream.width, stream.height = width, height
            stream.pix_fmt = 'yuv420p'
            for t in range(10):
                pixels = np.full((height, width, 3), 20 * t, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        content += part.read_bytes()
    path.write_bytes(content)
    return path


def write_sound(path):
    with wave.open(str(path), 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b'\0\1' * 8000)
    return path


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('videos')
    write_video(root / 'one.avi', 1)
    write_video(root / 'two.avi', 2)
    write_video(root / 'ünï cödé 图 .avi', 12)
    write_video(root / 'wide.avi', 12, (2000, 4))
    write_video(root / 'long.avi', NUM_LONG)
    write_two_sizes(root / 'sizes.ts')
    write_sound(root / 'sound.wav')
    (root / 'empty.mp4').write_bytes(b'')
    (root / 'folder.mp4').mkdir()
    whole = (root / 'long.avi').read_bytes()
    (root / 'truncated.avi').write_bytes(whole[: len(whole) // 3])
    return root


READABLE = ['one.avi', 'two.avi', 'ünï cödé 图 .avi', 'wide.avi', 'long.avi']
BROKEN = ['sound.wav', 'empty.mp4', 'folder.mp4', 'missing.mp4']


def steps_of(decoder, **sampling):
    sampling = dict(
        dict(clip_len=4, frame_interval=8, num_clips=2, test_mode=True),
        **sampling,
    )
    return [
        dict(type=f'{decoder}Init'),
        dict(type='SampleFrames', **sampling),
        dict(type=f'{decoder}Decode'),
    ]


def read(steps, file):
    info = dict(filename=str(file), start_index=0, modality='RGB')
    return Compose(steps)(info)


@pytest.mark.parametrize('name', [*READABLE, 'sizes.ts'])
def test_as_the_stock_steps(decoder, root, name):
    steps = steps_of(decoder)
    if name == 'sizes.ts' and decoder == 'PyAV':
        # It does not say how many frames it has: frame 0 for all, silently.
        with pytest.raises(UsageError, match=r"'.*sizes.ts' cannot be read"):
            ReadClip(steps)(read([], root / name))
        return
    expected = read(steps, root / name)
    found = ReadClip(steps)(read([], root / name))
    assert set(found) == set(expected)
    assert len(found['imgs']) == 8
    assert found['original_shape'] == expected['original_shape']
    assert all(map(np.array_equal, found['imgs'], expected['imgs']))
    if name == 'long.avi':
        assert len({img.tobytes() for img in found['imgs']}) == 8


@pytest.mark.parametrize('name', BROKEN)
def test_what_cannot_be_read(decoder, root, name):
    with pytest.raises(UsageError) as error:
        ReadClip(steps_of(decoder))(read([], root / name))
    text = str(error.value)
    assert '\n' not in text and re.search(rf"'.*{name}' cannot be read", text)


def test_stock_pipelines_name_the_file(root, decoder):
    """Those that do without ``ReadClip``, in our loops and tools."""
    pipeline = Compose(steps_of(decoder))
    pipeline.__class__ = NamingCompose
    for name in ('empty.mp4', 'sound.wav'):
        if decoder == 'OpenCV':  # an error as any other
            continue
        try:
            pipeline(read([], root / name))
        except UnreadableError as error:
            assert re.search(rf"clip '.*{name}' cannot be", str(error))
        except IndexError:  # PyAV, without a picture, an error as any other
            assert (decoder, name) == ('PyAV', 'sound.wav')
        else:
            pytest.fail('it was read')
    with pytest.raises((UnreadableError, OSError), match='missing.mp4'):
        pipeline(read([], root / 'missing.mp4'))


def converted(monkeypatch):
    """Count the frames that PyAV makes arrays of."""
    from mutualnet_mm.datasets import read_clip

    number = []
    decode = read_clip._PickedFrames.decode

    def watched(self, **streams):
        for frame in decode(self, **streams):
            number.append(not isinstance(frame, read_clip._Unpicked))
            yield frame

    monkeypatch.setattr(read_clip._PickedFrames, 'decode', watched)
    return number


def test_long_videos_stay_out_of_memory(root, monkeypatch, enter_scope):
    """Of 600 frames, eight and the first one become arrays."""
    pytest.importorskip('av')
    enter_scope('mmaction')
    number = converted(monkeypatch)
    found = ReadClip(steps_of('PyAV'))(read([], root / 'long.avi'))
    assert len(found['imgs']) == 8
    assert sum(number) <= 9 and len(number) > 100


def test_fewer_frames_than_it_says(root, monkeypatch, enter_scope):
    """The stock step goes round; nothing that was left out is taken."""
    pytest.importorskip('av')
    enter_scope('mmaction')
    steps = steps_of('PyAV')

    def too_many(results):
        results['total_frames'] = 40
        return results

    short = root / 'ünï cödé 图 .avi'  # 12 frames
    init, sample, decode = Compose(steps).transforms

    def stock(results):
        return decode(sample(too_many(init(results))))

    clip = ReadClip(steps)
    init_of_ours = clip.steps[0].transform
    monkeypatch.setattr(
        clip.steps[0], 'transform', lambda r: too_many(init_of_ours(r))
    )
    found, expected = clip(read([], short)), stock(read([], short))
    assert max(found['frame_inds']) >= 12
    assert all(map(np.array_equal, found['imgs'], expected['imgs']))


@pytest.mark.nightly
def test_five_minutes(tmp_path, decoder):
    import time

    write_video(tmp_path / 'long.avi', 4500)
    clip = ReadClip(steps_of(decoder, num_clips=10))
    start = time.perf_counter()
    found = clip(read([], tmp_path / 'long.avi'))
    assert len(found['imgs']) == 40
    assert time.perf_counter() - start < 60
