"""A recognizer's inputs are what stock data sets and inferencers deliver."""

import copy
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS

from mutualnet_mm import UsageError
from mutualnet_mm.deploy.inputs.pipeline import InputPipeline

pytest.importorskip('mmaction')

PACKAGES = dict(Decord='decord', OpenCV='cv2', PyAV='av')
FULL, SIDE, CLIP = 32, 40, 4
LENGTHS = (12, 3)  # the second is shorter than what is sampled


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Videos, the frames of each in a folder, and lists of both."""
    root = tmp_path_factory.mktemp('clips')
    rng = np.random.default_rng(0)
    for i, length in enumerate(LENGTHS):
        path = root / f'{i}.avi'
        writer = cv2.VideoWriter(
            str(path), cv2.VideoWriter_fourcc(*'MJPG'), 15, (64, 48)
        )
        if not writer.isOpened():
            pytest.skip('this OpenCV writes no videos')
        still = rng.integers(0, 150, (48, 64, 3), np.uint8)
        (root / str(i)).mkdir()
        for t in range(length):
            frame = still.copy()
            frame[10:30, 4 * t : 4 * t + 12, i % 3] += 100
            writer.write(frame)
            name = f'frame-{t:03}.png'
            assert cv2.imwrite(str(root / str(i) / name), frame)
        writer.release()
    names = range(len(LENGTHS))
    (root / 'videos.txt').write_text('\n'.join(f'{i}.avi 1' for i in names))
    lines = [f'{i} {length} 1' for i, length in enumerate(LENGTHS)]
    (root / 'frames.txt').write_text('\n'.join(lines))
    return root


@pytest.fixture
def files(folder):
    return [folder / f'{i}.avi' for i in range(len(LENGTHS))]


def reading(decoder, **settings):
    clip = dict(clip_len=CLIP, frame_interval=2, test_mode=True)
    return [
        dict(type=f'{decoder}Init'),
        dict(type='SampleFrames', **dict(clip, **settings)),
        dict(type=f'{decoder}Decode'),
    ]


def finishing(crop='CenterCrop', size=FULL):
    return [
        dict(type='Resize', scale=(-1, SIDE)),
        dict(type=crop, crop_size=size),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ]


@pytest.fixture
def make_config(enter_scope, slow_model, folder):
    enter_scope('mmaction')

    def make(steps=None, **dataset):
        dataset = dict(
            dict(
                type='VideoDataset',
                ann_file=str(folder / 'videos.txt'),
                data_prefix=dict(video=str(folder)),
            ),
            **dataset,
        )
        model = slow_model(resolution=(FULL, 16), frames=(CLIP, 2))
        pipeline = steps or reading('OpenCV') + finishing()
        return Config(
            dict(
                default_scope='mmaction',
                model=model,
                test_dataloader=dict(dataset=dict(dataset, pipeline=pipeline)),
            )
        )

    return make


def build(cfg):
    return InputPipeline(cfg, MODELS.build(cfg.model))


def stock_batch(cfg, model):
    """What the loop makes of the whole test set."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = pseudo_collate([dataset[i] for i in range(len(dataset))])
    data = model.data_preprocessor(batch, False)
    return data['inputs'], data['data_samples']


def assert_same(found, expected):
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1])
    for ours, stock in zip(found[1], expected[1]):
        assert type(ours) is type(stock)
        assert set(ours.all_keys()) == set(stock.all_keys())
        assert ours.img_shape == stock.img_shape
        assert ours.gt_label.tolist() == [-1]  # as the stock inferencer


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize('decoder', sorted(PACKAGES))
def test_files_as_the_test_set(decoder, wrapped, make_config, files):
    """All views of each."""
    pytest.importorskip(PACKAGES[decoder])
    steps = reading(decoder, num_clips=2)
    rest = finishing('ThreeCrop', SIDE)
    cfg = make_config(steps + rest)
    model = MODELS.build(cfg.model)
    expected = stock_batch(cfg, model)
    assert expected[0].shape == (2, 6, 3, CLIP, SIDE, SIDE)
    if wrapped:
        clip = dict(type='mutualnet_mm.ReadClip', transforms=steps)
        cfg.test_dataloader.dataset.pipeline = [clip, *rest]
    pipeline = InputPipeline(cfg, model)
    assert_same(pipeline([str(file) for file in files]), expected)
    assert_same(pipeline(files), expected)
    one = pipeline(files[1])
    assert_same(one, (expected[0][1:], expected[1][1:]))


def frames_of(file, code=cv2.COLOR_BGR2RGB):
    reader, frames = cv2.VideoCapture(str(file)), []
    while True:
        found, frame = reader.read()
        if not found:
            return np.stack(frames)
        frames.append(cv2.cvtColor(frame, code))


def stock_inferencer(cfg, input_format):
    from mmaction.apis.inferencers import ActionRecogInferencer

    cfg = copy.deepcopy(cfg)
    cfg.model.update(type=cfg.model.pop('wraps'))
    del cfg.model['mutual']
    cfg.model.backbone.type = 'ResNet3dSlowOnly'
    return ActionRecogInferencer(cfg, device='cpu', input_format=input_format)


def test_arrays_as_the_stock_inferencer(make_config, files):
    """Of one view, since it takes no more; colours are RGB."""
    cfg = make_config()
    pipeline = build(cfg)
    inferencer = stock_inferencer(cfg, 'array')
    clips = [frames_of(file) for file in files]
    clips += [clips[0][::-1, :, ::-1], clips[0][5:, 3:, 2:]]
    before = [clip.copy() for clip in clips]
    batch = next(inferencer.preprocess(clips, batch_size=len(clips)))
    data = inferencer.model.data_preprocessor(batch, False)
    found = pipeline(clips)
    assert_same(found, (data['inputs'], data['data_samples']))
    assert all(map(np.array_equal, clips, before))
    assert torch.equal(found[0][:2], pipeline(files)[0])
    blue_first = frames_of(files[0], cv2.COLOR_BGR2BGRA)[..., :3]
    assert not torch.equal(pipeline(blue_first)[0], found[0][:1])


@pytest.mark.parametrize('wrapped', [False, True])
def test_all_views_of_arrays(wrapped, make_config, files):
    steps = reading('OpenCV', num_clips=2)
    if wrapped:
        steps = [dict(type='mutualnet_mm.ReadClip', transforms=steps)]
    pipeline = build(make_config(steps + finishing('ThreeCrop', SIDE)))
    expected = pipeline(files)
    clips = [frames_of(file) for file in files]
    assert_same(pipeline(clips), expected)
    assert_same(pipeline(clips[0]), (expected[0][:1], expected[1][:1]))
    stacked = np.stack([clips[0], clips[0]])
    assert torch.equal(pipeline(stacked)[0], expected[0][[0, 0]])


@pytest.mark.parametrize('option', ['loop', 'repeat_last'])
def test_short_clips_as_stock_sampling(option, make_config, files):
    """Frames 0, 2, 4, 6 of 3."""
    steps = reading('OpenCV', out_of_bound_opt=option) + finishing()
    pipeline = build(make_config(steps))
    clip = frames_of(files[1])
    picked = dict(loop=[0, 2, 1, 0], repeat_last=[0, 2, 2, 2])[option]
    plain = reading('OpenCV', frame_interval=1) + finishing()
    expected = build(make_config(plain))(clip[picked])[0]
    assert torch.equal(pipeline(clip)[0], expected)
    assert torch.equal(pipeline(files[1])[0], expected)


@pytest.fixture
def frames_config(make_config, folder):
    def make(**dataset):
        steps = [reading('RawFrame')[1], dict(type='RawFrameDecode')]
        return make_config(
            steps + finishing(),
            type='RawframeDataset',
            ann_file=str(folder / 'frames.txt'),
            data_prefix=dict(img=str(folder)),
            **dict(
                dict(filename_tmpl='frame-{:03}.png', start_index=0), **dataset
            ),
        )

    return make


def test_folders_of_frames(frames_config, folder):
    cfg = frames_config()
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    expected = stock_batch(cfg, model)
    folders = [folder / '0', folder / '1']
    assert_same(pipeline(folders), expected)
    frames = [cv2.imread(str(f)) for f in sorted(folders[0].iterdir())]
    clip = np.stack(frames)[..., ::-1]
    assert torch.equal(pipeline(clip)[0], expected[0][:1])


def broken_folder(kind, folder, tmp_path):
    if kind in ('first', 'second'):
        shutil.copytree(folder / '0', tmp_path / 'frames')
        number = dict(first=2, second=4)[kind]  # of frames 2, 4, 6, 8
        (tmp_path / f'frames/frame-{number:03}.png').write_text('none')
        return tmp_path / 'frames'
    return dict(video=folder / '0.avi', none=folder, missing=folder / 'no')[
        kind
    ]


@pytest.mark.parametrize(
    'kind, reason',
    [
        ('video', 'Not a directory'),
        ('missing', 'No such file'),
        ('none', 'holds no such frames'),
        ('first', 'frames is not an image, or a broken'),
        ('second', 'frames is not an image, or a broken'),
    ],
)
def test_folders_that_cannot_be_read(
    kind, reason, frames_config, folder, tmp_path
):
    given = broken_folder(kind, folder, tmp_path)
    with pytest.raises(UsageError, match=reason) as caught:
        build(frames_config())(given)
    message = str(caught.value)
    assert repr(str(given)) in message and '\n' not in message
    assert "folders of frames named 'frame-{:03}.png'" in message


def test_tensors(make_config, files):
    from mmaction.structures import ActionDataSample

    steps = reading('OpenCV', num_clips=2) + finishing('ThreeCrop', SIDE)
    cfg = make_config(steps)
    model = MODELS.build(cfg.model).eval()
    pipeline = InputPipeline(cfg, model)
    views = pipeline(files)[0]
    for given, expected in (
        (views, views),
        (views[:, 0], views[:, :1]),
        (views[0, 0], views[:1, :1]),
        (views[0], views[0][:, None]),  # as several clips of one view each
        (views[..., :FULL, :FULL], views[..., :FULL, :FULL]),
    ):
        inputs, samples = pipeline(given)
        assert torch.equal(inputs, expected)
        assert [type(sample) for sample in samples] == [
            ActionDataSample
        ] * len(expected)
    predicted = model(*pipeline(views), mode='predict')
    again = model(*pipeline(files), mode='predict')
    for one, other in zip(predicted, again):
        assert torch.equal(one.pred_score, other.pred_score)


def test_threads(make_config, files):
    pipeline = build(make_config())
    clips = [frames_of(file) for file in files]
    expected = pipeline(files)[0]
    jobs = [(i, given) for i in (0, 1) for given in (files, clips)] * 8
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda job: pipeline(job[1][job[0]])[0][0], jobs)
        for (i, _), inputs in zip(jobs, found):
            assert torch.equal(inputs, expected[i])


@pytest.mark.parametrize('decoder', sorted(PACKAGES))
@pytest.mark.parametrize('content', [None, b'', b'404 not found\n' * 99])
def test_files_that_cannot_be_read(content, decoder, make_config, tmp_path):
    pytest.importorskip(PACKAGES[decoder])
    # ReadClip itself would leave it out, as in training.
    steps = reading(decoder, test_mode=False)
    pipeline = build(make_config(steps + finishing()))
    file = tmp_path / 'broken.mp4'
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match='give the path of a video') as found:
        pipeline(file)
    message = str(found.value)
    assert f'clip {str(file)!r} cannot be read (' in message
    assert '\n' not in message


def test_arrays_need_no_decoder(make_config, files, monkeypatch):
    pytest.importorskip('decord')
    clip = frames_of(files[0])
    expected = build(make_config())(clip)[0]
    monkeypatch.setitem(sys.modules, 'decord', None)
    steps = [dict(type='mutualnet_mm.ReadClip', transforms=reading('Decord'))]
    pipeline = build(make_config(steps + finishing()))
    assert torch.equal(pipeline(clip)[0], expected)
    with pytest.raises(UsageError, match='pip install decord.* as an array'):
        pipeline(files[0])


def test_pipeline_that_decodes_nothing(make_config):
    with pytest.raises(UsageError, match='decodes no frames: put in OpenCV'):
        build(make_config(finishing()))


def frames(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


WRONG = {
    'nothing': ([], 'no clip was given'),
    'image': (frames(48, 64, 3), r'1 of 1 .*\(48, 64, 3\): .* by np.stack'),
    'list': ([frames(48, 64, 3)] * 2, r'clip 1 of 2 .*\(48, 64, 3\)'),
    'no frames': (frames(0, 48, 64, 3), r'shape \(0, 48, 64, 3\)'),
    'flow': (frames(9, 48, 64, 2), r'\(9, 48, 64, 2\).* in RGB order'),
    'float': (frames(9, 48, 64, 3, dtype=float), 'float64.* as uint8'),
    'kinds': (['a.mp4', frames(9, 48, 64, 3)], 'arrays and files were given'),
    'channels': (torch.zeros(4, 1, 32, 32), r'\(3, T, H, W\), \(N, 3, T, H,'),
    'axes': (torch.zeros(3, 32, 32), r'shape \(3, 32, 32\)'),
    'short': (torch.zeros(3, 3, 32, 32), 'clips of 3 frames, .* takes 4'),
    'small': (torch.zeros(3, 4, 32, 24), '32 x 24 .* resolution is 32'),
}


@pytest.mark.parametrize('case', sorted(WRONG))
def test_what_is_refused(case, make_config):
    given, match = WRONG[case]
    with pytest.raises(UsageError, match=match) as caught:
        build(make_config())(given)
    assert '\n' not in str(caught.value)
