import copy
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mutualnet_mm import Subnet

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


@pytest.mark.parametrize('resolution', [480, 360, 240])
def test_shapes_equal_stock_resize(build_detector, monkeypatch, resolution):
    task = build_detector(dict(resolution=(600, 480, 360, 240))).task
    model = build_detector(dict(resolution=(600, 480, 360, 240)))
    wrong = []
    for shape in random_sizes():
        sample = make_sample(shape, *stock_shapes(shape, FULL, monkeypatch))
        expected, factor = stock_shapes(
            shape, (FULL[0], resolution), monkeypatch
        )
        try:
            batch, (new,) = task.resize(
                model,
                torch.zeros(1, 1, 1, 1).expand(1, 3, *sample.img_shape),
                [sample],
                Subnet(0.5, resolution),
            )
        except ValueError as error:
            wrong.append((shape, str(error)))
            continue
        padded = tuple(-(-side // 32) * 32 for side in expected)
        if not (
            new.img_shape == expected
            and new.scale_factor == pytest.approx(factor, rel=1e-9)
            and new.pad_shape == new.batch_input_shape == padded
            and batch.shape == (1, 3, *padded)
        ):
            wrong.append((shape, new.img_shape, expected))
    assert not wrong


def test_meta_equals_stock_pipeline_and_preprocessor(
    build_detector, load_batch, detection_pipeline
):
    """Of a batch: shapes and padding as if loaded at that resolution."""
    model = build_detector()
    full = model.data_preprocessor(load_batch((0, 1, 3)), True)
    inputs, samples = model.task.resize(
        model, *full.values(), Subnet(0.5, 48), with_truth=True
    )
    steps = detection_pipeline(scale=(107, 48))
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


def test_shapes_of_real_images(build_detector, monkeypatch):
    folder = os.environ.get('MUTUALNET_TINY_COCO')
    if not folder:
        pytest.skip('MUTUALNET_TINY_COCO names no folder of images')
    import cv2

    model = build_detector(dict(resolution=(600, 480, 360, 240)))
    files = sorted(Path(folder).rglob('*.jpg'))
    assert files
    for file in files:
        shape = cv2.imread(str(file)).shape[:2]
        sample = make_sample(shape, *stock_shapes(shape, FULL, monkeypatch))
        inputs = torch.zeros(1, 1, 1, 1).expand(1, 3, *sample.img_shape)
        for r in (480, 360, 240):
            expected = stock_shapes(shape, (FULL[0], r), monkeypatch)
            _, (new,) = model.task.resize(
                model, inputs, [sample], Subnet(0.5, r)
            )
            assert new.img_shape == expected[0], file.name
            assert new.scale_factor == pytest.approx(expected[1])


@pytest.mark.parametrize('indices, refused', [((0, 1), False), ((0, 3), True)])
def test_a_pipeline_of_a_smaller_size_shows_by_two_ratios(
    build_detector, load_batch, detection_pipeline, indices, refused
):
    """Sizes are remembered: a later batch can show that the first lied."""
    model = build_detector()
    steps = detection_pipeline(scale=(107, 56))
    for index in indices:
        data = model.data_preprocessor(load_batch((index,), steps), True)
        if refused and index == indices[-1]:
            with pytest.raises(ValueError, match='long edges'):
                model.task.check_full(model, **data)
        else:
            model.task.check_full(model, **data)


def test_testing_may_have_another_long_edge(
    build_detector, load_batch, detection_pipeline
):
    """Each stage has one ``L``; two in a stage are refused as before."""
    model = build_detector()
    task = model.task

    def data(long_edge):
        steps = detection_pipeline(scale=(long_edge, 64))
        return model.data_preprocessor(load_batch((3,), steps), True)

    train, test = data(90), data(80)
    shapes = [d['data_samples'][0].img_shape for d in (train, test)]
    assert [max(shape) for shape in shapes] == [90, 80]
    for _ in range(2):  # as epochs and validations take turns
        task.check_full(model, **train)
        task.check_test(model, **test)
    with pytest.raises(ValueError, match=r'long edges \[80, 90\]'):
        task.check_test(model, **train)
    task.check_full(model, **train)
    with pytest.raises(ValueError, match=r'long edges \[80, 90\]'):
        task.check_full(model, **test)
