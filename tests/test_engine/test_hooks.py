from types import SimpleNamespace

import pytest
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mutualnet_mm import ConfigError
from mutualnet_mm.engine import BNCalibrationHook

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


def test_own_dataloader_goes_first(make_runner, coco_dataset):
    own = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=coco_dataset('val'),
    )
    hook = BNCalibrationHook(num_batches=1, dataloader=own)
    (batch,) = hook.batches(make_runner())
    assert batch['data_samples'][0].img_path.endswith('val0.png')


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
    with pytest.raises(ConfigError) as error:
        BNCalibrationHook(num_batches=number)
    assert f'num_batches={number!r}' in str(error.value)


def test_is_registered():
    hook = HOOKS.build(dict(type='mutualnet_mm.BNCalibrationHook'))
    assert isinstance(hook, Hook) and hook.num_batches == 32
