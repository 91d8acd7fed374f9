import cv2
import numpy as np
import pytest

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.evaluation import QueryTable, TableEntry
from mutualnet_mm.visualization import plot_curve, plot_tables


def test_every_resolution_has_a_colour(tmp_path):
    points = {
        Subnet(1.0, 128): (4e9, 0.8),
        Subnet(0.5, 128): (1e9, 0.6),
        Subnet(0.5, 96): (5e8, 0.5),
    }
    colours = []
    for chosen in (points, dict(list(points.items())[:2])):
        plot_curve(chosen, 'box AP', tmp_path / 'curve.png')
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
    ],
)
def test_metrics_that_do_not_fit(tmp_path, tables, settings, message):
    with pytest.raises(ConfigError, match=message):
        plot_tables(tables, tmp_path / 'curve.png', **settings)


@pytest.mark.parametrize('out', ['no/curve.png', 'curve.txt'])
def test_pictures_that_cannot_be_written(tmp_path, out):
    with pytest.raises(ConfigError, match='cannot be written'):
        plot_tables({'a': make_table()}, tmp_path / out)
