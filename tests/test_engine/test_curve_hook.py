"""What the backends of the visualizer get, read back from their files."""

import io
import json
import logging
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import build_table, count_macs
from mutualnet_mm.cost import SubnetCosts
from mutualnet_mm.engine import SubnetCurveHook, curve_hook
from mutualnet_mm.models.build import unwrapped

SUBNETS = ['1.0x-32', '0.5x-16', '0.25x-32']
NAMES = ['sums/squares', 'accuracy/top1']


@HOOKS.register_module(force=True)
class KeepMetrics(Hook):
    """Keeps what the validations return."""

    kept: list = []

    def after_val_epoch(self, runner, metrics=None):
        self.kept.append((runner.epoch, dict(metrics)))


@pytest.fixture
def counted(monkeypatch):
    """Shapes whose costs were counted anew, each time."""
    found = []

    def count(model, shape):
        found.append(shape)
        return SubnetCosts(model, shape)

    monkeypatch.setattr(curve_hook, 'SubnetCosts', count)
    return found


@pytest.fixture
def train_config(make_config):
    """Return a config that trains and validates after each epoch."""
    KeepMetrics.kept = []

    def make(*backends, epochs=2, hook=None, **settings):
        cfg = make_config(
            visualizer=dict(
                type='UniversalVisualizer',
                vis_backends=[dict(type=b) for b in backends],
            ),
            custom_hooks=[
                dict(type='KeepMetrics'),
                dict(type='mutualnet_mm.SubnetCurveHook', **(hook or {})),
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', interval=1),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1),
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=SUBNETS),
        )
        cfg.val_dataloader = cfg.test_dataloader
        cfg.val_evaluator = cfg.test_evaluator
        cfg.test_cfg.subnets = SUBNETS
        cfg.merge_from_dict(settings)
        return cfg

    return make


def expected_scalars():
    """What the validations found, under the hook's names, by step."""
    return {
        epoch: {
            f'{name}/{subnet}': metrics[
                name if subnet == '1.0x-32' else f'{subnet}/{name}'
            ]
            for subnet in SUBNETS
            for name in NAMES
        }
        for epoch, metrics in KeepMetrics.kept
    }


def is_of_a_subnet(name):
    return any(name.endswith(f'/{subnet}') for subnet in SUBNETS)


def read_local(folder):
    """Scalars of the hook by step, over all runs of a work dir."""
    found = defaultdict(dict)
    for file in sorted(Path(folder).rglob('scalars.json')):
        for line in map(json.loads, file.read_text().splitlines()):
            step = line.pop('step')
            found[step].update(
                {k: v for k, v in line.items() if is_of_a_subnet(k)}
            )
    return {step: values for step, values in found.items() if values}


def read_events(folder):
    """Scalars and pictures in the event files of a work dir, by step."""
    accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    scalars, pictures = defaultdict(dict), {}
    for file in sorted(Path(folder).rglob('events.out.tfevents.*')):
        events = accumulator.EventAccumulator(str(file)).Reload()
        for name in events.Tags()['scalars']:
            for event in events.Scalars(name) if is_of_a_subnet(name) else ():
                scalars[event.step][name] = event.value
        for name in events.Tags()['images']:
            for event in events.Images(name):
                data = np.frombuffer(event.encoded_image_string, np.uint8)
                image = cv2.imdecode(data, cv2.IMREAD_COLOR)
                pictures[name, event.step] = image
    return dict(scalars), pictures


def check_picture(image):
    """It has a coloured line for each of two resolutions."""
    assert image.shape[0] > 300 and image.shape[1] > 500
    vivid = np.ptp(image.astype(int), axis=2) > 100
    hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 0][vivid]
    values, sizes = np.unique(hue // 10, return_counts=True)
    assert len(values[sizes > 20]) == 2


def test_training_and_resumption(train_config, counted, tmp_path):
    pytest.importorskip('tensorboard')
    backends = 'LocalVisBackend', 'TensorboardVisBackend'
    Runner.from_cfg(train_config(*backends)).train()
    assert len(counted) == 1  # in two validations
    first = expected_scalars()
    Runner.from_cfg(train_config(*backends, epochs=3, resume=True)).train()
    expected = {**first, **expected_scalars()}
    assert list(expected) == [1, 2, 3]
    assert read_local(tmp_path) == expected
    scalars, pictures = read_events(tmp_path)
    assert set(scalars) == {1, 2, 3}
    for step, values in expected.items():
        assert scalars[step] == pytest.approx(values, rel=1e-6)
    assert set(pictures) == {('subnets', step) for step in (1, 2, 3)}
    local = {path.name: path for path in tmp_path.rglob('*.png')}
    assert set(local) == {f'subnets_{step}.png' for step in (1, 2, 3)}
    for step in (1, 2, 3):
        check_picture(pictures['subnets', step])
        np.testing.assert_array_equal(
            cv2.imread(str(local[f'subnets_{step}.png'])),
            pictures['subnets', step],
        )


def test_picture_shows_costs_and_metrics(train_config, monkeypatch, tmp_path):
    from mutualnet_mm.visualization import curves

    shown, stock = [], curves.draw_tables

    def draw(tables, *args, **kwargs):
        shown.append(tables)
        return stock(tables, *args, **kwargs)

    monkeypatch.setattr(curves, 'draw_tables', draw)
    cfg = train_config(
        'LocalVisBackend', epochs=1, hook=dict(metric='accuracy/top1')
    )
    runner = Runner.from_cfg(cfg)
    runner.train()
    ((label, table),) = shown[0].items()
    (metrics,) = [metrics for _, metrics in KeepMetrics.kept]
    assert label == 'step 1' and table.metric == 'accuracy/top1'
    assert table.num_images == 12
    for entry in table.entries:
        name = str(entry.subnet)
        prefix = '' if name == '1.0x-32' else f'{name}/'
        assert (
            entry.metrics['accuracy/top1'] == metrics[f'{prefix}accuracy/top1']
        )
        assert entry.macs == count_macs(
            unwrapped(runner.model), name, (32, 32)
        )


def test_testing(train_config, tmp_path):
    """Under names of its own, also after a training in the same folder."""
    cfg = train_config('LocalVisBackend')
    metrics = Runner.from_cfg(cfg).test()
    found = read_local(tmp_path)
    assert found == {
        0: {
            f'test/{name}/{subnet}': metrics[
                name if subnet == '1.0x-32' else f'{subnet}/{name}'
            ]
            for subnet in SUBNETS
            for name in NAMES
        }
    }
    (picture,) = tmp_path.rglob('*.png')
    assert picture.name == 'test_subnets_0.png'


def test_the_full_network_by_both_statistics(train_config, tmp_path):
    cfg = train_config('LocalVisBackend')
    recipe = dict(type='mutualnet_mm.BNCalibrationHook', full='calibrated')
    cfg.custom_hooks.append(recipe)
    metrics = Runner.from_cfg(cfg).test()
    (file,) = tmp_path.rglob('scalars.json')
    (line,) = map(json.loads, file.read_text().splitlines())
    running = metrics['running/sums/squares']
    assert line['test/sums/squares/running'] == running
    assert line['test/sums/squares/1.0x-32'] == metrics['sums/squares']


def test_iterations(train_config, tmp_path):
    cfg = train_config('LocalVisBackend')
    cfg.train_cfg = dict(by_epoch=False, max_iters=4, val_interval=2)
    cfg.train_dataloader.sampler.type = 'InfiniteSampler'
    cfg.default_hooks.logger.log_metric_by_epoch = False
    cfg.default_hooks.checkpoint.by_epoch = False
    Runner.from_cfg(cfg).train()
    assert list(read_local(tmp_path)) == [2, 4]


def test_other_ranks_are_silent(train_config, monkeypatch, tmp_path):
    cfg = train_config('LocalVisBackend', epochs=1)
    runner = Runner.from_cfg(cfg)
    sent = []
    for name in ('add_scalars', 'add_image'):
        monkeypatch.setattr(
            type(runner.visualizer),
            name,
            lambda self, first, *args, **kwargs: sent.append(first),
        )
    (hook,) = (h for h in runner.hooks if isinstance(h, SubnetCurveHook))
    stock = type(hook).after_val_epoch

    def on_another_rank(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr('mmengine.dist.utils.get_rank', lambda group: 1)
            stock(*args, **kwargs)

    monkeypatch.setattr(type(hook), 'after_val_epoch', on_another_rank)
    runner.train()
    assert 'subnets' not in sent
    scalars = [name for values in sent for name in values]
    assert scalars and not any(map(is_of_a_subnet, scalars))


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_stock_loops_are_refused(train_config, stage):
    cfg = train_config()
    cfg.val_cfg, cfg.test_cfg = dict(), dict(type='TestLoop')
    runner = Runner.from_cfg(cfg)
    wrong = 'test' if stage == 'test' else 'val'
    loop = wrong.title()
    message = (
        f'{wrong}_cfg.type is {loop}Loop: use .mutualnet_mm.Subnet{loop}Loop'
    )
    with pytest.raises(ConfigError, match=message):
        getattr(runner, stage)()
    assert KeepMetrics.kept == []


def test_without_validation(train_config, tmp_path):
    cfg = train_config('LocalVisBackend')
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    Runner.from_cfg(cfg).train()
    assert read_local(tmp_path) == {}


def test_an_unknown_metric_ends_no_training(train_config, tmp_path):
    cfg = train_config('LocalVisBackend', hook=dict(metric='coco/mAP'))
    cfg.log_level = 'WARNING'
    stream = io.StringIO()
    runner = Runner.from_cfg(cfg)
    runner.logger.addHandler(logging.StreamHandler(stream))
    runner.train()
    said = stream.getvalue()
    assert 'the evaluator gave no coco/mAP, but sums/squares' in said
    assert list(read_local(tmp_path)) == [1, 2]
    assert not [*tmp_path.rglob('*.png')]


def test_query_tables_have_their_own_curve(train_config, checkpoint, tmp_path):
    cfg = train_config('LocalVisBackend')
    build_table(cfg, checkpoint, tmp_path / 'out', subnets=SUBNETS)
    assert read_local(tmp_path) == {}
    pictures = [path.name for path in tmp_path.rglob('*.png')]
    assert pictures == ['curve.png']


@pytest.mark.nightly
def test_weights_and_biases_offline(train_config, monkeypatch, tmp_path):
    """The record of a run that no server has seen."""
    pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    Runner.from_cfg(train_config('WandbVisBackend')).train()
    (file,) = tmp_path.rglob('*.wandb')
    record = file.read_bytes()
    for subnet in SUBNETS:  # of two validations
        assert record.count(f'accuracy/top1/{subnet}'.encode()) >= 2
    assert len([*tmp_path.rglob('subnets_*.png')]) == 2
