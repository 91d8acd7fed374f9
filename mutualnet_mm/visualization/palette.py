# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Colours and marks that all figures share.

Colour-blind readers can tell the colours apart, and lines differ in their
marks as well.
"""

from typing import Any, Dict

from matplotlib.axes import Axes

#: Of Okabe and Ito, without black, which stands for the best subnets, and
#: yellow, which is hard to see on white.
COLOURS = (
    '#0072B2',  # blue
    '#D55E00',  # vermilion
    '#009E73',  # bluish green
    '#CC79A7',  # reddish purple
    '#E69F00',  # orange
    '#56B4E9',  # sky blue
)
#: One more than colours, so that 42 lines look different.
MARKS = ('o', 's', '^', 'D', 'v', 'P', 'X')

#: Shows numbers: from dark to light, by lightness alone where need be.
COLOUR_MAP = 'viridis'


def line_style(number: int) -> Dict[str, Any]:
    """Colour and mark of a line, as arguments of Matplotlib's ``plot``.

    Args:
        number (int): Of the line in its figure, from 0.
    """
    return dict(
        color=COLOURS[number % len(COLOURS)],
        marker=MARKS[number % len(MARKS)],
        markersize=4,
    )


def legend_beside(axes: Axes, **settings: Any) -> None:
    """Put the legend to the right of the axes, where it covers nothing.

    The figure needs ``layout='constrained'``, which makes room for it.

    Args:
        axes (Axes): With something to name.
        **settings: Further arguments of Matplotlib's ``legend``.
    """
    axes.legend(
        loc='upper left',
        bbox_to_anchor=(1, 1),
        fontsize='small',
        frameon=False,
        **settings,
    )
