import json
from pathlib import Path

import cv2
import pytest
from matplotlib.figure import Figure
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.visualization.learning_curves import plot_trainings
from mutualnet_mm.visualization.training_log import FULL, TrainingLog

TOOL = Path(__file__).parents[2] / 'tools/analysis/learning_curves.py'


def make_log(better=0.0, unit='epoch', subnet='0.5x-16'):
    return TrainingLog(
        {FULL: {10: 3.0, 20: 2.0}, 'min': {10: 1.0, 20: 0.5}},
        {
            'top1': {FULL: {1: 50 + better, 2: 60 + better}, subnet: {2: 40}},
            'top5': {FULL: {1: 80.0}},
        },
        unit,
    )


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw trainings, and return the axes of the picture."""
    figures, stock = [], Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        stock(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', savefig)

    def draw(logs, metrics=None):
        plot_trainings(logs, tmp_path / 'a.png', metrics)
        assert cv2.imread(str(tmp_path / 'a.png')) is not None
        return figures[-1].axes

    return draw


def lines_of(axes):
    return {
        line.get_label(): (
            dict(zip(*line.get_data())),
            line.get_color(),
            line.get_linestyle(),
        )
        for line in axes.get_lines()
    }


def test_one_training(drawn):
    above, below = drawn({'net': make_log()})
    assert (above.get_xlabel(), above.get_ylabel()) == ('iteration', 'loss')
    assert (below.get_xlabel(), below.get_ylabel()) == ('epoch', 'top1')
    losses = lines_of(above)
    assert losses[FULL][0] == {10: 3, 20: 2}
    assert losses['min'][0] == {10: 1, 20: 0.5}
    metrics = lines_of(below)
    assert metrics[FULL][0] == {1: 50, 2: 60}
    assert metrics['0.5x-16'][0] == {2: 40}
    assert metrics[FULL][1] == losses[FULL][1] != metrics['0.5x-16'][1]


def test_several_trainings(drawn):
    logs = dict(a=make_log(), b=make_log(5.0, subnet='0.25x-16'))
    _, top5, top1 = drawn(logs, ['top5', 'top1'])
    assert top5.get_ylabel() == 'top5'
    lines = lines_of(top1)
    assert list(lines) == [
        f'a: {FULL}',
        'a: 0.5x-16',
        f'b: {FULL}',
        'b: 0.25x-16',
    ]
    first, second = lines[f'a: {FULL}'], lines[f'b: {FULL}']
    assert first[1] == second[1] and (first[2], second[2]) == ('-', '--')
    assert len({line[1] for line in lines.values()}) == 3


def test_nothing_is_clipped(drawn):
    axes = drawn({'a long name of a training': make_log()})
    figure = axes[0].figure
    figure.draw_without_rendering()
    for one in axes:
        box = one.get_legend().get_window_extent()
        assert figure.bbox.padded(1).count_contains(box.corners()) == 4
        assert not one.bbox.overlaps(box)


@pytest.mark.parametrize(
    'logs, metrics, message',
    [
        ({}, None, '0 trainings: give 1 to 4'),
        ({i: make_log() for i in 'abcde'}, None, '5 trainings: give 1 to 4'),
        (
            dict(a=make_log()),
            ['mAP'],
            "'mAP' was not logged: use top1 or top5",
        ),
        (
            dict(a=TrainingLog({FULL: {1: 1.0}})),
            ['mAP'],
            'use a training with validation',
        ),
        (
            dict(a=make_log(), b=make_log(unit='iteration')),
            None,
            'some trainings log metrics by epoch and some by iteration',
        ),
    ],
)
def test_what_cannot_be_drawn(tmp_path, logs, metrics, message):
    with pytest.raises(UsageError, match=message):
        plot_trainings(logs, tmp_path / 'a.png', metrics)
    assert list(tmp_path.iterdir()) == []


def test_tool(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('first', 'second'):
        folder = tmp_path / name / '20260101_000000/vis_data'
        folder.mkdir(parents=True)
        record = dict(loss=1.0, epoch=1, step=1)
        (folder / 'scalars.json').write_text(json.dumps(record))
    done = run_program(TOOL, 'first', 'second', '--out', 'a.png')
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'written: a.png\n'
    assert cv2.imread('a.png') is not None
    for arguments, message in (
        (['--labels', 'one'], "2 trainings and the labels ['one']"),
        (['--metric', 'mAP'], "metric 'mAP' was not logged"),
    ):
        done = run_program(
            TOOL, 'first', 'second', '--out', 'b.png', *arguments
        )
        assert done.returncode == 1 and message in done.stderr
        assert not Path('b.png').exists()
