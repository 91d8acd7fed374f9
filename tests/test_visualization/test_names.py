import numpy as np
import pytest
from matplotlib.figure import Figure

from mutualnet_mm.visualization.names import name_points


def draw(points, names):
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    axes.plot(*zip(*points), 'o', label='points')
    axes.legend(loc='lower right')
    name_points(figure, names, points)
    figure.draw_without_rendering()
    return axes


def edges(text):
    box = text.get_window_extent()
    return np.array([box.x0, box.y0, box.x1, box.y1])


def overlap(a, b):
    return bool(np.all(np.minimum(a, b)[2:] > np.maximum(a, b)[:2]))


@pytest.mark.parametrize('seed', range(3))
def test_names_cover_nothing(seed):
    rng = np.random.default_rng(seed)
    points = [tuple(point) for point in rng.uniform(size=(60, 2))]
    names = [(f'0.{i}x-224-8', point) for i, point in enumerate(points)]
    axes = draw(points, names)
    boxes = [edges(text) for text in axes.texts]
    assert 10 < len(boxes) < len(names)
    for i, box in enumerate(boxes):
        assert not any(overlap(box, other) for other in boxes[:i])
        assert not overlap(box, edges(axes.get_legend()))
        inside = np.array(axes.bbox.extents)
        assert np.all(box[:2] >= inside[:2])
        assert np.all(box[2:] <= inside[2:])
        for x, y in axes.transData.transform(points):
            assert not (box[0] <= x <= box[2] and box[1] <= y <= box[3])


def test_the_first_comes_first():
    """Of nine points in one place, whatever has no room has no name."""
    points = [(0.5, 0.5)] * 9 + [(0.0, 0.0), (1.0, 1.0)]
    names = [(f'{i}.0x-224-8', point) for i, point in enumerate(points[:9])]
    texts = [text.get_text() for text in draw(points, names).texts]
    assert texts == ['0.0x-224-8', '1.0x-224-8', '2.0x-224-8', '3.0x-224-8']
