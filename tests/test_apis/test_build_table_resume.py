"""Tables that were interrupted, and those of something else."""

import contextlib
import json
import os
import re
import shutil
import signal
from dataclasses import replace

import cv2
import pytest
import torch
from filelock import FileLock, Timeout

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import (
    AdaptiveFile,
    AdaptiveModel,
    build_table,
    measurement,
)
from mutualnet_mm.deploy import save_latencies
from mutualnet_mm.engine import loops
from mutualnet_mm.query_table import Latency, load_table

STEP = 0.375
GRID = [
    f'{width}x-{side}' for width in (1.0, 0.625, 0.25) for side in (32, 16)
]


@pytest.fixture(scope='module')
def uninterrupted_cache():
    return {}


@pytest.fixture
def uninterrupted(
    score_sums, uninterrupted_cache, make_config, checkpoint, tmp_path_factory
):
    """Folder of a table built at one go."""
    if not uninterrupted_cache:
        out = tmp_path_factory.mktemp('uninterrupted')
        build_table(make_config(), checkpoint, out, step=STEP)
        uninterrupted_cache['out'] = out
        score_sums.processed.clear()
        score_sums.computed.clear()
    return uninterrupted_cache['out']


class Killed(BaseException):
    pass


def interrupt_at(processed=None, computed=None, action=None):
    def interruption(num_processed, num_computed):
        if processed == num_processed or computed == num_computed:
            action()

    return interruption


def throw():
    raise Killed


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    'moment, finished',
    [
        (dict(processed=4), 0),  # in the second batch of the first group
        (dict(computed=3), 2),
        (dict(processed=13), 3),  # in the second group
    ],
    ids=str,
)
def test_going_on(
    score_sums,
    uninterrupted,
    make_config,
    checkpoint,
    tmp_path,
    monkeypatch,
    moment,
    finished,
):
    halted = tmp_path / 'halted'
    calibrations, stock = [], loops.calibrate

    def calibrate(*args):
        calibrations.append(args)
        return stock(*args)

    monkeypatch.setattr(loops, 'calibrate', calibrate)
    score_sums.interruption = interrupt_at(**moment, action=throw)
    with pytest.raises(Killed):
        build_table(make_config(), checkpoint, halted, step=STEP)
    assert not (halted / 'table.json').exists()
    kept = json.loads((halted / 'progress/results.json').read_text())
    assert len(kept['results']) == finished
    score_sums.interruption = None
    score_sums.processed.clear()
    # Another group size must not matter: it may have been out of memory.
    cfg = make_config()
    cfg.test_cfg.group_size = 2
    build_table(cfg, checkpoint, halted, step=STEP)
    assert len(score_sums.processed) == 3 * (len(GRID) - finished)
    assert len(calibrations) == 1
    for name in ('table.json', 'table.csv'):
        expected = (uninterrupted / name).read_bytes()
        assert (halted / name).read_bytes() == expected
    first, second = (
        AdaptiveFile.load(out / 'adaptive.pth')
        for out in (uninterrupted, halted)
    )
    for subnet, layers in first.statistics.items():
        for name, pair in layers.items():
            assert torch.equal(pair[0], second.statistics[subnet][name][0])
            assert torch.equal(pair[1], second.statistics[subnet][name][1])


@pytest.mark.subprocess
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no os.fork here')
def test_going_on_after_sigkill(score_sums, make_config, checkpoint, tmp_path):
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            score_sums.interruption = interrupt_at(
                computed=5,
                action=lambda: os.kill(os.getpid(), signal.SIGKILL),
            )
            build_table(make_config(), checkpoint, tmp_path / 'out', step=STEP)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    table = build_table(make_config(), checkpoint, tmp_path / 'out', step=STEP)
    assert len(score_sums.processed) == 3 * (len(GRID) - 4)
    assert [str(entry.subnet) for entry in table.entries] == GRID


def test_an_unknown_metric_costs_no_results(
    score_sums, make_config, checkpoint, tmp_path
):
    def build(metric):
        cfg = make_config()
        return build_table(
            cfg, checkpoint, tmp_path / 'out', step=STEP, metric=metric
        )

    with pytest.raises(UsageError, match="'top1' is unknown.*accuracy/top1"):
        build('top1')
    assert len(score_sums.processed) == 9  # told after the first group
    assert len(score_sums.computed) == 3
    with pytest.raises(UsageError, match="'top1' is unknown"):
        build('top1')
    assert len(score_sums.processed) == 9
    table = build('accuracy/top1')
    assert len(score_sums.processed) == 3 * len(GRID)
    assert table.metric == 'accuracy/top1'
    assert build('sums/squares').metric == 'sums/squares'
    assert len(score_sums.processed) == 3 * len(GRID)  # at once


def pretend_unfinished(out):
    file = out / 'progress/results.json'
    content = json.loads(file.read_text())
    assert content['finished']
    del content['sha256']
    file.write_text(json.dumps(dict(content, finished=False)))


def test_more_subnets_later(score_sums, make_config, checkpoint, tmp_path):
    """Only those that are new are calibrated and tested."""
    out = tmp_path / 'out'
    build_table(make_config(), checkpoint, out, subnets=GRID[3:4])
    score_sums.processed.clear()
    table = build_table(make_config(), checkpoint, out, step=STEP)
    assert len(score_sums.processed) == 3 * (len(GRID) - 1)
    assert [str(entry.subnet) for entry in table.entries] == GRID
    # Nothing that was measured is lost by asking for one.
    file = AdaptiveFile.load(out / 'adaptive.pth')
    measured = {Subnet.parse(name): Latency(1.0, 1.0) for name in GRID[:2]}
    file.table = file.table.with_latencies('phone', measured)
    file.save(out / 'adaptive.pth')
    score_sums.processed.clear()
    again = build_table(make_config(), checkpoint, out, subnets=['0.5x-16'])
    assert len(score_sums.processed) == 3
    names = [str(entry.subnet) for entry in again.entries]
    assert names == [*GRID[:4], '0.5x-16', *GRID[4:]]
    assert [
        str(e.subnet) for e in again.entries if 'phone' in e.latency_ms
    ] == GRID[:2]
    assert [e for e in again.entries if str(e.subnet) in GRID[2:]] == [
        e for e in table.entries if str(e.subnet) in GRID[2:]
    ]
    saved = AdaptiveFile.load(out / 'adaptive.pth')
    assert set(saved.statistics) == {*GRID[1:], '0.5x-16'}


@pytest.mark.parametrize(
    'settings, what',
    [
        (dict(num_images=4), 'number of images'),
        (dict(batch_size=3), 'test_dataloader'),
    ],
)
def test_a_finished_table_is_kept(
    score_sums, make_config, checkpoint, tmp_path, settings, what
):
    """Of the same weights: hours of testing, for a forgotten option."""
    out = tmp_path / 'out'
    build_table(make_config(), checkpoint, out, subnets=['0.5x-16'])
    score_sums.processed.clear()
    files = {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}
    cfg, settings = make_config(), dict(settings)
    cfg.test_dataloader.batch_size = settings.pop('batch_size', 4)
    with pytest.raises(UsageError, match=f'another {what}.*to add subnets'):
        build_table(cfg, checkpoint, out, subnets=['0.5x-16'], **settings)
    assert not score_sums.processed
    assert all(path.read_bytes() == old for path, old in files.items())


def test_latencies_are_kept(make_config, checkpoint, tmp_path, monkeypatch):
    """Nobody adds others between their reading and the writing of all."""
    path = tmp_path / 'adaptive.pth'
    table = build_table(make_config(), checkpoint, tmp_path, subnets=GRID[:2])
    figures = {e.subnet: Latency(1.0, 2.0) for e in table.entries}
    weights = AdaptiveFile.load(path).weights
    save_latencies(path, 'cpu', figures, weights)
    save, load = AdaptiveFile.save, AdaptiveFile.load
    locked = []

    def note():
        try:
            FileLock(str(tmp_path / '.adaptive.pth.lock'), 0).acquire()
        except Timeout:
            locked.append(True)
        else:
            locked.append(False)

    monkeypatch.setattr(
        AdaptiveFile, 'save', lambda *args: (note(), save(*args))[1]
    )
    monkeypatch.setattr(
        AdaptiveFile, 'load', lambda *args: (note(), load(*args))[1]
    )
    again = build_table(make_config(), checkpoint, tmp_path, subnets=GRID[1:3])
    monkeypatch.undo()
    assert locked == [True, True]
    for saved in (
        again,
        load(path).table,
        load_table(tmp_path / 'table.json'),
    ):
        assert [entry.latency_ms for entry in saved.entries] == [
            {'cpu': Latency(1.0, 2.0)},
            {'cpu': Latency(1.0, 2.0)},
            {},
        ]


def test_statistics_that_were_added_are_kept(
    make_config, checkpoint, tmp_path
):
    """Those of ``net.calibrate`` in the file that the table is written to."""
    path = tmp_path / 'adaptive.pth'
    build_table(make_config(), checkpoint, tmp_path, subnets=GRID[2:4])
    net = AdaptiveModel.from_file(path)
    net.calibrate(net.cfg.train_dataloader, '0.75x-24')
    net.save(path)
    added = AdaptiveFile.load(path).statistics['0.75x-24']
    build_table(make_config(), checkpoint, tmp_path, subnets=GRID[4:5])
    kept = AdaptiveFile.load(path).statistics
    assert kept.keys() == {*GRID[2:5], '0.75x-24'}
    for name, pair in added.items():
        assert all(map(torch.equal, pair, kept['0.75x-24'][name]))
    # Those of a table that is started over are not.
    shutil.rmtree(tmp_path / 'progress')
    build_table(make_config(), checkpoint, tmp_path, subnets=GRID[5:6])
    kept = AdaptiveFile.load(path).statistics
    assert kept.keys() == {GRID[5], '0.75x-24'}
    # Nor those of another calibration.
    shutil.rmtree(tmp_path / 'progress')
    cfg = make_config()
    cfg.custom_hooks = [
        dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
    ]
    build_table(cfg, checkpoint, tmp_path, subnets=GRID[4:5])
    assert AdaptiveFile.load(path).statistics.keys() == {GRID[4]}


def test_more_images_at_the_same_path(
    score_sums, make_config, checkpoint, tmp_path, monkeypatch
):
    """Scores of other images are no part of the table."""
    # The config says the same: what lies behind its paths has changed.
    monkeypatch.setattr(
        'mutualnet_mm.engine.table_loop.config_fingerprints', lambda cfg: {}
    )
    build_table(make_config(), checkpoint, tmp_path, subnets=['0.5x-16'])
    score_sums.processed.clear()
    cfg = make_config()
    one = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[one, one]
    )
    with pytest.raises(UsageError, match='another number of images'):
        build_table(cfg, checkpoint, tmp_path, subnets=['1.0x-32'])
    assert not score_sums.processed


def test_other_images_of_the_same_names(
    score_sums, make_config, checkpoint, tmp_path, pictures
):
    folder = tmp_path / 'pictures'
    shutil.copytree(pictures, folder)
    cfg = make_config()
    cfg.test_dataloader.dataset.data_root = str(folder / 'test')
    out = tmp_path / 'out'
    build_table(cfg, checkpoint, out, subnets=['0.5x-16'])
    score_sums.processed.clear()
    image = cv2.imread(str(folder / 'test/1/5.png'))
    cv2.imwrite(str(folder / 'test/1/5.png'), image // 8)
    with pytest.raises(UsageError, match='another content of the test set'):
        build_table(cfg, checkpoint, out, subnets=['1.0x-32'])
    assert not score_sums.processed


def test_images_drawn_of_more_at_the_same_path(
    score_sums, make_config, checkpoint, tmp_path, monkeypatch
):
    """As many as before, of which others are drawn."""
    monkeypatch.setattr(
        'mutualnet_mm.engine.table_loop.config_fingerprints', lambda cfg: {}
    )
    fewer = make_config()
    fewer.test_dataloader.dataset.indices = 6
    build_table(fewer, checkpoint, tmp_path, subnets=['0.5x-16'], num_images=4)
    score_sums.processed.clear()
    settings = dict(subnets=['1.0x-32'], num_images=4)
    with pytest.raises(UsageError, match='another number of images'):
        build_table(make_config(), checkpoint, tmp_path, **settings)
    assert not score_sums.processed


def test_latencies_of_other_sizes_are_not_kept(
    make_config, checkpoint, tmp_path
):
    table = build_table(make_config(), checkpoint, tmp_path, subnets=GRID[:2])
    figures = {e.subnet: Latency(1.0, 2.0) for e in table.entries}
    measured = table.with_latencies('cpu', figures)
    first, second = measured.entries
    larger = [replace(first, macs=first.macs * 16), second]
    kept = table._of(larger, table.metric).with_latencies_of(measured)
    assert [e.latency_ms for e in kept.entries] == [
        {},
        {'cpu': Latency(1.0, 2.0)},
    ]


@pytest.mark.parametrize(
    ('saved', 'rule'),
    [
        ('sums/squares', 'less'),
        (['other', 'sums/squares'], ['greater', 'less']),
        (['other', 'sums/squares'], 'less'),
        ('sums/squares', ['less']),
        ('auto', 'less'),  # the first one
    ],
)
def test_a_metric_of_which_less_is_better(
    make_config, checkpoint, tmp_path, saved, rule
):
    """As the config says itself; the worst subnet would rank first."""
    cfg = make_config()
    hook = dict(type='CheckpointHook', save_best=saved, rule=rule)
    cfg.default_hooks = dict(checkpoint=hook)
    with pytest.raises(
        UsageError, match='the less of sums/squares is the better'
    ):
        build_table(
            cfg,
            checkpoint,
            tmp_path,
            subnets=['0.5x-16'],
            metric='sums/squares',
        )


def test_a_metric_of_which_no_one_knows(
    make_config, checkpoint, tmp_path, monkeypatch
):
    said = []
    monkeypatch.setattr(measurement, '_warn', said.append)
    cfg = make_config()
    build_table(cfg.copy(), checkpoint, tmp_path, subnets=['0.5x-16'])
    (found,) = [text for text in said if 'ranked by' in text]
    assert 'by sums/squares, and takes more of it for better' in found
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook'))
    options = re.findall(r'(default_hooks[.\w]+)=(\S+)', found)
    assert len(options) == 2
    cfg.merge_from_dict(dict(options))
    said.clear()
    build_table(cfg, checkpoint, tmp_path, subnets=['0.5x-16'])
    assert not [text for text in said if 'ranked by' in text]


def test_a_finished_table_makes_way(
    score_sums, make_config, checkpoint, weights, tmp_path, monkeypatch
):
    out = tmp_path / 'out'
    build_table(make_config(), checkpoint, out, subnets=['0.5x-16'])
    weights['head.fc.bias'] += 1e-3
    other = str(tmp_path / 'epoch_2.pth')
    torch.save(dict(state_dict=weights), other)
    score_sums.processed.clear()
    # Not of another config, too: its subnets may be hours of work.
    changed = make_config()
    changed.test_dataloader.batch_size = 3
    with pytest.raises(
        UsageError, match='another test_dataloader and checkpoint'
    ):
        build_table(changed, other, out, subnets=['0.5x-16'])
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.query_table.progress.print_log',
        lambda text, **settings: said.append(text),
    )
    build_table(make_config(), other, out, subnets=['0.5x-16'])
    assert len(score_sums.processed) == 3
    assert any('of another checkpoint, which is replaced' in s for s in said)
    saved = AdaptiveFile.load(out / 'adaptive.pth').weights['head.fc.bias']
    assert torch.equal(saved, weights['head.fc.bias'])


def test_results_of_something_else_are_refused(
    make_config, checkpoint, weights, tmp_path
):
    out = tmp_path / 'out'
    build_table(make_config(), checkpoint, out, subnets=['0.5x-16'])
    pretend_unfinished(out)
    weights['head.fc.bias'] += 1e-3
    other = str(tmp_path / 'epoch_2.pth')
    torch.save(dict(state_dict=weights), other)
    wider = make_config()
    wider.train_dataloader.batch_size = 2
    for arguments, settings, what in (
        ((make_config(), other), dict(subnets=['0.5x-16']), 'checkpoint'),
        ((wider, checkpoint), dict(subnets=['0.5x-16']), 'train_dataloader'),
        (
            (make_config(), checkpoint),
            dict(subnets=['0.5x-16'], num_images=4),
            'number of images and content of the test set',
        ),
    ):
        with pytest.raises(UsageError, match=f'of another {what}: give'):
            build_table(*arguments, out, **settings)
