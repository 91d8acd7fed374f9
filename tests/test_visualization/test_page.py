"""The page as a browser gets it: its data are read back from the file."""

import json
import re

import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import Cascade, QueryTable, TableEntry
from mutualnet_mm.query_table.entry import Latency
from mutualnet_mm.visualization import plot_tables

pytest.importorskip('plotly')

# Subnet, multiply-accumulates and score; of the best ones, 0.5x-64 is none.
IMAGES = {
    '1.0x-128': (500, 80.0),
    '0.5x-128': (125, 70.0),
    '1.0x-64': (120, 60.0),
    '0.5x-64': (130, 50.0),
}
VIDEO = {
    '1.0x-64-4': (8_000, 0.9),
    '0.8x-64-4': (5_000, 0.8),
    '0.5x-32-2': (1_000, 0.5),
}


def make_table(points=IMAGES, metric='accuracy/top1', **settings):
    entries = [
        TableEntry(
            Subnet.parse(name),
            macs * 10**6,
            macs * 10**3,
            {metric: score, 'beside': None},
            {'cpu-t2-b1': Latency(macs / 10, macs / 5)} if macs > 120 else {},
        )
        for name, (macs, score) in points.items()
    ]
    full = entries[0].subnet
    return QueryTable(
        entries, metric, 'classification', full, num_images=1000, **settings
    )


@pytest.fixture
def read_page(tmp_path):
    """Write a page, and return its text, its lines by name and its layout."""

    def read(tables, **settings):
        path = tmp_path / 'page.html'
        plot_tables(tables, path, **settings)
        text = path.read_text(encoding='utf-8')
        start = re.search(r'Plotly\.newPlot\(\s*"tables",\s*', text).end()
        decoder = json.JSONDecoder()
        lines, end = decoder.raw_decode(text, start)
        start = re.compile(r',\s*').match(text, end).end()
        layout, _ = decoder.raw_decode(text, start)
        return text, {line['name']: line for line in lines}, layout

    return read


def test_all_subnets_and_the_best(read_page):
    text, lines, layout = read_page({'net': make_table()})
    assert list(lines) == ['128 px', '64 px', 'the best, 95 % interval']
    assert lines['128 px']['x'] == [500e6, 125e6]
    assert lines['64 px']['y'] == [60, 50]
    best = lines['the best, 95 % interval']
    assert best['x'] == [120e6, 125e6, 500e6] and best['y'] == [60, 70, 80]
    colours = {line['marker']['color'] for line in lines.values()}
    assert len(colours) == 3
    assert layout['xaxis']['title']['text'] == 'multiply-accumulates'
    assert layout['yaxis']['title']['text'] == 'accuracy/top1'
    # It needs no network: the program is inside, nothing else is loaded.
    assert not re.search(r'<(script|link)[^>]* (src|href)=', text)
    assert '<title>net</title>' in text and len(text) > 10**6


def test_what_stands_over_a_point(read_page):
    table = make_table()
    _, lines, _ = read_page({'net': table})
    first, second = lines['128 px']['text']
    low, high = table.interval(table.entries[0])
    assert first.split('<br>') == [
        '<b>1.0x-128</b>',
        'width 1, resolution 128',
        '500 M multiply-accumulates',
        '500 K parameters',
        'cpu-t2-b1: 50 ms, 90 % below 100',
        f'accuracy/top1: 80 (95 %: {low:.4g} to {high:.4g})',
        'beside: none',
    ]
    unmeasured, measured = lines['64 px']['text']
    assert 'cpu-t2-b1: not measured' in unmeasured
    assert 'cpu-t2-b1: 13 ms' in measured
    best = lines['the best, 95 % interval']
    bars = best['error_y']
    assert 80 + bars['array'][-1] == pytest.approx(high)
    assert 80 - bars['arrayminus'][-1] == pytest.approx(low)


def test_what_else_was_measured_stands_there(read_page):
    table = make_table()
    latency = Latency(1.0, 2.0, 3000.0, 16, 4.5)
    subnet = table.entries[0].subnet
    _, lines, _ = read_page(
        {'net': table.with_latencies('npu', {subnet: latency})}
    )
    told = lines['128 px']['text'][0].split('<br>')
    assert (
        'npu: 1 ms, 90 % below 2, 3000 images per second in batches of 16, '
        '4.5 mJ an image'
    ) in told


def test_latency(read_page):
    _, lines, layout = read_page(
        {'net': make_table()}, cost='latency_ms', log=True
    )
    assert lines['128 px']['x'] == [50, 12.5] and lines['64 px']['x'] == [13]
    assert layout['xaxis']['type'] == 'log'
    assert layout['xaxis']['title']['text'] == (
        'median latency in ms (cpu-t2-b1)<br>1 of 4 subnets were not measured'
    )


def test_video(read_page):
    table = make_table(VIDEO, 'acc/top1', views=10)
    _, lines, _ = read_page({'net': table})
    assert list(lines)[:3] == [
        'full network',
        'reduced width',
        'several reduced',
    ]
    (shown,) = lines['several reduced']['text']
    assert 'width 0.5, resolution 32, 2 frames' in shown
    assert '1.00 G multiply-accumulates for each view' in shown


def test_cascades(read_page):
    plain = make_table()
    small, large = plain.entries[2].subnet, plain.entries[0].subnet
    cascade = Cascade(
        (small, large), 0.75, 200e6, 620_000_000, plain.metric, 75.0
    )
    table = make_table(cascades=[cascade])
    _, lines, _ = read_page({'net': table})
    line = lines['cascades, mean cost']
    assert line['x'] == [120e6, 125e6, 200e6, 500e6]
    assert line['text'][2].startswith(
        '<b>cascade of 1.0x-64 and 1.0x-128</b><br>goes on below a confidence '
        'of 0.75<br>200 M multiply-accumulates on average, 620 M in the worst '
        'case<br>accuracy/top1: 75 (95 %: '
    )
    _, lines, _ = read_page({'net': table}, cost='params')
    assert 'cascades, mean cost' not in lines


def test_several_tables(read_page):
    better = {name: (m, s + 5) for name, (m, s) in IMAGES.items()}
    tables = {'<a>': make_table(), 'b': make_table(better)}
    text, lines, _ = read_page(tables)
    assert list(lines) == [
        '&lt;a&gt;, others',
        '&lt;a&gt;, 95 % interval',
        'b, others',
        'b, 95 % interval',
    ]
    assert lines['b, others']['y'] == [55]
    assert lines['b, 95 % interval']['y'] == [65, 75, 85]
    assert '<title>&lt;a&gt;, b</title>' in text


def test_without_plotly(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__('sys').modules, 'plotly', None)
    with pytest.raises(UsageError, match=r'mutualnet_mm\[analysis\]'):
        plot_tables({'net': make_table()}, tmp_path / 'page.html')
    assert list(tmp_path.iterdir()) == []
