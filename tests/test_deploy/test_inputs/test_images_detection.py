"""A detector's inputs are what stock data sets and inferencers deliver."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS

from mutualnet_mm import UsageError
from mutualnet_mm.deploy.inputs.pipeline import InputPipeline

pytest.importorskip('mmdet')

META = ('ori_shape', 'img_shape', 'scale_factor', 'pad_shape')
META += ('batch_input_shape',)
FULL, LONG_EDGE = 64, 107


@pytest.fixture
def cfg(detector_config, coco_dataset):
    """Its test pipeline loads boxes and masks, and names ``img_id``."""
    return Config(
        dict(
            default_scope='mmdet',
            model=detector_config(),
            test_dataloader=dict(dataset=coco_dataset('val')),
            visualizer=dict(type='DetLocalVisualizer', name='inputs'),
        )
    )


@pytest.fixture
def pipeline(cfg):
    return InputPipeline(cfg, MODELS.build(cfg.model))


@pytest.fixture
def files(tiny_coco):
    """Wide, high, square, beyond the long edge."""
    return [str(tiny_coco / f'val{i}.png') for i in range(6)]


def assert_same(found, expected, keys):
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1])
    for ours, stock in zip(found[1], expected[1]):
        assert type(ours) is type(stock)
        assert set(ours.metainfo_keys()) == set(keys)
        assert all(ours.get(key) == stock.get(key) for key in keys)


def test_files_as_the_test_set(cfg, files):
    model = MODELS.build(cfg.model)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = pseudo_collate([dataset[i] for i in range(6)])
    data = model.data_preprocessor(batch, False)
    pipeline = InputPipeline(cfg, model)
    expected = data['inputs'], data['data_samples']
    assert len(expected[1][0].gt_instances.bboxes) == 2
    found = pipeline(files)
    assert_same(found, expected, [*META, 'img_path'])
    assert not found[1][0].gt_instances.all_keys()
    one = pipeline(files[1])
    assert one[0].shape[2:] == (96, 64) == one[1][0].batch_input_shape


def test_arrays_as_the_stock_inferencer(cfg, pipeline, files):
    from mmdet.apis import DetInferencer

    stock = copy.deepcopy(cfg)
    model = stock.model
    model.update(type=model.pop('wraps'))
    del model['mutual']
    model.backbone.update(type=model.backbone.pop('wraps'))
    inferencer = DetInferencer(stock, device='cpu', show_progress=False)
    arrays = [cv2.imread(file) for file in files]
    arrays += [arrays[0][:, ::-1], arrays[3][5:, 3:, ::-1]]
    before = [array.copy() for array in arrays]
    _, batch = next(inferencer.preprocess(arrays, batch_size=len(arrays)))
    data = inferencer.model.data_preprocessor(batch, False)
    found = pipeline(arrays)
    expected = data['inputs'], data['data_samples']
    assert_same(found, expected, [*META, 'img_path'])
    assert all(map(np.array_equal, arrays, before))
    assert torch.equal(found[0][:6], pipeline(files)[0])


def normalised(model, array):
    """An original image as the data preprocessor would deliver it."""
    image = torch.from_numpy(array[..., ::-1].copy()).permute(2, 0, 1).float()
    preprocessor = model.data_preprocessor
    return (image - preprocessor.mean) / preprocessor.std


@pytest.mark.parametrize('index', range(6))
def test_tensors_are_original_images(index, cfg, files):
    model = MODELS.build(cfg.model).eval()
    pipeline = InputPipeline(cfg, model)
    array = cv2.imread(files[index])
    expected = pipeline(array)
    image = normalised(model, array)
    inputs, samples = pipeline(torch.stack([image, image.flip(2)]))
    assert len(samples) == 2 and samples[0] is not samples[1]
    assert_same((inputs, samples), (inputs, expected[1] * 2), META)
    assert inputs.shape == (2, *expected[0].shape[1:])
    # OpenCV rounds to whole levels.
    scale = model.data_preprocessor.std.min()
    assert (inputs[0] - expected[0][0]).abs().max() < 1 / scale
    h, w = samples[0].img_shape
    if (h, w) == image.shape[1:]:
        assert torch.equal(inputs[0, :, :h, :w], image)
    assert (inputs[..., h:, :] == 0).all() and (inputs[..., w:] == 0).all()
    flipped = inputs[1, :, :h, :w].flip(2)
    assert torch.allclose(flipped, inputs[0, :, :h, :w], atol=1e-4)
    assert torch.equal(pipeline(image)[0], inputs[:1])


def test_long_edge_binds_for_tensors_as_for_arrays(pipeline, files):
    array = cv2.imread(files[3])
    assert array.shape[1] / array.shape[0] > LONG_EDGE / FULL
    assert pipeline(array)[1][0].img_shape == (63, LONG_EDGE)
    tensor = torch.zeros(3, *array.shape[:2])
    assert pipeline(tensor)[1][0].img_shape == (63, LONG_EDGE)


def test_one_number_bounds_both_edges(cfg, files):
    cfg.test_dataloader.dataset.pipeline[1].scale = FULL
    cfg.model.mutual.resolution = (FULL, 48)
    square = InputPipeline(cfg, MODELS.build(cfg.model))
    cfg.test_dataloader.dataset.pipeline[1].scale = (FULL, FULL)
    pair = InputPipeline(cfg, MODELS.build(cfg.model))
    for given in (files[2], torch.zeros(3, 96, 96)):
        found, expected = square(given), pair(given)
        assert torch.equal(found[0], expected[0])
        assert found[1][0].img_shape == (FULL, FULL)


@pytest.mark.parametrize('index', [0, 1, 3])
def test_tensors_are_padded_as_images(index, cfg, files):
    """To a square, by the step's own value, which is normalised."""
    steps = cfg.test_dataloader.dataset.pipeline
    steps[1].scale = (FULL, FULL)
    steps.insert(2, dict(type='Pad', size=(FULL, FULL), pad_val=114))
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    array = cv2.imread(files[index])
    expected, (stock,) = pipeline(array)
    found, (sample,) = pipeline(normalised(model, array))
    assert found.shape == expected.shape == (1, 3, FULL, FULL)
    assert all(sample.get(key) == stock.get(key) for key in META)
    assert stock.img_shape == (FULL, FULL) != stock.ori_shape
    h, w = (int(side * FULL / max(array.shape) + 0.5)
            for side in array.shape[:2])  # fmt: skip
    assert torch.equal(found[..., h:, :], expected[..., h:, :])
    assert torch.equal(found[..., w:], expected[..., w:])
    # OpenCV shrinks without anti-aliasing.
    assert (found - expected).abs().mean() < 0.1


def test_tensors_inside_of_a_canvas(cfg, files):
    """As CornerNet and CenterNet test images, at their own size."""
    steps = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader.dataset.pipeline = [
        dict(steps[0], to_float32=True),
        dict(
            type='RandomCenterCropPad',
            crop_size=None,
            ratios=None,
            border=None,
            test_mode=True,
            test_pad_mode=['logical_or', 31],
            test_pad_add_pix=1,
            mean=[110.0, 100.0, 90.0],
            std=[1.0, 1.0, 1.0],
            to_rgb=False,
        ),
        dict(
            type='PackDetInputs',
            meta_keys=('ori_shape', 'img_shape', 'border'),
        ),
    ]
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    array = cv2.imread(files[3])
    expected, (stock,) = pipeline(array)
    found, (sample,) = pipeline(normalised(model, array))
    assert tuple(found.shape[2:]) == sample.img_shape == (64, 96)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert sample.border.tolist() == stock.border.tolist()


def test_boxes_are_in_the_coordinates_of_the_tensor(cfg, files):
    model = MODELS.build(cfg.model).eval()
    model.roi_head.test_cfg.score_thr = 0.0
    pipeline = InputPipeline(cfg, model)
    image = normalised(model, cv2.imread(files[0]))
    small = model(*pipeline(image), mode='predict')[0].pred_instances.bboxes
    enlarged = image.repeat_interleave(4, 1).repeat_interleave(4, 2)
    large = model(*pipeline(enlarged), mode='predict')[0].pred_instances.bboxes
    assert len(small) and len(large)
    assert 80 >= small[:, 2].max() > 40 and 60 >= small[:, 3].max() > 30
    assert 320 >= large[:, 2].max() > 160 and 240 >= large[:, 3].max() > 120


def test_subnets_get_their_sizes(cfg, files):
    """What the task asks of a sample is there for tensors as well."""
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    tensor = torch.zeros(2, 3, 60, 80)
    for given in (files[0], tensor):
        _, samples = model.task.resize(
            model, *pipeline(given), model.sampler.choose(['0.5x-48'])[0]
        )
        assert samples[0].img_shape == (48, 64)
        assert samples[0].pad_shape == (64, 64)


def test_every_size_made_in_the_pipeline(cfg, files):
    steps = cfg.test_dataloader.dataset.pipeline
    resize, load_truth, pack = steps[1:]
    steps[1:] = [
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(FULL, 48),
            resize=resize,
            transforms=[load_truth, pack],
        )
    ]
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    data = model.data_preprocessor(pseudo_collate([dataset[3]]), False)
    subnet = model.sampler.choose(['0.5x-48'])[0]
    found = pipeline(files[3])
    expected = data['inputs'], data['data_samples']
    assert torch.equal(found[0], expected[0])
    for batch in (found, expected):
        made, samples = model.task.resize(model, *batch, subnet)
        assert samples[0].img_shape == (48, 82)
        assert made.shape == (1, 3, 64, 96)
    tensor = torch.zeros(3, 45, 77)
    assert pipeline(tensor)[1][0].img_shape == (63, LONG_EDGE)


def test_nothing_that_is_for_training(cfg, pipeline, files):
    expected = pipeline(files)[0]
    cfg.model.data_preprocessor.batch_augments = [
        dict(type='BatchFixedSizePad', size=(160, 160))
    ]
    again = InputPipeline(cfg, MODELS.build(cfg.model))
    assert torch.equal(again(files)[0], expected)


def test_no_load_step(cfg, files):
    del cfg.test_dataloader.dataset.pipeline[0]
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    assert pipeline(cv2.imread(files[0]))[1][0].ori_shape == (60, 80)
    with pytest.raises(UsageError, match='CocoDataset, holds arrays'):
        pipeline(files[0])


WRONG = {
    'grey': (np.zeros((60, 80), np.uint8), r'\(60, 80\): give \(H, W, 3\)'),
    'broken': (__file__, 'cannot be read .*: give the path of an image file'),
    'channels': (torch.zeros(60, 80), r'shape \(60, 80\) was given'),
}


@pytest.mark.parametrize('case', sorted(WRONG))
def test_what_is_refused(case, pipeline):
    given, match = WRONG[case]
    with pytest.raises(UsageError, match=match) as caught:
        pipeline(given)
    assert '\n' not in str(caught.value)


def test_pipeline_of_another_size(cfg):
    cfg.test_dataloader.dataset.pipeline[1].scale = (LONG_EDGE, 48)
    model = MODELS.build(cfg.model)
    with pytest.raises(UsageError, match=r'Resize of \(107, 48\), but .* 64'):
        InputPipeline(cfg, model)
