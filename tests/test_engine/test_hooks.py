import gc
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import Compose, ConcatDataset
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import Dataset

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.engine import BNCalibrationHook
from mutualnet_mm.engine.hooks import calibration_batches

SHUFFLED = dict(type='DefaultSampler', shuffle=True)
ENDLESS = dict(type='InfiniteSampler', shuffle=True)
BY_RATIO = dict(type='AspectRatioBatchSampler')


@pytest.fixture
def make_runner(coco_dataset, enter_scope):
    """As much of a runner as the hook may use."""
    enter_scope('mmdet')

    def make(steps=None, **loader):
        loader.setdefault('sampler', SHUFFLED)
        loader.update(
            batch_size=2, num_workers=0, dataset=coco_dataset('train', steps)
        )
        return SimpleNamespace(
            cfg=ConfigDict(train_dataloader=loader),
            build_dataloader=Runner.build_dataloader,
            seed=0,
        )

    return make


def image_ids(batches):
    return [s.img_id for batch in batches for s in batch['data_samples']]


@pytest.mark.parametrize(
    'loader',
    [
        dict(sampler=SHUFFLED),
        dict(sampler=ENDLESS),
        dict(sampler=SHUFFLED, batch_sampler=BY_RATIO),
    ],
    ids=['shuffled', 'endless', 'by ratio'],
)
def test_the_same_batches_on_every_call(make_runner, loader):
    runner, hook = make_runner(**loader), BNCalibrationHook(num_batches=2)
    first = image_ids(hook.batches(runner))
    assert len(first) == 4 and first != sorted(first)
    assert image_ids(hook.batches(runner)) == first
    assert image_ids(BNCalibrationHook(2).batches(runner)) == first


def test_stops_with_the_data(make_runner):
    batches = list(BNCalibrationHook(num_batches=50).batches(make_runner()))
    assert sorted(image_ids(batches)) == [0, 1, 2, 3, 4, 5]


def in_order(dataset):
    """A data loader of single images that are not shuffled."""
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dataset,
    )


def test_own_dataloader_goes_first(make_runner, coco_dataset):
    own = in_order(coco_dataset('val'))
    hook = BNCalibrationHook(num_batches=1, dataloader=own)
    (batch,) = hook.batches(make_runner())
    assert '/val' in batch['data_samples'][0].img_path


def test_shuffled_whatever_the_sampler_is_told(make_runner, coco_dataset):
    """The first images of a folder may show one thing alone."""
    own = in_order(coco_dataset('train'))
    hook = BNCalibrationHook(num_batches=3, dataloader=own)
    runner = make_runner()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert image_ids(hook.batches(runner)) == order[:3].tolist()
    assert own['sampler'] == dict(type='DefaultSampler', shuffle=False)


def test_the_config_is_not_changed(make_runner):
    runner = make_runner(persistent_workers=True)
    runner.cfg.train_dataloader.persistent_workers = False
    before = runner.cfg.to_dict()
    list(BNCalibrationHook(num_batches=1).batches(runner))
    assert runner.cfg.to_dict() == before


def test_no_dataloader(make_runner):
    runner = make_runner()
    runner.cfg.train_dataloader = None
    with pytest.raises(ConfigError, match='train_dataloader'):
        list(BNCalibrationHook().batches(runner))


@pytest.mark.parametrize('number', [0, -1, 1.5, '8'])
def test_number_of_batches(number):
    with pytest.raises(UsageError) as error:
        BNCalibrationHook(num_batches=number)
    assert f'num_batches={number!r}' in str(error.value)


def test_images_that_are_not_there(make_runner):
    """Who only tests cannot know what images of the training are for."""
    hook = BNCalibrationHook()
    cfg = make_runner().cfg
    cfg.train_dataloader.dataset.data_root = '/nowhere'
    cfg.train_dataloader.dataset.ann_file = 'none.json'
    with pytest.raises(UsageError, match='are calibrated on .* cannot be'):
        next(hook.batches_of(cfg))


def test_a_dataloader_of_nothing():
    """It does not stand for the training data."""
    with pytest.raises(UsageError, match=r'dataloader=\{\} has no dataset'):
        BNCalibrationHook(dataloader={})


def test_is_registered():
    hook = HOOKS.build(dict(type='mutualnet_mm.BNCalibrationHook'))
    assert isinstance(hook, Hook) and hook.num_batches == 32


def random_states():
    states = random.getstate(), np.random.get_state()[1].tolist()
    return (*states, torch.get_rng_state().tolist())


def make_loader(dataset, **settings):
    return dict(
        dict(
            batch_size=2,
            num_workers=0,
            sampler=SHUFFLED,
            dataset=dataset,
        ),
        **settings,
    )


class Numbers(Dataset):
    """Draws from every source, and counts its copies."""

    copies = 0

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return i, random.random(), np.random.rand(), torch.rand(1).item()

    def __deepcopy__(self, memo):
        Numbers.copies += 1
        return self


def test_random_numbers_of_others_are_as_before(enter_scope):
    """Also while batches are used, and whatever ends that."""
    before = random_states()
    loader = make_loader(Numbers())
    whole = list(calibration_batches(loader, 4))
    assert random_states() == before
    rest = calibration_batches(loader, 4)
    next(rest)
    assert random_states() == before
    random.random(), np.random.rand(), torch.rand(1)  # of the consumer
    assert [next(rest) for _ in range(3)] == whole[1:]
    with pytest.raises(ZeroDivisionError):
        for _ in calibration_batches(loader, 4):
            raise ZeroDivisionError
    abandoned = calibration_batches(loader, 4)
    next(abandoned)
    random.seed(7)
    expected = random.random()
    random.seed(7)
    del abandoned
    gc.collect()  # nothing sets an old state back
    assert random.random() == expected


def test_the_live_data_set_is_read(make_runner, coco_dataset, tmp_path):
    """Without a copy; a pipeline that was switched is the one in use."""
    Numbers.copies = 0
    loader = make_loader(Numbers())
    list(calibration_batches(loader, 2))
    assert Numbers.copies == 0
    runner, hook = make_runner(), BNCalibrationHook(num_batches=1)
    dataset = DATASETS.build(coco_dataset('train'))
    dataset.full_init()
    loop = object.__new__(IterBasedTrainLoop)
    loop.dataloader = SimpleNamespace(dataset=dataset)
    runner._train_loop = loop
    (batch,) = hook.batches(runner)
    assert hook._dataset is None
    transforms = dataset.pipeline.transforms
    dataset.pipeline = Compose([*transforms, lambda results: {'found': 1}])
    (switched,) = hook.batches(runner)
    assert switched == {'found': [1, 1]} and batch.keys() != switched.keys()


class Remembering:
    """A transform with state, as a cached mosaic."""

    def __init__(self, others=None):
        self.cache = []
        self.others = [others]

    def __call__(self, results):
        self.cache.append(1)
        return results


def test_transforms_of_the_training_remember_nothing(coco_dataset):
    pytest.importorskip('mmdet')
    dataset = DATASETS.build(dict(coco_dataset('train'), _scope_='mmdet'))
    dataset.full_init()
    Numbers.copies = 0
    transform = Remembering(Numbers())
    dataset.pipeline.transforms.append(transform)
    wrapper = ConcatDataset([dataset])
    list(calibration_batches(make_loader(wrapper), 2))
    assert transform.cache == [] and Numbers.copies == 0
