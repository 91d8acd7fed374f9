import pytest

from mutualnet_mm import UsageError
from mutualnet_mm.survey import (
    Outcome,
    Record,
    add_record,
    coverage_page,
    read_records,
    reasons,
)


def outcome(name, result='works', stage='', reason='', stock_ran=True):
    return Outcome(name, result, stage, reason, stock_ran, 4, 1.5)


OUTCOMES = [
    outcome('b/two.py', 'refused', 'build', 'layers.1.conv is odd', True),
    outcome('b/one.py'),
    outcome('a/one.py', 'refused', 'build', 'layers.2.conv is odd', True),
    outcome('c/d/e.py', 'stock fails', 'data', 'a|b <c>', False),
    outcome('c/d/f.py', 'not tried', 'data', 'no data', False),
    outcome('c/d/g.py', 'too slow', 'loss', 'takes more than 3 s', False),
    outcome('c/d/h.py', 'too slow', 'loss', 'takes more than 3 s', True),
]
PAGE = """
Of 4 configs that run as they are, 1 (25 %) run adaptive;
2 are refused, which counts processes that crash, and 1 take too long.

| result | configs |
|---|---|
| works | 1 |
| refused | 2 |
| stock fails too | 1 |
| no data to try it on | 1 |
| takes too long here | 2 |

## Reasons

| configs | result | reason |
|---|---|---|
| 2 | refused | build: ... is odd |
| 1 | stock fails too | data: a\\|b &lt;c> |
| 1 | no data to try it on | data: no data |
| 2 | takes too long here | loss: takes more than ... s |

## a

| config | result |
|---|---|
| one | refused: build: layers.2.conv is odd |

## b

| config | result |
|---|---|
| one | works |
| two | refused: build: layers.1.conv is odd |

## c/d

| config | result |
|---|---|
| e | stock fails too: data: a\\|b &lt;c> |
| f | no data to try it on: data: no data |
| g | takes too long here: loss: takes more than 3 s |
| h | takes too long here: loss: takes more than 3 s |
"""


def record(found, **kwargs):
    made = dict(ours='0.1', stock='3.3.0', timeout=9.0, date='2024-01-02')
    return Record(found, **{**made, **kwargs})


def test_the_page():
    page = coverage_page('mmdet', [*map(record, OUTCOMES)], 'tool --x')
    head, _, rest = page.partition('\nOf 4 configs')
    assert head.startswith('# Stock configs of mmdet 3.3.0, adaptive\n')
    assert '`tool --x`, run with mutualnet_mm 0.1 on 2024-01-02.' in ' '.join(
        head.split()
    )
    assert max(map(len, head.splitlines())) < 80
    assert f'\nOf 4 configs{rest}' == PAGE


def test_a_page_of_several_days():
    records = [
        record(found, date=f'2024-01-0{day}')
        for day, found in zip((3, 2, 5), OUTCOMES)
    ]
    page = coverage_page('mmdet', records, 'tool', ['a/b.py', 'c.py'])
    assert ' on 2024-01-02 to 2024-01-05. ' in page
    assert 'as they cannot be read: `a/b.py`, `c.py`.' in page


def test_a_page_of_nothing_that_runs():
    page = coverage_page('mmdet', [*map(record, OUTCOMES[3:6])], 'tool')
    assert 'Of 0 configs that run as they are, 0 run adaptive;' in page


def test_frequent_reasons_first():
    assert reasons(OUTCOMES, 'refused') == [('build: ... is odd', 2)]
    assert reasons(OUTCOMES, 'works') == [(': ', 1)]


def test_records_in_a_file(tmp_path):
    path = tmp_path / 'mmdet.jsonl'
    assert read_records(path) == {}
    again = record(outcome('a/one.py'), date='2024-02-03')
    records = [*map(record, OUTCOMES), again]
    for each in records:
        add_record(path, each)
    expected = {each.outcome.config: each for each in records}
    assert expected['a/one.py'] is again
    assert read_records(path) == expected
    with path.open('a') as file:  # interrupted while it was written
        file.write('{"outcome": {"config": "b/th')
    assert read_records(path) == expected
    for name in ('b/three.py', 'b/four.py'):
        expected[name] = record(outcome(name))
        add_record(path, expected[name])
    assert read_records(path) == expected


@pytest.mark.parametrize(
    'change, works, slow',
    [
        (dict(), True, True),
        (dict(ours='0.2'), False, False),
        (dict(stock='3.4'), False, False),
        (dict(timeout=8.0), True, True),
        (dict(timeout=10.0), True, False),
    ],
)
def test_what_holds(change, works, slow):
    now = {**dict(ours='0.1', stock='3.3.0', timeout=9.0), **change}
    assert record(OUTCOMES[1]).holds(**now) is works
    assert record(OUTCOMES[-1]).holds(**now) is slow


@pytest.mark.parametrize(
    'line',
    ['nothing', '[]', '{"config": "a"}', '{"outcome": 3, "date": "today"}'],
)
def test_other_files(line, tmp_path):
    path = tmp_path / 'mmdet.jsonl'
    path.write_text(f'{line}\n')
    with pytest.raises(UsageError, match='line 1 of .* is no outcome'):
        read_records(path)
