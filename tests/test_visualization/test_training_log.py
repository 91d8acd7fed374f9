"""Logs of runs, as MMEngine writes them."""

import json

import pytest

from mutualnet_mm import UsageError
from mutualnet_mm.visualization.training_log import (
    FULL,
    RUNNING,
    read_training,
)


def step(iteration, loss=2.0, epoch=1, **more):
    """The record of a training step; the full network's loss is 1 less."""
    return dict(
        lr=0.1, loss=loss, loss_mutual=1.0, loss_cls=loss - 1.0, time=0.5,
        epoch=epoch, iter=iteration, step=iteration, **more,
    )  # fmt: skip


def validation(epoch, top1, **more):
    return {'accuracy/top1': top1, 'time': 0.1, 'step': epoch, **more}


@pytest.fixture
def write(tmp_path):
    def write(run, *records, tail=''):
        folder = tmp_path / run / 'vis_data'
        folder.mkdir(parents=True)
        lines = ''.join(f'{json.dumps(record)}\n' for record in records)
        (folder / 'scalars.json').write_text(lines + tail)
        return tmp_path

    return write


def test_subnets_are_told_apart(write):
    folder = write(
        '20260101_000000',
        step(10, 4.0, **{'min/total': 0.5, 'rand1/total': 0.25}),
        {'accuracy/top1': 50.0, 'step': 1, 'time': 9,
         '0.5x-16/accuracy/top1': 40.0,
         'running/accuracy/top1': 30.0, 'accuracy/top5': 90.0},
        # What SubnetCurveHook adds says the same.
        {'accuracy/top1/1.0x-16': 50.0, 'accuracy/top1/0.5x-16': 40.0,
         'accuracy/top1/running': 30.0, 'step': 1},
        {'test/accuracy/top1/1.0x-16': 10.0, 'step': 0},
    )  # fmt: skip
    log = read_training(folder)
    assert log.losses == {
        FULL: {10: 3.0},
        'min': {10: 0.5},
        'rand1': {10: 0.25},
    }
    assert log.metrics == {
        'accuracy/top1': {FULL: {1: 50}, '0.5x-16': {1: 40}, RUNNING: {1: 30}},
        'accuracy/top5': {FULL: {1: 90}},
    }
    assert log.unit == 'epoch'


def test_resumed_runs_are_joined(write):
    """It was killed in epoch 3, and went on from the end of epoch 1."""
    write(
        '20260101_000000',
        step(10, 9.0), validation(1, 10.0), step(20, 8.0, 2),
        validation(2, 20.0), step(30, 7.0, 3), step(35, 6.0, 3),
    )  # fmt: skip
    folder = write(
        '20260101_000001',
        step(20, 5.0, 2), validation(2, 21.0), step(30, 4.0, 3),
        validation(3, 31.0),
    )  # fmt: skip
    log = read_training(folder)
    assert list(log.losses[FULL].items()) == [(10, 8.0), (20, 4.0), (30, 3.0)]
    metric = log.metrics['accuracy/top1'][FULL]
    assert list(metric.items()) == [(1, 10), (2, 21), (3, 31)]
    # Killed at once, with nothing but half a line.
    write('20260101_000002', tail='{"lr": 0.')
    # Of a validation by itself, and of a test.
    write('20260101_000003', validation(0, 99.0))
    write('20260101_000004', {'test/accuracy/top1/1.0x-16': 10.0, 'step': 0})
    assert read_training(folder) == log
    # One that began anew.
    write('20260101_000005', step(10, 3.0), validation(1, 12.0))
    log = read_training(folder)
    assert log.losses[FULL] == {10: 2.0}
    assert log.metrics['accuracy/top1'][FULL] == {1: 12.0}


def test_before_its_first_validation_a_resumed_run_takes_nothing(write):
    write('1', step(10), validation(1, 10.0), step(20, epoch=2))
    log = read_training(write('2', step(20, 5.0, epoch=2)))
    assert log.metrics['accuracy/top1'][FULL] == {1: 10.0}
    assert log.losses[FULL] == {10: 1.0, 20: 4.0}


def test_metrics_by_iteration(write):
    folder = write('1', step(10), step(20), validation(20, 10.0))
    assert read_training(folder).unit == 'iteration'


def test_stock_training_and_values_that_are_no_numbers(write):
    record = dict(loss=3.0, loss_cls=3.0, epoch=1, step=5)
    folder = write(
        '1',
        record,
        dict(record, loss=float('nan'), step=6),
        validation(1, float('nan')),
    )
    log = read_training(folder)
    assert log.losses == {FULL: {5: 3.0}} and log.metrics == {}


def test_a_single_file(write):
    folder = write('1', step(10))
    file = folder / '1/vis_data/scalars.json'
    assert read_training(file) == read_training(folder)


def test_what_cannot_be_read(write, tmp_path):
    with pytest.raises(UsageError, match='has no .*scalars.json: name'):
        read_training(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match='holds no training'):
        read_training(write('1', validation(0, 1.0)))
    folder = write('2', step(10), tail='no json\n{"step": 5}\n')
    with pytest.raises(UsageError, match='line 2 of .* is not one that'):
        read_training(folder)
