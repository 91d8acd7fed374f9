"""Odd image files: read as the stock pipeline reads them, or one line."""

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS
from odd_images import (
    BROKEN,
    LONG,
    PERHAPS,
    READABLE,
    make_odd_images,
    not_utf8,
)

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.config import make_runner
from mutualnet_mm.datasets.named_files import NamingCompose, name_files
from mutualnet_mm.errors import UnreadableError

KINDS = ['classifier', 'detector']


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_odd_images(tmp_path_factory.mktemp('odd') / 'images')


@pytest.fixture(params=KINDS)
def net(request):
    cfg = nets.config(request.param, request)
    if request.param == 'classifier':
        steps = cfg.test_dataloader.dataset.pipeline
        steps.insert(1, dict(type='ResizeEdge', scale=36, edge='short'))
        steps.insert(2, dict(type='CenterCrop', crop_size=32))
    return AdaptiveModel(nets.file_of(cfg, nets.KINDS[request.param][1]))


def stock_batch(net, file):
    """What the stock steps of the test set make of a file, or None."""
    steps = Compose(
        [
            step
            for step in net.cfg.test_dataloader.dataset.pipeline
            if 'LoadAnnotations' not in step['type']
        ]
    )
    try:
        packed = steps(dict(img_path=str(file), img_id=0))
    except (cv2.error, AssertionError, OSError):
        return None
    batch = pseudo_collate([packed])
    return net.model.data_preprocessor(batch, False)['inputs']


def test_as_the_stock_pipeline(net, root):
    """Never anything else: equal pixels, or a line where it fails as well."""
    names = [root / name for name in READABLE + PERHAPS + BROKEN + LONG]
    names += filter(None, [not_utf8(root)])
    for file in names:
        expected = stock_batch(net, file)
        assert (expected is not None) or file.name not in READABLE, file
        assert (expected is None) or file.name not in BROKEN, file
        if expected is None:
            with pytest.raises(UnreadableError) as caught:
                net.prepare(file)
            text = str(caught.value)
            assert repr(str(file)) in text and '\n' not in text
        else:
            inputs, _ = net.prepare([file])
            assert torch.equal(inputs, expected), file


def test_every_subnet_predicts(net, root):
    for name in ['one_pixel.png', 'sixteen.png', 'exif.jpg', 'cmyk.jpg']:
        for entry in net.table.entries:
            net.use(entry.subnet)
            (sample,) = net(root / name)
            found = nets.outputs([sample])
            assert all(value.isfinite().all() for value in found.values())


def test_too_long_to_be_resized(root, request):
    """20,000 x 50 at a long edge of 107 is no pixel high."""
    net = AdaptiveModel(nets.adaptive_file('detector', request))
    given = [
        (root / 'wide.png', r"image '.*wide.png' of 50 x 20000 pixels"),
        (np.zeros((20000, 50, 3), np.uint8), 'image 1 of 1 of 20000 x 50'),
        (torch.zeros(1, 3, 50, 20000), 'a tensor of 50 x 20000'),
    ]
    for image, match in given:
        with pytest.raises(UnreadableError, match=match) as caught:
            net(image)
        assert 'OpenCV, resize: ' in str(caught.value)
        assert '\n' not in str(caught.value)
    # Errors of the program are left alone.
    net.inputs._reader._finish = lambda results: results['nothing']
    with pytest.raises(KeyError, match='nothing'):
        net(root / 'whole.png')


def test_others_are_not_lost(net, root, capfd):
    names = ['whole.png', 'empty.png', 'grey.png', 'text.jpg', 'whole.jpg']
    files = [root / name for name in names]
    for batch_size in (1, 2, 5):
        with pytest.raises(UnreadableError, match=r"'.*empty.png'"):
            net(files, batch_size)
        found = net(files, batch_size, skip_unreadable=True)
        assert [sample is None for sample in found] == [
            name in BROKEN for name in names
        ]
        for file, sample in zip(files, found):
            if sample is not None:
                assert sample.img_path == str(file)
    assert net(files[1], skip_unreadable=True) == [None]
    whole = [files[i] for i in (0, 2, 4)]
    expected = nets.outputs(net(whole))
    found = net(files, skip_unreadable=True)
    assert nets.same(nets.outputs(s for s in found if s), expected)
    # What is wrong with all of them is still an error.
    with pytest.raises(UsageError, match='given together'):
        net([files[0], np.zeros((9, 9, 3), np.uint8)], 2, skip_unreadable=True)


def test_arrays_are_counted_over_all_batches(net):
    good = np.zeros((40, 40, 3), np.uint8)
    with pytest.raises(UsageError, match='image 3 of 4 is an array of shape'):
        net([good, good, good[..., :2], good], batch_size=2)


@pytest.mark.parametrize(
    'name, workers',
    [('empty.png', 0), ('empty.png', 1), ('text.jpg', 0), ('folder.png', 0)],
)
def test_training_names_the_file(name, workers, root, make_config, tmp_path):
    """As one line, from the process that reads as well."""
    cfg = make_config()
    loader = cfg.train_dataloader
    loader.num_workers = workers
    lines = f'whole.png 0\n{name} 1\n'
    (tmp_path / 'list.txt').write_text(lines)
    loader.dataset.update(
        data_root=None,
        ann_file=str(tmp_path / 'list.txt'),
        data_prefix=str(root),
    )
    loader.dataset.pipeline.insert(1, dict(type='Resize', scale=32))
    nothing = dict.fromkeys(key for key in cfg if key.startswith('test_'))
    runner = make_runner(Config(dict(cfg, **nothing)))
    with pytest.raises(UnreadableError) as caught:
        runner.train()
    text = str(caught.value).rpartition('UnreadableError: ')[2].strip()
    assert '\n' not in text and repr(str(root / name)) in text
    assert 'replace the file, or take it out of the data set' in text


def test_tests_name_the_file(root, make_config, tmp_path):
    cfg = make_config()
    dataset = cfg.test_dataloader.dataset
    (tmp_path / 'list.txt').write_text('whole.png 0\nempty.png 1\n')
    dataset.update(
        data_root=None,
        ann_file=str(tmp_path / 'list.txt'),
        data_prefix=str(root),
    )
    dataset.pipeline.insert(1, dict(type='Resize', scale=32))
    nothing = dict.fromkeys(('train_dataloader', 'train_cfg', 'optim_wrapper'))
    runner = make_runner(Config(dict(cfg, **nothing)))
    runner.test_loop.recipe.dataloader = cfg.test_dataloader
    with pytest.raises(UnreadableError, match=r"'.*empty.png'.*it is empty"):
        runner.test()


def test_data_sets_inside_of_others(coco_dataset, root, detector_config):
    detector_config()  # enters mmdet
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(107, 64), keep_ratio=True),
        dict(type='PackDetInputs', meta_keys=()),
    ]
    dataset = DATASETS.build(
        dict(
            type='RepeatDataset',
            times=2,
            dataset=dict(
                type='ConcatDataset', datasets=[coco_dataset('train', steps)]
            ),
        )
    )
    name_files(dataset)
    inner = dataset.dataset.datasets[0]
    assert type(inner.pipeline) is NamingCompose
    assert dataset[0]['inputs'].shape == (3, 64, 85)
    with pytest.raises(UnreadableError, match=r"'.*high.png'.*resize"):
        inner.pipeline(dict(img_path=str(root / 'high.png')))
    with pytest.raises(KeyError):  # of the program
        inner.pipeline(dict(other=1))
