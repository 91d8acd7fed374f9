import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError, Subnet

pytest.importorskip('mmdet')
FULL = (1000, 600)
# Widest and highest of all, both sides of the ratio 5:3 where the long edge
# begins to bind, and those where rounding hides which edge binds.
EXTREME = [
    (60, 600),
    (600, 60),
    (600, 1000),
    (599, 1000),
    (1000, 600),
    (333, 500),
    (1, 1),
    (1000, 1668),
    (1200, 2001),
    (1668, 1000),
]


def random_sizes(number=200):
    rng = np.random.default_rng(0)
    sizes = []
    while len(sizes) < number:
        h, w = np.exp(rng.uniform(np.log(20), np.log(2500), 2)).astype(int)
        if max(h, w) <= 12 * min(h, w):
            sizes.append((int(h), int(w)))
    return EXTREME + sizes


def empty_image(shape):
    """Has the shape of an image, and no pixels that would take memory."""
    return np.lib.stride_tricks.as_strided(
        np.zeros(1, np.uint8), (*shape, 3), (0, 0, 0)
    )


def stock_shapes(shape, scale, monkeypatch):
    """What the stock Resize makes of an image, without resampling it."""
    from mmdet.datasets.transforms import Resize

    def resized(img, size, **kwargs):
        h, w = img.shape[:2]
        new = empty_image((size[1], size[0]))
        return new, size[0] / w, size[1] / h

    with monkeypatch.context() as patch:
        patch.setattr('mmcv.imresize', resized)
        patch.setattr(
            'mmcv.image.geometric.imresize',
            lambda img, size, **kwargs: resized(img, size)[0],
        )
        results = Resize(scale=scale, keep_ratio=True)(
            dict(img=empty_image(shape), img_shape=shape, ori_shape=shape)
        )
    return results['img_shape'], results['scale_factor']


def make_sample(shape, img_shape, scale_factor):
    from mmdet.structures import DetDataSample

    return DetDataSample(
        metainfo=dict(
            ori_shape=shape, img_shape=img_shape, scale_factor=scale_factor
        )
    )


def resized(model, shape, resolution, monkeypatch):
    """What the task makes of an image behind ``Resize(FULL)``."""
    sample = make_sample(shape, *stock_shapes(shape, FULL, monkeypatch))
    inputs = torch.zeros(1, 1, 1, 1).expand(1, 3, *sample.img_shape)
    return model.task.resize(model, inputs, [sample], Subnet(0.5, resolution))


def distance(a, b):
    return max(abs(x - y) for x, y in zip(a, b))


@pytest.mark.sweep(1)
@pytest.mark.parametrize('resolution', [480, 360, 240])
def test_sizes_of_the_rule(build_detector, monkeypatch, resolution):
    """Those of a ``Resize`` whose edges shrink together, within a pixel.

    Up to the ratio of the edges the long one does not bind, so that they are
    the paper's, too.
    """
    model = build_detector(dict(resolution=(600, 480, 360, 240)))
    small = (round(FULL[0] * resolution / FULL[1]), resolution)
    equal = 0
    for shape in random_sizes():
        batch, (new,) = resized(model, shape, resolution, monkeypatch)
        expected, _ = stock_shapes(shape, small, monkeypatch)
        assert distance(new.img_shape, expected) <= 1, shape
        equal += new.img_shape == expected
        if max(shape) * 3 <= min(shape) * 5:
            paper, _ = stock_shapes(shape, (FULL[0], resolution), monkeypatch)
            assert distance(new.img_shape, paper) <= 1, shape
        factor = new.img_shape[1] / shape[1], new.img_shape[0] / shape[0]
        assert new.scale_factor == pytest.approx(factor, rel=1e-9)
        padded = tuple(-(-side // 32) * 32 for side in new.img_shape)
        assert new.pad_shape == new.batch_input_shape == padded
        assert batch.shape == (1, 3, *padded)
    assert equal > 0.75 * len(random_sizes())


def test_meta_equals_stock_pipeline_and_preprocessor(
    build_detector, load_batch, detection_pipeline
):
    """Of a batch: shapes and padding as if loaded at that resolution."""
    model = build_detector()
    full = model.data_preprocessor(load_batch((0, 1, 3)), True)
    inputs, samples = model.task.resize(
        model, *full.values(), Subnet(0.5, 48), with_truth=True
    )
    steps = detection_pipeline(scale=(80, 48))  # 107 * 48 / 64
    stock = model.data_preprocessor(load_batch((0, 1, 3), steps=steps), True)
    assert inputs.shape == stock['inputs'].shape
    for sample, expected in zip(samples, stock['data_samples']):
        for key in ('img_shape', 'pad_shape', 'batch_input_shape'):
            assert tuple(sample.get(key)) == tuple(expected.get(key)), key
        assert sample.scale_factor == pytest.approx(expected.scale_factor)
        assert sample.ori_shape == expected.ori_shape
        ours, theirs = sample.gt_instances, expected.gt_instances
        torch.testing.assert_close(
            plain(ours.bboxes),
            plain(theirs.bboxes),
            rtol=1e-4,
            atol=1e-3,
        )
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.masks.masks.shape == theirs.masks.masks.shape
        same = ours.masks.masks == theirs.masks.masks
        assert same.mean() > 0.97


def plain(boxes):
    return getattr(boxes, 'tensor', boxes)


def iou(a, b):
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    inner = (high - low).clip(0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return inner / (areas - inner)


def mask_boxes(masks):
    """Boxes of the pixels, or of the corners, of every mask."""
    boxes = []
    for mask in masks.masks:
        if isinstance(mask, np.ndarray):
            y, x = np.nonzero(mask)
            boxes.append((x.min(), y.min(), x.max() + 1, y.max() + 1))
        else:
            points = np.concatenate(mask).reshape(-1, 2)
            boxes.append((*points.min(0), *points.max(0)))
    return np.array(boxes, float)


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
@pytest.mark.parametrize('boxes_as', ['HorizontalBoxes', 'tensor'])
def test_boxes_and_masks_still_overlap(
    build_detector, load_batch, detection_pipeline, kind, boxes_as
):
    model = build_detector(dict(resolution=(640, 400)))
    steps = detection_pipeline(poly2mask=kind == 'bitmap', scale=(1067, 640))
    batch = load_batch((0, 1, 3, 5), steps=steps)
    model.data_preprocessor.boxtype2tensor = boxes_as == 'tensor'
    data = model.data_preprocessor(batch, True)
    before = copy.deepcopy(data)
    inputs, samples = model.task.resize(
        model, *data.values(), Subnet(0.5, 400), with_truth=True
    )
    for sample in samples[:-1]:
        truth = sample.gt_instances
        boxes = truth.bboxes
        assert (type(boxes) is torch.Tensor) == (boxes_as == 'tensor')
        boxes = plain(boxes).numpy()
        assert iou(mask_boxes(truth.masks), boxes).min() > 0.9
        limit = np.array(sample.img_shape[::-1] * 2)
        assert (boxes <= limit + 1e-3).all()
        size = (truth.masks.height, truth.masks.width)
        assert size == sample.batch_input_shape
    assert len(samples[-1].gt_instances) == 0
    # What came in is as it was.
    assert torch.equal(data['inputs'], before['inputs'])
    for old, new in zip(before['data_samples'], data['data_samples']):
        assert new.metainfo == old.metainfo
        a, b = old.gt_instances, new.gt_instances
        assert torch.equal(plain(a.bboxes), plain(b.bboxes))
        np.testing.assert_array_equal(mask_boxes(a.masks), mask_boxes(b.masks))


def test_ignored_instances_and_segmentation(build_detector, load_batch):
    from mmengine.structures import InstanceData, PixelData

    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    sample = data['data_samples'][0]
    (h, w), padded = sample.img_shape, sample.batch_input_shape
    sample.ignored_instances = InstanceData(
        bboxes=torch.tensor([[0.0, 0.0, w / 2, h / 4]])
    )
    seg = torch.full((1, *padded), 255)
    seg[:, :h, : w // 2], seg[:, :h, w // 2 : w] = 3, 7
    sample.gt_sem_seg = PixelData(sem_seg=seg)
    _, (new,) = model.task.resize(
        model, data['inputs'], [sample], Subnet(0.5, 48), with_truth=True
    )
    new_h, new_w = new.img_shape
    assert new.ignored_instances.bboxes.tolist() == [
        pytest.approx([0, 0, new_w / 2, new_h / 4])
    ]
    inside = new.gt_sem_seg.sem_seg[0, :new_h, :new_w]
    assert inside.dtype == seg.dtype
    assert set(inside.unique().tolist()) == {3, 7}
    assert (inside == 3).float().mean() == pytest.approx(0.5, abs=0.03)


def test_prediction_is_in_original_coordinates(build_detector, load_batch):
    """Boxes on the small image map to the original by its own factor."""
    model = build_detector().eval()
    data = model.data_preprocessor(load_batch((3,), split='val'), False)
    truth = copy.deepcopy(data['data_samples'][0].gt_instances)
    inputs, samples = model.task.resize(model, *data.values(), Subnet(1.0, 48))
    assert torch.equal(
        plain(samples[0].gt_instances.bboxes),
        plain(truth.bboxes),
    )
    stock = type(model).stock_class
    with torch.no_grad():
        small = stock.predict(
            model, inputs, copy.deepcopy(samples), rescale=False
        )[0].pred_instances
        found = model(inputs, samples, mode='predict')[0]
    ori_h, ori_w = found.ori_shape
    new_h, new_w = samples[0].img_shape
    factor = torch.tensor([ori_w / new_w, ori_h / new_h] * 2)
    torch.testing.assert_close(
        found.pred_instances.bboxes, small.bboxes * factor
    )
    assert found.pred_instances.masks.shape[1:] == (ori_h, ori_w)


def test_image_equals_interpolation_without_padding(
    build_detector, load_batch
):
    """The padding beside an image does not bleed into it."""
    model = build_detector()
    data = model.data_preprocessor(load_batch((0, 1)), True)
    other = data['inputs'].clone()
    for image, sample in zip(other, data['data_samples']):
        h, w = sample.img_shape
        image[:, h:], image[:, :, w:] = 1e6, 1e6
    small = [
        model.task.resize(model, x, data['data_samples'], Subnet(0.5, 48))[0]
        for x in (data['inputs'], other)
    ]
    assert torch.equal(*small)


@pytest.mark.parametrize('resolution', [64, 48, 33])
def test_a_fixed_canvas_is_scaled_as_a_whole(
    build_detector, load_batch, resolution
):
    """As large-scale jitter pads it; images keep their place inside."""
    model = build_detector(dict(resolution=(64, 48, 33)))
    augment = dict(type='BatchFixedSizePad', size=(128, 128), pad_mask=True)
    model.data_preprocessor.batch_augments = [MODELS.build(augment)]
    data = model.data_preprocessor(load_batch((0, 1)), True)
    assert tuple(data['inputs'].shape[2:]) == (128, 128)
    batch, samples = model.task.resize(
        model, *data.values(), Subnet(0.5, resolution), with_truth=True
    )
    side = {64: 128, 48: 96, 33: 96}[resolution]  # 66 pixels are padded
    assert tuple(batch.shape[2:]) == (side, side)
    for sample, old in zip(samples, data['data_samples']):
        assert sample.pad_shape == sample.batch_input_shape == (side, side)
        h, w = (round(x * resolution / 64) for x in old.img_shape)
        assert sample.img_shape == (h, w)
        masks = sample.gt_instances.masks
        assert (masks.height, masks.width) == (side, side)
        boxes = plain(sample.gt_instances.bboxes).numpy()
        assert iou(mask_boxes(masks), boxes).min() > 0.6  # coarse pixels


def test_padding_that_images_ask_for_is_made_anew(build_detector, load_batch):
    """64 x 85 and 85 x 64 fill 96 x 96 pixels, 32 x 43 fill 64 x 64."""
    model = build_detector(dict(resolution=(64, 32)))
    data = model.data_preprocessor(load_batch((0, 1)), True)
    assert tuple(data['inputs'].shape[2:]) == (96, 96)
    batch, samples = model.task.resize(model, *data.values(), Subnet(0.5, 32))
    assert tuple(batch.shape[2:]) == (64, 64)
    assert [s.img_shape for s in samples] == [(32, 43), (43, 32)]
    assert [s.pad_shape for s in samples] == [(32, 64), (64, 32)]


@pytest.mark.parametrize('size', [(64, 96), (64, 90)])
def test_images_that_fill_their_batch(build_detector, size):
    """One interpolation of all, as of each alone."""
    model = build_detector(dict(resolution=(64, 48)))
    model.data_preprocessor.pad_value = 7
    inputs = torch.randn(2, 3, *size)
    samples = [make_sample((32, 48), size, (2.0, 2.0)) for _ in inputs]
    batch, _ = model.task.resize(model, inputs, samples, Subnet(1.0, 48))
    h, w = 48, round(size[1] * 0.75 + 1e-9)
    expected = F.interpolate(
        inputs.double(), (h, w), mode='bilinear', antialias=True
    )
    torch.testing.assert_close(
        batch[..., :h, :w].double(), expected, rtol=0, atol=1e-4
    )
    assert tuple(batch.shape[2:]) == (64, 96)
    assert (batch[..., h:, :] == 7).all() and (batch[..., w:] == 7).all()


def test_factors_are_multiplied(build_detector):
    """A mosaic has no original shape that its factor would follow from."""
    model = build_detector(dict(resolution=(64, 32)))
    sample = make_sample((1000, 10), (64, 64), (0.5, 3.0))
    inputs = torch.zeros(1, 3, 64, 64)
    _, (new,) = model.task.resize(model, inputs, [sample], Subnet(0.5, 32))
    assert new.scale_factor == (0.25, 1.5)
    assert new.ori_shape == (1000, 10)


@pytest.mark.parametrize('kind', ['bitmap', 'polygon'])
def test_boxes_below_a_pixel_are_dropped(
    build_detector, load_batch, detection_pipeline, kind
):
    """As ``FilterAnnotations`` drops them; ignored ones, too."""
    from mmdet.datasets.transforms import FilterAnnotations
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData

    model = build_detector(dict(resolution=(64, 32)))
    steps = detection_pipeline(poly2mask=kind == 'bitmap')
    data = model.data_preprocessor(load_batch((0,), steps), True)
    (sample,) = data['data_samples']
    factor = torch.tensor([85 / 43, 2] * 2)  # of 64 x 85 pixels
    sides = [0.5, 1.9, 1.98, 2.0, 2.1]
    boxes = torch.tensor([[3, 3, 3 + a, 3 + b] for a in sides for b in sides])
    truth = sample.gt_instances
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.arange(len(boxes)),
        masks=truth.masks[[0, 1] * 12 + [0]],
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes), labels=torch.arange(len(boxes))
    )
    stock = FilterAnnotations()(
        dict(
            gt_bboxes=HorizontalBoxes(boxes / factor),
            gt_bboxes_labels=np.arange(len(boxes)),
        )
    )
    _, (new,) = model.task.resize(
        model, data['inputs'], [sample], Subnet(0.5, 32), with_truth=True
    )
    expected = stock['gt_bboxes_labels'].tolist()
    assert expected == [14, 19, 24]
    for instances in (new.gt_instances, new.ignored_instances):
        assert instances.labels.tolist() == expected
        torch.testing.assert_close(
            plain(instances.bboxes), stock['gt_bboxes'].tensor
        )
    assert len(new.gt_instances.masks) == len(expected)
    assert len(sample.gt_instances) == len(boxes)  # as it came


def test_an_image_may_lose_all_of_its_boxes(build_detector, load_batch):
    model = build_detector(dict(resolution=(64, 32)))
    data = model.data_preprocessor(load_batch((0, 1)), True)
    for sample in data['data_samples']:
        boxes = plain(sample.gt_instances.bboxes)
        boxes[:, 2:] = boxes[:, :2] + 1.5
    losses = model.loss(*data.values())
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)


def test_an_image_inside_of_a_canvas(build_detector):
    """CornerNet and CenterNet test it with a border, and no scale_factor."""
    model = build_detector(dict(resolution=(64, 48)))
    border = np.array([4.0, 60.0, 8.0, 120.0], np.float32)
    sample = make_sample((56, 112), (64, 128), (1.0, 1.0))
    del sample.scale_factor
    sample.set_metainfo(dict(border=border))
    inputs = torch.zeros(1, 3, 64, 128)
    model.task.check_test(model, inputs, [sample])
    _, (new,) = model.task.resize(model, inputs, [sample], Subnet(0.5, 48))
    assert new.border.tolist() == [3, 45, 6, 90]
    assert new.scale_factor == (0.75, 0.75)
    assert sample.border.tolist() == [4, 60, 8, 120]


WRONG = {
    'no size': (dict(ori_shape=(64, 64)), r'img_shape=None: PackDetInputs'),
    'beyond the batch': (dict(img_shape=(65, 64)), r'64 x 64 .*\(65, 64\)'),
}


@pytest.mark.parametrize('case', sorted(WRONG))
def test_samples_that_lost_their_image(build_detector, case):
    from mmdet.structures import DetDataSample

    meta, match = WRONG[case]
    model = build_detector()
    samples = [DetDataSample(metainfo=meta)]
    for check in (model.task.check_full, model.task.check_test):
        with pytest.raises(ConfigError, match=match) as error:
            check(model, torch.zeros(1, 3, 64, 64), samples)
        assert '\n' not in str(error.value)


def test_a_test_image_without_its_factor(build_detector):
    """Boxes could not be found in the original image."""
    from mmdet.structures import DetDataSample

    model, inputs = build_detector(), torch.zeros(1, 3, 64, 64)
    for original in ((32, 32), None):
        meta = dict(ori_shape=original, img_shape=(64, 64))
        if original is None:
            del meta['ori_shape']
        samples = [DetDataSample(metainfo=meta)]
        model.task.check_full(model, inputs, samples)
        with pytest.raises(ConfigError, match='without a scale_factor'):
            model.task.check_test(model, inputs, samples)
    samples[0].set_metainfo(dict(ori_shape=(64, 64, 3)))
    model.task.check_test(model, inputs, samples)


def test_masks_of_another_size_than_the_image(build_detector, load_batch):
    """As ``BatchSyncRandomResize`` leaves them."""
    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    (sample,) = data['data_samples']
    masks = sample.gt_instances.masks
    for size in ((masks.height * 2, masks.width * 2), (32, 32)):
        sample.gt_instances.masks = masks.resize(size)
        with pytest.raises(ConfigError, match='without its masks'):
            model.task.resize(
                model, *data.values(), Subnet(0.5, 48), with_truth=True
            )


@pytest.mark.parametrize('shape', [None, (64, 64), (48, 90)])
def test_input_shape(build_detector, shape):
    """Of an image that the pipeline delivers, by default of 480 x 640."""
    model = build_detector(dict(resolution=(64, 48, 33)))
    h, w = shape or (64, 85)
    for resolution in (64, 48, 33):
        sides = (int(x * resolution / 64 + 0.5) for x in (h, w))
        assert model.task.input_shape(
            model, Subnet(0.5, resolution), shape
        ) == (1, 3, *(-(-side // 32) * 32 for side in sides))
