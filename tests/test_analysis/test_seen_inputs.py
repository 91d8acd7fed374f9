"""What subnets see, beside samples that are loaded and resized by hand."""

import json
from pathlib import Path

import cv2
import matplotlib.colors as colors
import numpy as np
import person_networks
import pytest
import torch
from matplotlib.patches import Rectangle
from mmengine.config import Config
from programs import run_program
from table_runs import make_clips

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.analysis import seen_inputs
from mutualnet_mm.analysis.seen_figures import draw_sample
from mutualnet_mm.analysis.seen_inputs import default_subnets, seen_samples
from mutualnet_mm.models.build import build_model

TOOL = Path(__file__).parents[2] / 'tools/analysis/browse_dataset.py'


def loader(dataset, shuffle=False):
    return dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        dataset=dataset,
    )


@pytest.fixture
def detection(detector_config, coco_dataset):
    """Config of a Mask R-CNN whose two pipelines load the ground truth."""
    steps = coco_dataset('val')['pipeline']
    test = [
        dict(step, poly2mask=True) if 'with_mask' in step else step
        for step in steps
    ]
    assert [step['type'] for step in test][1:3] == [
        'Resize',
        'LoadAnnotations',
    ]
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=detector_config(),
            train_dataloader=loader(coco_dataset('train')),
            test_dataloader=loader(coco_dataset('val', test)),
        )
    )
    cfg.model.mutual.resolution = (64, 48, 32)
    return cfg


def stored(root, split, index):
    """Image (RGB), boxes and masks of a sample, as the files have them."""
    content = json.loads((root / f'{split}.json').read_text())
    image = cv2.imread(str(root / f'{split}{index}.png'))[..., ::-1]
    boxes, masks = [], []
    for one in content['annotations']:
        if one['image_id'] == index:
            x, y, w, h = one['bbox']
            boxes.append([x, y, x + w, y + h])
            mask = np.zeros(image.shape[:2], np.uint8)
            outline = np.array(one['segmentation'][0]).reshape(-1, 2)
            cv2.fillPoly(mask, [outline.astype(int)], 1)
            masks.append(mask)
    return image, np.array(boxes, float), masks


@pytest.mark.parametrize('phase', ['train', 'test'])
def test_boxes_and_masks(detection, tiny_coco, phase):
    split = 'train' if phase == 'train' else 'val'
    model = build_model(detection)
    subnets = ['1.0x-64', '0.5x-48', '1.0x-32']
    found = list(seen_samples(detection, model, subnets, phase, 3))
    assert [one.name for one in found] == [f'{split}{i}' for i in range(3)]
    for index, one in enumerate(found):
        image, boxes, masks = stored(tiny_coco, split, index)
        short = min(image.shape[:2])
        for view, side in zip(one.views, (64, 48, 32)):
            height, width = view.size
            scale = side / short
            assert (height, width) == pytest.approx(
                [scale * s for s in image.shape[:2]], abs=1
            )
            pixels = view.frames[0][:height, :width]
            expected = cv2.resize(image, (width, height), interpolation=3)
            assert np.abs(pixels.astype(int) - expected).mean() < 12
            objects = view.objects
            assert objects.boxes == pytest.approx(boxes * scale, abs=1)
            assert set(objects.names) <= {'box', 'triangle'}
            for mask, stored_mask in zip(objects.masks, masks):
                mask = mask[:height, :width].astype(np.uint8)
                wanted = cv2.resize(stored_mask, (width, height))
                for one_mask, other in ((mask, wanted), (wanted, mask)):
                    near = cv2.dilate(other, np.ones((5, 5), np.uint8))
                    assert one_mask.any() and not (one_mask > near).any()
            assert len(objects.masks) == len(masks) == len(boxes)


def test_padding_is_told(detection):
    model = build_model(detection)
    first, second = seen_samples(detection, model, ['1.0x-64'], 'train', 2)
    # 60 x 80 and 80 x 60: at a short edge of 64, 64 x 85 and 85 x 64.
    assert first.views[0].size == (64, 85)
    assert second.views[0].size == (85, 64)
    assert first.views[0].frames.shape == (1, 96, 96, 3)


@pytest.fixture
def classification(classifier_config, tmp_path):
    """Config of a classifier, of images in the colours of their classes."""
    for name, colour in (('blue', (255, 0, 0)), ('green', (0, 255, 0))):
        (tmp_path / name).mkdir()
        image = np.full((64, 64, 3), colour, np.uint8)
        image[:32, :32] = 255
        cv2.imwrite(str(tmp_path / name / 'a.png'), image)
    dataset = dict(
        type='CustomDataset',
        data_root=str(tmp_path),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    model = classifier_config()
    model['data_preprocessor'] = dict(
        mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0], to_rgb=True
    )
    return Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            train_dataloader=loader(dataset),
            test_dataloader=loader(dataset),
        )
    )


@pytest.mark.parametrize('to_rgb', [True, False])
def test_images_and_their_classes(classification, to_rgb):
    classification.model.data_preprocessor.to_rgb = to_rgb
    model = build_model(classification)
    subnets = default_subnets(model)
    assert [str(s) for s in subnets] == ['1.0x-64', '1.0x-48', '1.0x-32']
    found = list(seen_samples(classification, model, subnets, number=9))
    assert [one.label for one in found] == ['blue', 'green']
    for one, colour in zip(found, ((0, 0, 255), (0, 255, 0))):
        assert [v.frames.shape for v in one.views] == [
            (1, side, side, 3) for side in (64, 48, 32)
        ]
        for view in one.views:
            assert view.objects is None and view.size == view.frames.shape[1:3]
            pixels = view.frames[0]
            assert np.abs(pixels[-8:, -8:].astype(int) - colour).max() <= 1
            assert pixels[:8, :8].min() >= 254


def test_mixed_labels(classification):
    classification.model.train_cfg = dict(
        augments=[dict(type='Mixup', alpha=1.0)]
    )
    classification.model.data_preprocessor.num_classes = 4
    model = build_model(classification)
    mixed = 0
    for seed in range(4):  # some of which mix images with themselves
        torch.manual_seed(seed)
        np.random.seed(seed)
        for one in seen_samples(classification, model, ['1.0x-64']):
            parts = [part.split() for part in one.label.split(', ')]
            shares = {name: float(*share or [1]) for name, *share in parts}
            mixed += len(shares) == 2
            corner = one.views[0].frames[0, -1, -1] / 255
            expected = [0, shares.get('green', 0), shares.get('blue', 0)]
            assert corner == pytest.approx(expected, abs=0.02)
    assert mixed > 1
    for one in seen_samples(classification, model, ['1.0x-64'], 'test'):
        assert one.label in ('blue', 'green')


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    root = tmp_path_factory.mktemp('clips')
    make_clips(root, 2)
    return root


@pytest.fixture
def video(enter_scope, slow_model, clips):
    """Return the config of a Slow or SlowFast network and its videos."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')

    def make(kind='slow'):
        model = slow_model(resolution=(32, 24, 16), frames=(4, 2))
        length = 4
        if kind == 'slowfast':
            length = 8
            slow = dict(
                type='resnet3d',
                depth=18,
                base_channels=16,
                lateral=True,
                conv1_kernel=(1, 7, 7),
                inflate=(0, 0, 1, 1),
            )
            fast = dict(
                slow, base_channels=2, lateral=False, conv1_kernel=(5, 7, 7)
            )
            model['backbone'] = dict(
                type='mutualnet_mm.SlimmableResNet3dSlowFast',
                resample_rate=2,
                speed_ratio=2,
                slow_pathway=slow,
                fast_pathway=fast,
            )
            model['cls_head'] = dict(
                type='SlowFastHead', in_channels=144, num_classes=3
            )
        steps = [
            dict(type='OpenCVInit'),
            dict(
                type='SampleFrames',
                clip_len=length,
                frame_interval=1,
                num_clips=1,
                test_mode=True,
            ),
            dict(type='OpenCVDecode'),
            dict(type='Resize', scale=(-1, 32)),
            dict(type='CenterCrop', crop_size=32),
            dict(type='FormatShape', input_format='NCTHW'),
            dict(type='PackActionInputs', meta_keys=('filename',)),
        ]
        dataset = dict(
            type='VideoDataset',
            ann_file=str(clips / 'list.txt'),
            data_prefix=dict(video=str(clips)),
            pipeline=steps,
        )
        return Config(
            dict(
                default_scope='mmaction',
                model=model,
                train_dataloader=loader(dataset),
                test_dataloader=loader(dataset),
            )
        )

    return make


@pytest.mark.parametrize('phase', ['train', 'test'])
@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_clips(video, kind, phase, monkeypatch):
    cfg = video(kind)
    model = build_model(cfg)
    subnets = default_subnets(model)
    assert [str(s) for s in subnets] == ['1.0x-32-4', '1.0x-24-2', '1.0x-16-2']
    given = []
    stock = seen_inputs._prepared

    def prepared(*args):
        batch = stock(*args)
        given.append(batch)
        return batch

    monkeypatch.setattr(seen_inputs, '_prepared', prepared)
    first, second = seen_samples(cfg, model, subnets, phase, 2)
    assert (first.name, first.label, second.label) == (
        '0',
        'class 0',
        'class 1',
    )
    step = 2 if kind == 'slowfast' else 1
    numbers = [[step * i for i in frames] for frames in ([0, 1, 2, 3], [1, 3])]
    assert [view.numbers for view in first.views] == [
        numbers[0],
        numbers[1],
        numbers[1],
    ]
    (inputs, samples), seen = given[0], []
    network = model.backbone
    conv = network.slow_path.conv1 if step == 2 else network.conv1

    def see(module, args):
        seen.append(args[0].detach())
        raise StopIteration

    hook = conv.register_forward_pre_hook(see)
    for view in first.views:  # what its first convolution gets
        batch = model.task.resize(model, inputs, samples, view.subnet)
        with pytest.raises(StopIteration), model.activate(view.subnet):
            model.train()(*batch, mode='tensor')
        expected = seen.pop()[0].movedim(0, -1)
        mean, std = np.array([110, 100, 90]), np.array([60, 50, 40])
        expected = (expected.numpy() * std + mean).round().clip(0, 255)
        assert np.abs(view.frames.astype(int) - expected).max() <= 1
    hook.remove()


@pytest.mark.parametrize('phase', ['train', 'test'])
def test_boxes_of_persons(video_boxes, phase):
    """They follow the clips; in testing the given ones are all there is."""
    cfg, model, samples = video_boxes
    subnets = ['1.0x-64-4', '1.0x-40-2']
    (one,) = seen_samples(cfg, model, subnets, phase, 1)
    name = 'gt_instances' if phase == 'train' else 'proposals'
    boxes = samples[0].get(name).bboxes.numpy()
    for view, side in zip(one.views, (64, 40)):
        assert view.size == (side, side)
        assert view.objects.boxes == pytest.approx(boxes * side / 64)
    names = one.views[0].objects.names
    assert ['class 1' in name for name in names] == [True] * len(names)
    assert len(names) == (2 if phase == 'train' else 0)


@pytest.fixture
def video_boxes(enter_scope, monkeypatch):
    """A detector of actions, and a batch that stands for its data."""
    pytest.importorskip('mmaction')
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    enter_scope('mmaction')
    backbone = dict(
        type='mutualnet_mm.SlimmableResNet3dSlowOnly',
        depth=18,
        base_channels=16,
        conv1_kernel=(1, 7, 7),
        inflate=(0, 0, 1, 1),
    )
    settings = person_networks.config(backbone, 128)
    clips, samples = person_networks.batch(number=1, size=(64, 64))
    pixels = (clips * 30 + 120).clamp(0, 255).byte()
    batch = dict(inputs=list(pixels), data_samples=samples)
    monkeypatch.setattr(seen_inputs, 'build_dataset', lambda settings: None)
    monkeypatch.setattr(
        seen_inputs, 'calibration_batches', lambda *args: iter([batch])
    )
    cfg = Config(
        dict(
            default_scope='mmaction',
            model=settings,
            train_dataloader=dict(dataset=dict()),
            test_dataloader=dict(dataset=dict()),
        )
    )
    return cfg, build_model(cfg), samples


def test_what_cannot_be_browsed(classification):
    model = build_model(classification)
    with pytest.raises(ConfigError, match='no val_dataloader'):
        next(seen_samples(classification, model, ['1.0x-64'], 'val'))
    two = [classification.train_dataloader] * 2
    cfg = Config(dict(classification.to_dict(), test_dataloader=two))
    with pytest.raises(ConfigError, match='several test_dataloader'):
        next(seen_samples(cfg, model, ['1.0x-64'], 'test'))
    with pytest.raises(ConfigError, match='above the full 64'):
        next(seen_samples(classification, model, ['1.0x-65']))


def test_figure_of_boxes(detection):
    model = build_model(detection)
    (one,) = seen_samples(detection, model, ['1.0x-64', '1.0x-32'], number=1)
    figure = draw_sample(one)
    assert figure.get_suptitle() == 'train0'
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        '1.0x-64: 64 x 85 in 96 x 96, 2 boxes',
        '1.0x-32: 32 x 43 in 64 x 64, 2 boxes',
    ]
    for axes, view in zip(figure.axes, one.views):
        # The image and two masks; the edge of the padding and two boxes.
        assert len(axes.images) == 3
        edge, *boxes = (p for p in axes.patches if isinstance(p, Rectangle))
        assert (edge.get_width(), edge.get_height()) == view.size[::-1]
        drawn = [[*b.get_xy(), *b.get_bbox().p1] for b in boxes]
        assert np.array(drawn) == pytest.approx(view.objects.boxes)
        assert len({colors.to_hex(b.get_edgecolor()) for b in boxes}) == 2
        assert axes.get_xlim() == (0, view.frames.shape[2])


def test_figure_of_clips(video):
    cfg = video()
    model = build_model(cfg)
    one = next(seen_samples(cfg, model, default_subnets(model)))
    figure = draw_sample(one)
    assert figure.get_suptitle() == '0: class 0'
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        *(f'frame {i}' for i in range(4)),
        *('', 'frame 1', '', 'frame 3') * 2,
    ]
    rows = [row.get_suptitle() for row in figure.subfigs]
    assert rows[1] == '1.0x-24-2: 24 x 24, 2 frames'


def test_grey_images(classification):
    classification.model.backbone.in_channels = 1
    classification.model.data_preprocessor = dict(mean=[100.0], std=[50.0])
    dataset = classification.train_dataloader.dataset
    dataset.pipeline[0].color_type = 'grayscale'
    model = build_model(classification)
    one = next(seen_samples(classification, model, ['1.0x-32']))
    (frame,) = one.views[0].frames
    assert frame.shape == (32, 32, 3) and np.ptp(frame, axis=2).max() == 0
    assert abs(int(frame[-1, -1, 0]) - 29) <= 1  # how bright blue is


def test_tool(classification, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classification.dump('config.py')
    done = run_program(
        TOOL, 'config.py', '-o', 'seen', '-n', 3, '-p', 'test',
        '--subnet', '1.0x-64', '0.5x-32',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '2 pictures in seen'
    files = sorted(path.name for path in Path('seen').iterdir())
    assert files == ['0000_a.png', '0001_a.png']
    assert cv2.imread('seen/0000_a.png').shape[1] > 600
    for arguments, message in (
        (['-n', 0], '--number=0: use a whole number from 1'),
        (['-p', 'val'], 'the config has no val_dataloader'),
    ):
        done = run_program(TOOL, 'config.py', '-o', 'other', *arguments)
        assert done.returncode == 1 and message in done.stderr
        assert not Path('other').exists()


def test_subnets_without_frames_to_leave_out(classification):
    classification.model.mutual.resolution = (64,)
    model = build_model(classification)
    assert default_subnets(model) == [Subnet(1.0, 64)]
