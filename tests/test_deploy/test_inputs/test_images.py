"""A classifier's inputs are what stock data sets and inferencers deliver."""

import subprocess
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

pytest.importorskip('mmpretrain')

SIZE = 64
# Height and width, and the suffix of the file.
PICTURES = [
    (70, 90, 'png'),
    (120, 65, 'jpg'),
    (64, 64, 'png'),
    (40, 50, 'bmp'),
]
PREPROCESSOR = dict(
    mean=[123.675, 116.28, 103.53], std=[58.4, 57.1, 57.4], to_rgb=True
)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=72, edge='short'),
    dict(type='CenterCrop', crop_size=SIZE),
    dict(type='PackInputs'),
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """One picture of each class, in a folder of its own; one is grey."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i, (h, w, suffix) in enumerate(PICTURES):
        shape = (h, w) if i == 2 else (h, w, 3)
        (root / str(i)).mkdir()
        file = root / str(i) / f'{i}.{suffix}'
        assert cv2.imwrite(str(file), rng.integers(0, 256, shape, np.uint8))
    return root


@pytest.fixture
def files(folder):
    return sorted(folder.glob('*/*'))


@pytest.fixture
def make_config(classifier_config, folder):
    def make(pipeline=PIPELINE, **dataset):
        dataset = dict(
            dict(type='CustomDataset', data_root=str(folder)), **dataset
        )
        return Config(
            dict(
                default_scope='mmpretrain',
                model=dict(
                    classifier_config(), data_preprocessor=PREPROCESSOR
                ),
                test_dataloader=dict(dataset=dict(dataset, pipeline=pipeline)),
            )
        )

    return make


@pytest.fixture
def cfg(make_config):
    return make_config()


@pytest.fixture
def pipeline(cfg):
    return InputPipeline(cfg, MODELS.build(cfg.model))


def stock_batch(cfg, model):
    """What the loop makes of the whole test set."""
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    batch = pseudo_collate([dataset[i] for i in range(len(dataset))])
    data = model.data_preprocessor(batch, False)
    return data['inputs'], data['data_samples']


def assert_same(found, expected, but=()):
    """Whether two batches are the same, but for fields that are named."""
    assert found[0].dtype == expected[0].dtype
    assert torch.equal(found[0], expected[0])
    assert len(found[1]) == len(expected[1])
    for ours, stock in zip(found[1], expected[1]):
        assert type(ours) is type(stock)
        kept = set(stock.all_keys()) - set(but)
        assert set(ours.all_keys()) - set(but) == kept
        assert all(ours.get(key) == stock.get(key) for key in kept)


def test_files_as_the_test_set(cfg, files):
    model = MODELS.build(cfg.model)
    pipeline = InputPipeline(cfg, model)
    expected = stock_batch(cfg, model)
    assert expected[0].shape == (len(PICTURES), 3, SIZE, SIZE)
    unknown = ('gt_label', 'sample_idx')
    assert_same(pipeline([str(f) for f in files]), expected, unknown)
    assert_same(pipeline(files), expected, unknown)
    assert_same(pipeline(tuple(files)), expected, unknown)
    one = pipeline(files[1])
    assert_same(one, (expected[0][1:2], expected[1][1:2]), unknown)
    assert {'img_path', 'ori_shape'} <= set(one[1][0].all_keys())


def test_images_that_are_loaded_as_floats(make_config, files):
    """An array is resized as its file is, which rounds in another way."""
    load, *rest = PIPELINE
    cfg = make_config([dict(load, to_float32=True), *rest])
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    found = pipeline([str(file) for file in files])[0]
    assert torch.equal(pipeline(arrays_of(files))[0], found)


def arrays_of(files):
    return [cv2.imread(str(file)) for file in files]


def test_arrays_as_the_stock_inferencer(cfg, pipeline, files):
    """Colours, grey ones, and views that are not contiguous."""
    from mmpretrain import ImageClassificationInferencer

    stock = cfg.copy()
    stock.model = dict(
        type='ImageClassifier',
        backbone=dict(type='ResNet', depth=18),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=512),
        data_preprocessor=PREPROCESSOR,
    )
    inferencer = ImageClassificationInferencer(
        stock, pretrained=False, device='cpu'
    )
    arrays = arrays_of(files)
    arrays += [cv2.imread(str(files[0]), cv2.IMREAD_GRAYSCALE)]
    arrays += [arrays[0][:, ::-1], arrays[1][5:, 3:, ::-1]]
    before = [array.copy() for array in arrays]
    inputs, samples = [], []
    for batch in inferencer.preprocess(arrays):
        data = inferencer.model.data_preprocessor(batch, False)
        inputs.append(data['inputs'])
        samples.extend(data['data_samples'])
    assert_same(pipeline(arrays), (torch.cat(inputs), samples))
    assert all(map(np.array_equal, arrays, before))


def test_ways_to_give_arrays(pipeline, files):
    arrays = arrays_of(files)
    expected = pipeline([str(file) for file in files])[0]
    assert torch.equal(pipeline(arrays)[0], expected)
    assert torch.equal(pipeline(arrays[1])[0], expected[1:2])
    stacked = np.stack([arrays[0], arrays[0][::-1]])
    two = pipeline(stacked)[0]
    assert torch.equal(two, pipeline(list(stacked))[0])
    assert torch.equal(two[:1], expected[:1])
    assert not torch.equal(two[1:], expected[:1])


def test_arrays_of_no_load_step(make_config, files):
    """As from CIFAR: the colours stay as the data set has them."""
    cfg = make_config(PIPELINE[1:], type='CIFAR100')
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    arrays = arrays_of(files)
    found = pipeline([array[..., ::-1] for array in arrays])[0]
    mean, std = (
        torch.tensor(PREPROCESSOR[key]).view(3, 1, 1)
        for key in ('mean', 'std')
    )
    with_loading = make_config()
    reference = InputPipeline(with_loading, MODELS.build(with_loading.model))
    raw = reference(arrays)[0] * std + mean
    torch.testing.assert_close(found * std + mean, raw.flip(1))
    with pytest.raises(UsageError, match='CIFAR100, holds arrays'):
        pipeline(files[0])


def test_tensors(pipeline, files):
    from mmpretrain.structures import DataSample

    expected = pipeline(files)[0]
    for given in (expected, expected.double()):
        inputs, samples = pipeline(given)
        assert inputs.dtype == torch.float32 and torch.equal(inputs, expected)
        assert [type(sample) for sample in samples] == [DataSample] * 4
    inputs, samples = pipeline(expected[1].clone().requires_grad_())
    assert torch.equal(inputs, expected[1:2]) and len(samples) == 1
    assert not inputs.requires_grad
    assert len({id(sample) for sample in pipeline(expected)[1]}) == 4


def test_several_test_sets_and_wrappers(cfg, files):
    other = [PIPELINE[0], dict(type='Resize', scale=SIZE), PIPELINE[-1]]
    dataset = cfg.test_dataloader.dataset
    model = MODELS.build(cfg.model)
    expected = InputPipeline(cfg, model)(files)[0]
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dataset, dict(dataset, pipeline=other)]
    )
    assert torch.equal(InputPipeline(cfg, model)(files)[0], expected)
    cfg.test_dataloader.dataset.datasets.reverse()
    assert not torch.equal(InputPipeline(cfg, model)(files)[0], expected)


def test_truth_is_not_loaded(make_config, files, monkeypatch):
    """Steps that would ask for what only a data set knows."""
    from mmpretrain.registry import TRANSFORMS

    @TRANSFORMS.register_module(force=True)
    class LoadTheseAnnotations:
        def __call__(self, results):
            return dict(results, gt_label=results['known'])

    steps = [*PIPELINE[:-1], dict(type='LoadTheseAnnotations'), PIPELINE[-1]]
    cfg = make_config(steps)
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    assert 'gt_label' not in pipeline(files)[1][0]


def test_threads(pipeline, files):
    arrays = arrays_of(files)
    jobs = [(i, given) for i in range(4) for given in (files, arrays)] * 8
    expected = pipeline(files)[0]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda job: pipeline(job[1][job[0]])[0][0], jobs)
        for (i, _), inputs in zip(jobs, found):
            assert torch.equal(inputs, expected[i])


def test_other_scopes_and_another_device(cfg, files):
    """Later nothing is looked up any more, and the model may have moved."""
    from mmengine.registry import DefaultScope

    model = MODELS.build(cfg.model)
    DefaultScope.get_instance('earlier', scope_name='mmengine')
    pipeline = InputPipeline(cfg, model)
    expected = pipeline(files)[0]
    DefaultScope.get_instance('later', scope_name='mmengine')
    assert torch.equal(pipeline(files)[0], expected)
    model.to('meta')
    assert pipeline(expected)[0].device.type == 'meta'


def test_a_batch_of_several_sizes(make_config, monkeypatch):
    """Zeros that are added to an image change what is pooled of it."""
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.deploy.inputs.pipeline.print_log',
        lambda text, **_: said.append(text),
    )
    edge = dict(PIPELINE[1], scale=SIZE)
    cfg = make_config([PIPELINE[0], edge, PIPELINE[-1]])
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    images = [np.zeros((SIZE, side, 3), np.uint8) for side in (SIZE, 90)]
    pipeline(images[:1] * 2)
    assert said == []
    for _ in range(2):
        assert pipeline(images)[0].shape[-2:] == (SIZE, 90)
    assert len(said) == 1 and 'inputs of 2 sizes' in said[0]


def test_a_tensor_in_the_scope_of_another_project(make_config, files):
    """Its size is that of the test crops, whichever steps are known now."""
    from mmengine.registry import DefaultScope

    steps = [*PIPELINE[:1], dict(type='Resize', scale=80), PIPELINE[-1]]
    cfg = make_config(steps)
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    DefaultScope.get_instance('later', scope_name='mmaction')
    assert pipeline.tensor_shape((64, 64)) == (3, 80, 80)
    assert pipeline(torch.zeros(1, 3, 80, 80))[0].shape[-1] == 80


BROKEN = {
    'missing.png': (None, 'No such file'),
    'empty.png': (b'', r'\(it is not an image, or a broken one\)'),
    'text.jpg': (b'404 not found', r'\(it is not an image, or a broken one\)'),
    'folder.png': ('folder', 'Is a directory'),
}


@pytest.mark.parametrize('name', sorted(BROKEN))
def test_files_that_cannot_be_read(name, pipeline, files, tmp_path):
    content, reason = BROKEN[name]
    file = tmp_path / name
    if content == 'folder':
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=reason) as caught:
        pipeline([files[0], file])
    message = str(caught.value)
    assert repr(str(file)) in message and 'give the path of' in message
    assert '\n' not in message


def test_files_that_a_step_would_leave_out(make_config, tmp_path):
    steps = [dict(PIPELINE[0], ignore_empty=True), *PIPELINE[1:]]
    cfg = make_config(steps)
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    (tmp_path / 'empty.png').write_bytes(b'')
    with pytest.raises(UsageError, match='it is not an image, or a broken'):
        pipeline(tmp_path / 'empty.png')


def pixels(*shape, dtype=np.uint8):
    return np.zeros(shape, dtype)


WRONG = {
    'nothing': ([], 'no image was given'),
    'no tensor': (torch.zeros(0, 3, SIZE, SIZE), r'shape \(0, 3, 64, 64\)'),
    'no array': (pixels(0, 9, 9, 3), 'no image was given'),
    'float': (
        pixels(9, 9, 3, dtype=np.float32),
        '1 of 1 is .* float32.*uint8',
    ),
    'second': ([pixels(9, 9, 3), pixels(9, 9, 4)], r'2 of 2 .*\(9, 9, 4\)'),
    'channels first': (
        pixels(3, 9, 9),
        r'\(3, 9, 9\): give \(H, W, 3\) in BGR',
    ),
    'no pixels': (pixels(0, 9, 3), r'shape \(0, 9, 3\)'),
    'a line': (pixels(9), r'shape \(9,\)'),
    'clips': (pixels(1, 2, 9, 9, 3), r'shape \(1, 2, 9, 9, 3\)'),
    'kinds': (['a.png', pixels(9, 9, 3)], 'arrays and files were given toge'),
    'tensors': ([torch.zeros(3, SIZE, SIZE)], 'torch.stack'),
    'number': (3, 'given as int: give the path .* in BGR order'),
    'none': ([None], 'images cannot be given as NoneType'),
    'bytes': (torch.zeros(3, SIZE, SIZE).byte(), 'torch.uint8 .*normalised'),
    'dimensions': (torch.zeros(SIZE, SIZE), r'\(64, 64\).*give \(3, H, W\)'),
    'channels': (torch.zeros(2, 1, SIZE, SIZE), r'\(2, 1, 64, 64\)'),
    'channels last': (torch.zeros(SIZE, SIZE, 3), r'\(64, 64, 3\)'),
    'size': (torch.zeros(1, 3, 48, 48), 'tensor is 48 x 48: give 64 x 64'),
    'no square': (torch.zeros(1, 3, 64, 48), 'tensor is 64 x 48: give 64'),
}


@pytest.mark.parametrize('case', sorted(WRONG))
def test_what_is_refused(case, pipeline):
    given, match = WRONG[case]
    with pytest.raises(UsageError, match=match) as caught:
        pipeline(given)
    assert '\n' not in str(caught.value)


def test_pipeline_of_another_size(make_config, files):
    steps = [
        *PIPELINE[:2],
        dict(type='CenterCrop', crop_size=48),
        PIPELINE[-1],
    ]
    cfg = make_config(steps)
    model = MODELS.build(cfg.model)
    with pytest.raises(UsageError, match=r'CenterCrop of 48, but .* is 64'):
        InputPipeline(cfg, model)
    # A size that no step names shows in the images.
    del cfg.model['mutual']
    pipeline = InputPipeline(cfg, model)
    with pytest.raises(UsageError, match='48 x 48 .* full resolution is 64'):
        pipeline(files)


def test_grey_that_nothing_makes_coloured(cfg):
    del cfg.model['data_preprocessor']
    pipeline = InputPipeline(cfg, MODELS.build(cfg.model))
    with pytest.raises(UsageError, match=r'shape \(70, 90\)'):
        pipeline(pixels(70, 90))


@pytest.mark.parametrize('missing', ['test_dataloader', 'pipeline'])
def test_no_test_pipeline(missing, cfg):
    model = MODELS.build(cfg.model)
    (cfg if missing in cfg else cfg.test_dataloader.dataset).pop(missing)
    with pytest.raises(UsageError, match='no test_dataloader.dataset.pipel'):
        InputPipeline(cfg, model)


@pytest.mark.subprocess
def test_other_projects_are_not_needed(cfg, files):
    """With neither mmdet nor mmaction2 there."""
    source = f"""
import sys
sys.modules.update(mmdet=None, mmaction=None)
from mmengine.config import Config
from mutualnet_mm.apis import build_model
from mutualnet_mm.deploy.inputs.pipeline import InputPipeline
cfg = Config({cfg.to_dict()!r})
pipeline = InputPipeline(cfg, build_model(cfg))
inputs, _ = pipeline({[str(file) for file in files]!r})
assert inputs.shape == (4, 3, 64, 64)
assert pipeline(inputs)[0].shape == (4, 3, 64, 64)
"""
    done = subprocess.run(
        [sys.executable, '-c', source], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
