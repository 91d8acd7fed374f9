"""What the best subnets give up, by tables made by hand."""

from pathlib import Path

import pytest
from programs import run_program

from mutualnet_mm import Subnet
from mutualnet_mm.query_table import (
    QueryTable,
    TableEntry,
    describe_front,
    front_steps,
    save_table,
)


def make_table(rows):
    """Of ``{subnet: (MACs in millions, score)}``, the full one first."""
    entries = [
        TableEntry(Subnet.parse(name), int(macs * 1e6), 1, {'top1': score})
        for name, (macs, score) in rows.items()
    ]
    full = Subnet.parse(next(iter(rows)))
    return QueryTable(entries, 'top1', 'classification', full)


IMAGES = {
    '1.0x-224': (569, 72.0),
    '0.95x-224': (517, 71.5),
    '0.9x-224': (468, 71.0),
    '0.9x-192': (344, 69.0),
    '0.9x-160': (239, 67.0),
    '0.5x-224': (150, 50.0),  # beaten
    '1.0x-128': (186, 66.0),
    '0.7x-128': (97.25, 60.0),
    '0.25x-96': (9.5, 40.0),
}
VIDEO = {
    '1.0x-224-8': (41740, 75.0),
    '1.0x-224-5': (26000, 74.0),
    '1.0x-224-3': (15600, 70.0),
    '0.8x-178-3': (900.4, 60.0),
}


def test_images():
    steps = describe_front(make_table(IMAGES)).split('; ')
    assert steps == [
        '569 to 468 M: width 1.0x to 0.9x at 224',
        '468 to 239 M: resolution 224 to 160 at 0.9x',
        '239 to 186 M: resolution 160 to 128, for more width 0.9x to 1.0x',
        '186 to 97.2 M: width 1.0x to 0.7x at 128',
        '97.2 to 9.50 M: width 0.7x to 0.25x and resolution 128 to 96',
    ]


def test_video():
    steps = describe_front(make_table(VIDEO)).split('; ')
    assert steps == [
        '41.7 to 15.6 G: frames 8 to 3 at 1.0x, 224',
        '15.6 G to 900 M: width 1.0x to 0.8x and resolution 224 to 178 at 3 '
        'frames',
    ]


def test_steps_name_their_ends():
    first, second, *_ = front_steps(make_table(IMAGES))
    assert str(first.start.subnet) == '1.0x-224'
    assert first.end == second.start
    assert (first.reduced, first.raised) == (('width',), ())
    assert second.reduced == ('resolution',)


def test_equal_subnets_are_no_step():
    rows = {'1.0x-64': (8, 70.0), '0.9x-48': (4, 60.0), '0.6x-64': (4, 60.0)}
    (step,) = front_steps(make_table(rows))
    assert step.reduced == ('width', 'resolution')


def test_widths_by_stage_of_one_mean():
    """They go from stage to stage, which is no width that is kept."""
    rows = {
        '0.5-0.75-1.0x-32': (600, 70.0),
        '0.75x-32': (500, 65.0),
        '1.0-0.75-0.5x-24': (400, 60.0),
    }
    assert describe_front(make_table(rows)).split('; ') == [
        '600 to 500 M: width 0.5-0.75-1.0x to 0.75x at 32',
        '500 to 400 M: width 0.75x to 1.0-0.75-0.5x and resolution 32 to 24',
    ]


@pytest.mark.parametrize('rows', [{'1.0x-64': (8, 70.0)}])
def test_one_best(rows):
    rows['0.5x-64'] = (9, 60.0)
    table = make_table(rows)
    assert front_steps(table) == []
    assert describe_front(table) == '1.0x-64 is the best at every budget'


def test_tool(tmp_path):
    names = []
    for name, rows in dict(images=IMAGES, video=VIDEO).items():
        (tmp_path / name).mkdir()
        save_table(make_table(rows), tmp_path / name / 'table.json')
        names.append(tmp_path / name / 'table.json')
    tool = Path(__file__).parents[2] / 'tools/plot_curves.py'
    result = run_program(tool, *names, '--describe')
    lines = result.stdout.splitlines()
    assert lines[0].startswith('images: 569 to 468 M: width 1.0x to 0.9x')
    assert lines[1].startswith('video: 41.7 to 15.6 G: frames 8 to 3')
    assert not (tmp_path / 'a.png').exists()
    out = tmp_path / 'a.png'
    result = run_program(tool, names[0], '--out', out)
    assert result.stdout == f'written: {out}\n'
    assert out.exists()
    result = run_program(tool, *names)
    assert 'name a picture by --out' in result.stderr


@pytest.mark.parametrize(
    'costs, shown',
    [
        ((999.6, 99.96), '1.00 G to 100 M'),
        ((9.996, 0.9996), '10.0 to 1.00 M'),
        ((999.4, 99.94), '999 to 99.9 M'),
    ],
)
def test_costs_that_round_to_the_next_unit(costs, shown):
    large, small = costs
    table = make_table({'1.0x-224': (large, 70), '0.5x-224': (small, 60)})
    assert describe_front(table).startswith(f'{shown}: ')
