# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Names of points in a plot, as many as there is room for."""

from typing import Iterable, Sequence, Tuple

from matplotlib.figure import Figure

Point = Tuple[float, float]

# Offset in points, horizontal and vertical alignment. No subnet is better and
# cheaper than one of the Pareto set: the place above left is free.
_PLACES = (
    ((-4, 4), 'right', 'bottom'),
    ((4, 4), 'left', 'bottom'),
    ((4, -4), 'left', 'top'),
    ((-4, -4), 'right', 'top'),
)


# Kept free around a name, in pixels, so that it is clear which point it names.
_MARGIN = 3


def name_points(
    figure: Figure, names: Sequence[Tuple[str, Point]], points: Iterable[Point]
) -> None:
    """Write names beside points, without covering points or each other.

    A name that fits nowhere is left out.

    Args:
        figure (Figure): Figure with a single axes, everything else drawn.
        names (Sequence): Names and their points, the most important first.
        points (Iterable): All points, with a name or without.
    """
    figure.draw_without_rendering()  # settles the layout
    (axes,) = figure.axes
    drawn = axes.transData.transform(list(points))
    legend = axes.get_legend()
    taken = [] if legend is None else [legend.get_window_extent()]
    for text, point in names:
        for offset, horizontal, vertical in _PLACES:
            name = axes.annotate(
                text,
                point,
                xytext=offset,
                textcoords='offset points',
                fontsize='small',
                ha=horizontal,
                va=vertical,
            )
            box = name.get_window_extent()
            if (
                axes.bbox.count_contains(box.corners()) == 4
                and not box.padded(_MARGIN).count_contains(drawn)
                and not box.count_overlaps(taken)
            ):
                taken.append(box)
                break
            name.remove()
