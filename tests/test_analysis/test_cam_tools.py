"""The tools that draw and measure activation maps, as a user runs them."""

import copy
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from programs import run_program
from table_runs import make_clips

from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.activation_maps import ActivationMap, map_image
from mutualnet_mm.analysis.frame_figures import shown_frames
from mutualnet_mm.analysis.map_figures import draw_maps, spread_map
from mutualnet_mm.analysis.pixels import evidence, input_pixels
from mutualnet_mm.models.build import build_model
from mutualnet_mm.subnet import Subnet

pytest.importorskip('torchcam')

TOOLS = Path(__file__).parents[2] / 'tools/analysis'
SUBNETS = ['1.0x-32', '0.5x-16']


@pytest.fixture
def files(make_config, checkpoint, tmp_path):
    hook = dict(
        type='mutualnet_mm.BNCalibrationHook', num_batches=2, priority='LOW'
    )
    cfg = make_config(custom_hooks=[hook])
    cfg.dump(str(tmp_path / 'config.py'))
    return str(tmp_path / 'config.py'), checkpoint


def test_cam(files, pictures, tmp_path):
    images = [str(pictures / f'test/{i}/{i}.png') for i in range(2)]
    out = tmp_path / 'out'
    result = run_program(
        TOOLS / 'cam.py', *files, *images, '--subnet', *SUBNETS, '--out', out
    )
    assert result.returncode == 0, result.stderr
    network = TrainedNetwork(Config.fromfile(files[0]), files[1], SUBNETS)
    lines = iter(result.stdout.splitlines())
    for image in images:
        stem = out / Path(image).stem
        assert cv2.imread(f'{stem}.png').shape[1] == 660
        saved = np.load(f'{stem}.npz')
        for subnet in SUBNETS:
            batch = network.inputs([image])
            own = map_image(network.static(subnet), *batch)
            np.testing.assert_array_equal(saved[subnet], own.values)
            assert saved[f'{subnet}/label'] == own.label
            assert next(lines) == (
                f'{image}: {subnet}: class {own.label}, score {own.score:.3f}'
            )


def test_cam_of_a_class(files, pictures, tmp_path):
    image = str(pictures / 'test/0/0.png')
    command = (TOOLS / 'cam.py', *files, image, '--out', tmp_path / 'out')
    result = run_program(*command, '--class', 2)
    assert result.stdout.count('class 2') == 2  # the full and the smallest
    assert np.load(tmp_path / 'out/0.npz')['0.25x-16/label'] == 2
    result = run_program(*command, '--class', 'cat')
    assert result.returncode == 1
    assert "no class 'cat': give a number from 0 to 3" in result.stderr
    result = run_program(*command[:-2], image, *command[-2:])
    assert "two files are named '0'" in result.stderr


def test_localize(files, pictures, tmp_path):
    boxes = dict(images=[], annotations=[])
    for i in range(12):
        boxes['images'].append(dict(id=i, file_name=f'{i % 4}/{i}.png'))
        box = [0, 0, 4 + 2 * i, 32]
        boxes['annotations'].append(dict(image_id=i, bbox=box))
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    result = run_program(
        *(TOOLS / 'localize.py', *files),
        *('--boxes', tmp_path / 'boxes.json', '--subnet', *SUBNETS),
        *('--threshold', '0.2', '0.5', '--map', 'prediction'),
        *('--out', tmp_path / 'a.json', tmp_path / 'a.csv'),
    )
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / 'a.json').read_text())
    assert content['settings']['map'] == 'prediction'
    large = [r for r in content['rows'] if r['group'] == 'large']
    assert [r['images'] for r in large] == [5] * 4  # 18 of 32 columns
    assert len((tmp_path / 'a.csv').read_text().splitlines()) == 13
    for subnet in SUBNETS:
        assert result.stdout.count(subnet) == 2
    one = next(r for r in content['rows'] if r['subnet'] == '0.5x-16')
    cell = f'{one["accuracy"]:.1f} ({one["low"]:.1f} to {one["high"]:.1f})'
    assert f'{cell} +{one["only_this"]} -{one["only_first"]}' in result.stdout
    for line in result.stdout.splitlines():
        if '1.0x-32' in line:  # what the others are compared with
            assert '+' not in line and '-0' not in line.replace('-32', '')
    (tmp_path / 'boxes.json').write_text('{}')
    result = run_program(
        *(TOOLS / 'localize.py', *files),
        *('--boxes', tmp_path / 'boxes.json'),
    )
    assert result.returncode == 1
    assert "not in COCO's format" in result.stderr


def test_localize_reads_its_test_set_once(
    files, pictures, tmp_path, monkeypatch
):
    from mmpretrain.datasets import CustomDataset

    read = []
    load = CustomDataset.load_data_list

    def count(self):
        read.append(self.img_prefix)
        return load(self)

    monkeypatch.setattr(CustomDataset, 'load_data_list', count)
    boxes = dict(images=[], annotations=[])
    for i in range(12):
        boxes['images'].append(dict(id=i, file_name=f'{i % 4}/{i}.png'))
        own = dict(image_id=i, bbox=[0, 0, 9, 9], category_id=i % 4)
        boxes['annotations'].append(own)
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(boxes))
    command = (TOOLS / 'localize.py', *files, '--boxes', path)
    result = run_program(*command, '--subnet', *SUBNETS)
    assert result.returncode == 0, result.stderr
    assert read.count(f'{pictures / "test"}/') == 1
    assert 'of another class' not in result.stderr
    for own in boxes['annotations'][4:6]:
        own['category_id'] = 3
    path.write_text(json.dumps(boxes))
    result = run_program(*command, '--subnet', *SUBNETS)
    assert result.returncode == 0, result.stderr
    assert '2 of 12 images have boxes of another class' in result.stderr
    assert "4.png' of '3'" in result.stderr
    assert 'of another class' not in result.stdout


@pytest.fixture
def video_files(slow_model, enter_scope, tmp_path):
    """A config that reads videos with OpenCV, random weights, two videos."""
    enter_scope('mmaction')
    make_clips(tmp_path, 2)
    steps = [
        dict(type='OpenCVInit'),
        dict(
            type='SampleFrames',
            clip_len=4,
            frame_interval=2,
            num_clips=2,
            test_mode=True,
        ),
        dict(type='OpenCVDecode'),
        dict(type='Resize', scale=(64, 64), keep_ratio=False),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ]
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='VideoDataset',
            ann_file=str(tmp_path / 'list.txt'),
            data_prefix=dict(video=str(tmp_path)),
            pipeline=steps,
        ),
    )
    train = copy.deepcopy(loader)
    train['dataset']['pipeline'][1].update(num_clips=1, test_mode=False)
    cfg = Config(
        dict(
            default_scope='mmaction',
            model=slow_model(resolution=(64, 48), frames=(4, 2)),
            train_dataloader=train,
            test_dataloader=loader,
            test_evaluator=dict(type='AccMetric'),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop'),
        )
    )
    cfg.dump(str(tmp_path / 'video.py'))
    model = build_model(cfg)
    torch.nn.init.normal_(model.cls_head.fc_cls.weight)
    meta = dict(dataset_meta=dict(classes=['run', 'sit', 'eat']))
    torch.save(
        dict(state_dict=model.state_dict(), meta=meta), tmp_path / 'slow.pth'
    )
    return [str(tmp_path / n) for n in ('video.py', 'slow.pth')]


def test_cam_video(video_files, tmp_path):
    pytest.importorskip('mmaction')
    videos = [str(tmp_path / f'{i}.avi') for i in range(2)]
    out = tmp_path / 'out'
    result = run_program(
        *(TOOLS / 'cam_video.py', *video_files, *videos, '--out', out),
        *('--subnet', '1.0x-64-4', '0.5x-48-2', '--class', 'sit'),
    )
    assert result.returncode == 0, result.stderr
    for i in range(2):
        saved = np.load(out / f'{i}.npz')
        assert saved['1.0x-64-4'].shape == (4, 2, 2)
        assert saved['0.5x-48-2/frames'].tolist() == [1, 3]
        curve = saved['0.5x-48-2/curve']
        means = saved['0.5x-48-2'].mean((1, 2))
        assert means.max() == 0 or curve.max() == pytest.approx(1)
        assert cv2.imread(str(out / f'{i}.png')) is not None
        assert f'{i}.avi: 0.5x-48-2: sit' in result.stdout
        assert f', 1:{curve[0]:.2f} 3:{curve[1]:.2f}\n' in result.stdout


def test_images_are_not_for_video_networks(video_files, tmp_path):
    result = run_program(
        *(TOOLS / 'cam.py', *video_files, tmp_path / '0.avi'),
        *('--out', tmp_path / 'out'),
    )
    assert result.returncode == 1
    assert 'the model is for action, and this is for class' in result.stderr
    assert 'mutualnet cam-video makes' in result.stderr
    assert not (tmp_path / 'out').exists()


def without_calibration(path):
    """A config whose calibration would end in an error of its own."""
    cfg = Config.fromfile(path)
    cfg.train_dataloader.dataset.type = 'Nowhere'
    cfg.custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook')]
    cfg.dump(path)


def test_a_task_is_refused_before_calibration(video_files, tmp_path):
    without_calibration(video_files[0])
    result = run_program(
        *(TOOLS / 'cam.py', *video_files, tmp_path / '0.avi'),
        *('--out', tmp_path / 'out'),
    )
    assert 'the model is for action' in result.stderr


def test_a_class_is_refused_before_calibration(files, pictures, tmp_path):
    without_calibration(files[0])
    command = (TOOLS / 'cam.py', *files, pictures / 'test/0/0.png')
    assert 'Nowhere' in run_program(*command, '--out', tmp_path / 'a').stderr
    result = run_program(*command, '--class', 'cat', '--out', tmp_path / 'out')
    assert "no class 'cat'" in result.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'options, message',
    [
        (('--out', 'a.txt'), "'a.txt': name a .json or .csv file"),
        (('--out', 'nowhere/a.csv'), 'cannot be written: make the folder'),
        (('--threshold', '1.5'), 'threshold 1.5: give a fraction'),
        (('--threshold', 'nan'), 'threshold nan: give a fraction'),
        ((), "9.png' has no box"),
    ],
)
def test_localize_checks_before_it_loads(
    options, message, files, pictures, tmp_path
):
    """There is no checkpoint, which would be said otherwise."""
    boxes = dict(images=[], annotations=[])
    for i in range(9):
        boxes['images'].append(dict(id=i, file_name=f'{i % 4}/{i}.png'))
        boxes['annotations'].append(dict(image_id=i, bbox=[0, 0, 4, 32]))
    (tmp_path / 'boxes.json').write_text(json.dumps(boxes))
    result = run_program(
        *(TOOLS / 'localize.py', files[0], tmp_path / 'nowhere.pth'),
        *('--boxes', tmp_path / 'boxes.json', *options),
    )
    assert result.returncode == 1
    assert message in result.stderr


@pytest.mark.parametrize('order', ['BGR', 'RGB'])
def test_pixels_are_those_of_the_file(
    order, build_classifier, image_batch, tmp_path
):
    model = build_classifier()
    settings = model.data_preprocessor
    settings.register_buffer(
        'mean', torch.tensor([10.0, 20, 30])[:, None, None]
    )
    settings.register_buffer('std', torch.tensor([2.0, 3, 4])[:, None, None])
    settings._enable_normalize, settings.to_rgb = True, order == 'BGR'
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)  # RGB
    given = picture[..., ::-1] if order == 'BGR' else picture
    tensor = torch.from_numpy(given.transpose(2, 0, 1).copy())
    data = settings(dict(inputs=[tensor]), False)
    assert data['inputs'].mean() != tensor.float().mean()
    found = input_pixels(model, data['inputs'][0], order)
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize(
    'predicted, shown', [(2, ', score 1.23'), (None, ', sum of scores 1.23')]
)
def test_titles_say_what_a_score_is(predicted, shown, tmp_path):
    """Only classifiers predict one class, with its probability."""
    found = ActivationMap(
        Subnet.parse('1.0x-64'), np.ones((2, 2)), 0, 1.234, predicted
    )
    figure = draw_maps(np.zeros((8, 8, 3), np.uint8), [found])
    assert figure.axes[1].get_title() == f'1.0x-64\nclass 0{shown}'
    figure.savefig(tmp_path / 'out.png', dpi=100)
    title = figure.axes[1].title.get_window_extent()
    assert figure.bbox.y1 - title.y1 > 4  # pixels to the edge


@pytest.mark.parametrize(
    'tool, options',
    [
        ('cam.py', 'c.py c.pth a.png'),
        ('cam_video.py', 'c.py c.pth a.mp4'),
        ('compare_subnets.py', 'c.py c.pth a.png'),
        ('cut.py', 'c.py a.pth b.pth'),
        ('gradients.py', 'c.py'),
    ],
)
def test_an_error_leaves_no_folder(tool, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_program(TOOLS / tool, *options.split(), '--out', 'a/b')
    assert result.returncode == 1 and 'error: ' in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_image_that_cannot_be_read_leaves_no_folder(files, tmp_path):
    out = tmp_path / 'out'
    command = (TOOLS / 'cam.py', *files, tmp_path / 'x.png', '--out', out)
    result = run_program(*command)
    assert "x.png' cannot be read" in result.stderr
    assert not out.exists()


def test_padding_is_cut_off():
    """A map of 2 x 4 points, of which the image takes the left half."""
    values = np.array([[1.0, 1, 5, 5], [1, 1, 5, 5]])
    found = ActivationMap(
        Subnet.parse('1.0x-64'), values, 0, 1.0, inside=(1.0, 0.5)
    )
    spread = spread_map(found, (20, 20))
    assert spread.shape == (20, 20)
    assert (spread[:, :12] == 1).all()
    assert spread[:, -1].max() < 3.2  # between both: interpolated
    assert (evidence(np.array([[-1.0, 2, 4]])) == [[0, 0.5, 1]]).all()
    assert (evidence(-values) == 0).all()


def test_frames_that_fit():
    class Seen:
        def __init__(self, frames):
            self.frames = frames

    assert shown_frames([Seen([0, 4]), Seen([2, 4])]) == [0, 2, 4]
    many = shown_frames([Seen(list(range(32)))])
    assert len(many) == 12 and many == sorted(many)
