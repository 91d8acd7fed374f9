"""What somebody sees who watches standard error."""

import io
import sys

import pytest
from mmengine.runner import Runner

from mutualnet_mm import progress_bars
from mutualnet_mm.progress_bars import track, working


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self):
        return True


@pytest.fixture
def watch(monkeypatch):
    """Return what makes standard error a stream that is watched.

    Within the test: pytest sets its own stream before each.
    """

    def start():
        stream = Terminal()
        monkeypatch.setenv('TERM', 'xterm')
        monkeypatch.setenv('COLUMNS', '100')
        monkeypatch.setattr(sys, 'stderr', stream)
        return stream

    return start


def test_a_bar_counts(watch):
    terminal = watch()
    assert list(track('abc', 'reading')) == ['a', 'b', 'c']
    shown = terminal.getvalue()
    assert 'reading' in shown and '3/3' in shown and '100%' in shown


def test_work_without_a_number(watch):
    terminal = watch()
    with working('exporting'):
        pass
    assert 'exporting' in terminal.getvalue()
    with pytest.raises(ValueError, match='of the block'), working('failing'):
        raise ValueError('of the block')


def test_nobody_watches(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, 'stderr', stream)
    assert list(track('abc', 'reading')) == ['a', 'b', 'c']
    with working('exporting'):
        pass
    assert stream.getvalue() == ''


def test_one_of_several_processes_shows_it(watch, monkeypatch):
    terminal = watch()
    monkeypatch.setattr(progress_bars, 'is_main_process', lambda: False)
    assert list(track('abc', 'reading')) == ['a', 'b', 'c']
    assert terminal.getvalue() == ''


def test_calibration_in_the_loops(make_config, watch):
    cfg = make_config()
    cfg.custom_hooks = [
        dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2)
    ]
    runner = Runner.from_cfg(cfg)
    terminal = watch()
    runner.test()
    shown = terminal.getvalue()
    assert 'calibrating' in shown and '2/2' in shown
