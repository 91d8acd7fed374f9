import cv2
import numpy as np
import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.query_table import Cascade, QueryTable, TableEntry
from mutualnet_mm.query_table.entry import Latency
from mutualnet_mm.visualization import plot_tables, reduced_dimension


def test_every_resolution_has_a_colour(tmp_path):
    entries = [
        TableEntry(Subnet(width, side), macs, 9, {'box AP': score})
        for width, side, macs, score in (
            (1.0, 128, 4 * 10**9, 0.8),
            (0.5, 128, 10**9, 0.6),
            (0.5, 96, 5 * 10**8, 0.5),
        )
    ]
    colours = []
    for chosen in (entries, entries[:2]):
        table = QueryTable(chosen, 'box AP', 'detection', Subnet(1.0, 128))
        plot_tables({'net': table}, tmp_path / 'curve.png')
        image = cv2.imread(str(tmp_path / 'curve.png'))
        vivid = np.ptp(image.astype(int), axis=2) > 100
        hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 0][vivid]
        colours.append(len(set((hue // 15).tolist())))
    assert colours == [2, 1]


def make_table(better=0.0, metric='accuracy/top1'):
    entries = [
        TableEntry(
            Subnet(width, side),
            int(5e8 * width**2 * side**2 / 128**2),
            100,
            {'accuracy/top1': score + better, 'accuracy/top5': 80 + score / 9},
        )
        for width, side, score in (
            (1.0, 128, 80.0),
            (0.5, 128, 70.0),
            (1.0, 96, 75.0),
            (0.5, 96, 60.0),
        )
    ] + [TableEntry(Subnet(0.25, 96), 9, 9, {})]
    return QueryTable(entries, metric, 'classification', Subnet(1.0, 128))


VIDEO = {
    '1.0x-64-4': (8e9, 0.9),
    '0.8x-64-4': (5e9, 0.8),
    '0.5x-64-4': (2e9, 0.6),
    '1.0x-32-4': (4e9, 0.75),
    '1.0x-64-2': (6e9, 0.7),
    '0.5x-32-4': (1e9, 0.5),
    '0.8x-32-2': (3e9, 0.4),
}
# Multiply-accumulates in G, each line up to the full network.
LINES = {
    'full network': [8],
    'reduced width': [2, 5, 8],
    'reduced resolution': [4, 8],
    'reduced frames': [6, 8],
    'several reduced': [1, 3],
    'the best': [1, 2, 4, 5, 8],
}
FRONT = LINES['the best']
VIDEO_POINTS = {Subnet.parse(name): point for name, point in VIDEO.items()}


def make_video_table(points=VIDEO_POINTS):
    entries = [
        TableEntry(subnet, int(macs), 100, {'acc/top1': score})
        for subnet, (macs, score) in points.items()
    ]
    return QueryTable(entries, 'acc/top1', 'action', Subnet(1.0, 64, 4))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Return what the axes of a plot hold instead of the picture."""
    from matplotlib.figure import Figure

    figures = []
    stock = Figure.savefig

    def savefig(figure, *args, **kwargs):
        figures.append(figure)
        stock(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, 'savefig', savefig)

    def draw(tables, **settings):
        plot_tables(tables, tmp_path / 'curve.png', **settings)
        assert cv2.imread(str(tmp_path / 'curve.png')) is not None
        return figures[-1].axes[0]

    return draw


def test_one_table_has_a_colour_for_each_resolution(drawn):
    lines = drawn({'net': make_table()}).get_lines()
    assert [line.get_label() for line in lines] == [
        '128 px',
        '96 px',
        'the best',
    ]
    assert [len(line.get_xdata()) for line in lines] == [2, 2, 4]
    assert [line.get_marker() for line in lines][:2] == ['o', 's']
    assert len({line.get_color() for line in lines}) == 3


def test_several_tables_have_a_line_through_their_best(drawn):
    axes = drawn({'first': make_table(), 'second': make_table(5.0)})
    lines = {line.get_label(): line for line in axes.get_lines()}
    for label, better in (('first', 0.0), ('second', 5.0)):
        x, y = lines[label].get_data()
        assert list(x) == [70_312_500, 125_000_000, 281_250_000, 500_000_000]
        assert list(y) == [60 + better, 70 + better, 75 + better, 80 + better]
    assert lines['first'].get_color() != lines['second'].get_color()
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ['first', 'second']
    assert axes.get_ylabel() == 'accuracy/top1'


def test_points_off_the_front_are_faint(drawn):
    table = make_table()
    worse = TableEntry(Subnet(0.9, 128), 10**9, 100, {'accuracy/top1': 50.0})
    table = QueryTable(
        [*table.entries, worse], table.metric, table.task, table.full
    )
    axes = drawn({'first': table, 'second': make_table()})
    with_it = [
        line for line in axes.get_lines() if 10**9 in list(line.get_xdata())
    ]
    assert len(with_it) == 1 and with_it[0].get_alpha() < 0.5


def test_another_metric_and_a_logarithmic_axis(drawn):
    tables = {'first': make_table(), 'second': make_table(5.0)}
    assert drawn(tables).get_xscale() == 'linear'
    axes = drawn(tables, metric='accuracy/top5', log=True)
    assert axes.get_xscale() == 'log'
    assert axes.get_ylabel() == 'accuracy/top5'
    assert max(axes.get_lines()[0].get_ydata()) == 80 + 80 / 9


@pytest.mark.parametrize(
    'tables, settings, message',
    [
        (
            dict(a=make_table(), b=make_table(metric='accuracy/top5')),
            {},
            'ranked by accuracy/top1 and accuracy/top5: name one',
        ),
        (
            dict(a=make_table()),
            dict(metric='mAP'),
            "metric 'mAP': use accuracy/top1 or accuracy/top5",
        ),
        ({}, {}, 'no table was given: give one or more'),
    ],
)
def test_metrics_that_do_not_fit(tmp_path, tables, settings, message):
    with pytest.raises(UsageError, match=message):
        plot_tables(tables, tmp_path / 'curve.png', **settings)


@pytest.mark.parametrize('out', ['no/curve.png', 'curve.txt', '.'])
def test_pictures_that_cannot_be_written(tmp_path, out):
    path = tmp_path / out
    with pytest.raises(UsageError, match='cannot be written: ') as caught:
        plot_tables({'a': make_table()}, path)
    message = str(caught.value)
    assert repr(str(path)) in message and '\n' not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('size', [0, 4_000])
def test_a_full_disk_leaves_the_old_picture(tmp_path, full_disk, size):
    path = tmp_path / 'curve.png'
    path.write_bytes(b'old')
    with full_disk(size), pytest.raises(UsageError, match='File too large'):
        plot_tables({'a': make_table()}, path)
    assert path.read_bytes() == b'old' and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    'name, start',
    [('a.png', b'\x89PNG'), ('a', b'\x89PNG'), ('a.pdf', b'%PDF')],
)
def test_the_format_is_that_of_the_name(tmp_path, name, start):
    plot_tables({'a': make_table()}, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    'subnet, reduced',
    [
        ('1.0x-224-8', 'nothing'),
        ('0.9x-224-8', 'width'),
        ('1.0x-178-8', 'resolution'),
        ('1.0x-224-3', 'frames'),
        ('0.9x-178-8', 'several'),
        ('0.9x-224-3', 'several'),
        ('1.0x-178-3', 'several'),
        ('0.63x-142-3', 'several'),
    ],
)
def test_reduced_dimension(subnet, reduced):
    full = Subnet(1.0, 224, 8)
    assert reduced_dimension(Subnet.parse(subnet), full) == reduced


@pytest.mark.parametrize('log', [False, True])
def test_video_is_coloured_by_what_was_reduced(drawn, log):
    axes = drawn({'net': make_video_table()}, log=log)
    lines = {line.get_label(): line for line in axes.get_lines()}
    found = {label: list(line.get_xdata()) for label, line in lines.items()}
    assert found == {k: [g * 1e9 for g in v] for k, v in LINES.items()}
    assert len({line.get_color() for line in lines.values()}) == 5  # 2 black
    assert lines['several reduced'].get_linestyle() == 'None'
    assert lines['reduced width'].get_linestyle() == '-'
    assert axes.get_xscale() == ('log' if log else 'linear')


def test_names_of_video_begin_with_the_best(drawn):
    """They shall have names where not all find room."""
    axes = drawn({'Slow': make_video_table()})
    assert axes.get_ylabel() == 'acc/top1' and axes.get_title() == 'Slow'
    front = [s for s, (macs, _) in VIDEO.items() if macs / 1e9 in FRONT]
    best_first = sorted(front, key=lambda s: -VIDEO[s][1])
    assert [text.get_text() for text in axes.texts] == best_first


def test_what_was_not_reduced_alone_is_not_in_the_legend(drawn):
    points = {
        subnet: point
        for subnet, point in VIDEO_POINTS.items()
        if subnet.width < 1 and subnet.resolution < 64
    }
    axes = drawn({'net': make_video_table(points)})
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['several reduced', 'the best']


def test_tables_of_video_on_a_logarithmic_axis(drawn):
    cheap = {s: (m / 50, a) for s, (m, a) in VIDEO_POINTS.items()}
    tables = dict(slow=make_video_table(), x3d=make_video_table(cheap))
    axes = drawn(tables, log=True)
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines['slow'].get_xdata()) == [1e9, 2e9, 4e9, 5e9, 8e9]
    assert list(lines['x3d'].get_xdata()) == [2e7, 4e7, 8e7, 1e8, 1.6e8]
    low, high = axes.get_xlim()
    ticks = [x for x in axes.get_xticks() if low <= x <= high]
    assert {1e8, 1e9} < set(ticks)
    assert axes.xaxis.get_major_formatter()(1e9) == '1 G'


def test_points_of_images_are_named_by_their_width(drawn):
    names = [text.get_text() for text in drawn({'net': make_table()}).texts]
    assert sorted(names) == ['0.5x', '0.5x', '1x', '1x']


def with_cascades(*figures):
    """Cascades of the first and last subnet of MACs by mean and score."""
    table = make_table()
    large, *_, small = table.entries[:4]
    found = [
        Cascade(
            (small.subnet, large.subnet),
            0.5,
            mean,
            small.macs + large.macs,
            table.metric,
            score,
        )
        for mean, score in figures
    ]
    return QueryTable(
        table.entries, table.metric, table.task, table.full, cascades=found
    )


def test_cascades_are_drawn_beside_subnets(drawn):
    table = with_cascades((100e6, 72.0), (200e6, 74.0), (300e6, 77.0))
    axes = drawn({'net': table})
    lines = {line.get_label(): line for line in axes.get_lines()}
    # With the subnets that are better than any cascade of that cost.
    x, y = lines['cascades, mean cost'].get_data()
    assert list(x) == [70_312_500, 100e6, 200e6, 281_250_000, 300e6, 5e8]
    assert list(y) == [60, 72, 74, 75, 77, 80]
    x, y = lines['the same, worst case'].get_data()
    assert list(x) == [570_312_500] * 3 and list(y) == [72, 74, 77]
    assert list(lines['the best'].get_ydata()) == [60, 70, 75, 80]
    axes = drawn({'first': table, 'second': make_table(5.0)})
    lines = {line.get_label(): line for line in axes.get_lines()}
    dashed = lines['first, cascades']
    assert list(dashed.get_ydata()) == [60, 72, 74, 75, 77, 80]
    assert dashed.get_color() == lines['first'].get_color()
    assert 'second, cascades' not in lines


@pytest.mark.parametrize(
    'table, metric',
    [
        (with_cascades(), None),
        (with_cascades((550e6, 10.0)), None),  # worse than a subnet
        (make_table(), None),
        (with_cascades((100e6, 72.0)), 'accuracy/top5'),
    ],
)
def test_no_cascades_are_drawn(drawn, table, metric):
    lines = drawn({'net': table}, metric=metric).get_lines()
    assert [line.get_label() for line in lines][2:] == ['the best']


def test_latency_as_the_axis(drawn):
    table = make_table()
    figures = {
        entry.subnet: Latency(9.0 - 2 * i, 10.0)
        for i, entry in enumerate(table.entries[:3])
    }
    table = table.with_latencies('cpu-t2-b1', figures)
    axes = drawn({'net': table}, cost='latency_ms')
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines['128 px'].get_xdata()) == [7, 9]
    assert list(lines['96 px'].get_xdata()) == [5]
    assert list(lines['the best'].get_xdata()) == [5, 9]  # another front
    assert axes.get_xlabel() == (
        'median latency in ms (cpu-t2-b1)\n1 of 4 subnets were not measured'
    )
    axes = drawn({'a': table, 'b': make_table(5.0)}, cost='params')
    assert axes.get_xlabel() == 'parameters'


def test_no_cascade_over_another_cost(drawn):
    table = with_cascades((100e6, 72.0))
    lines = drawn({'net': table}, cost='params').get_lines()
    assert not any('cascades' in line.get_label() for line in lines)


def test_intervals_of_a_single_best_subnet(drawn):
    entry = TableEntry(Subnet(1.0, 32), 9, 9, {'accuracy/top1': 50.0})
    table = QueryTable(
        [entry],
        'accuracy/top1',
        'classification',
        entry.subnet,
        num_images=100,
    )
    axes = drawn({'net': table})
    (bar,) = axes.collections
    low, high = table.interval(entry)
    assert bar.get_segments()[0].tolist() == [[9, low], [9, high]]


@pytest.mark.parametrize('several', [False, True])
def test_nothing_is_clipped(drawn, several):
    """All that is written lies inside of the figure, and beside the axes."""
    tables = {'a rather long name of a table': make_table()}
    if several:
        tables['another rather long name of a table'] = make_table(5.0)
    axes = drawn(tables)
    figure, legend = axes.figure, axes.get_legend()
    figure.draw_without_rendering()
    box = legend.get_window_extent()
    assert not axes.bbox.overlaps(box)
    titles = [] if several else [axes.title]
    for shown in (legend, *titles, axes.xaxis.label, axes.yaxis.label):
        corners = shown.get_window_extent().corners()
        assert figure.bbox.padded(1).count_contains(corners) == 4


def test_pixels_of_a_figure(tmp_path):
    from mutualnet_mm.visualization.curves import draw_tables, figure_pixels

    pixels = figure_pixels(draw_tables({'net': make_table()}), dpi=80)
    assert pixels.shape == (320, 600, 3) and pixels.dtype == np.uint8
    plot_tables({'net': make_table()}, tmp_path / 'curve.png')
    saved = cv2.imread(str(tmp_path / 'curve.png'))[..., ::-1]
    saved = cv2.resize(saved, (600, 320), interpolation=cv2.INTER_AREA)
    assert np.abs(saved.astype(int) - pixels).mean() < 8
