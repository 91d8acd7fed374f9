# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The figure of the claim: accuracy against cost."""

import math
import statistics
from pathlib import Path
from typing import Dict, List, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from report_tables import spread


class Curve(NamedTuple):
    """What is drawn of one line of the tables.

    Args:
        name (str): For the legend.
        points (dict[float, list[float]]): Accuracies in percent of all seeds,
            by millions of multiply-accumulates.
        dashes (str): Style of a line of networks trained alone, which are
            drawn in black; empty for one network. Defaults to empty.
    """

    name: str
    points: Dict[float, List[float]]
    dashes: str = ''


def draw_curves(panels: Dict[str, List[Curve]], path: Path) -> None:
    """Draw panels side by side, by their titles.

    A line leaves out what something cheaper of its own is better than. Points
    of one seed have no bar.
    """
    figure = Figure(figsize=(12, 5), layout='constrained')
    all_axes = figure.subplots(1, len(panels), sharey=True)
    for (title, curves), axes in zip(panels.items(), all_axes):
        for curve in curves:
            costs = sorted(curve.points)
            means = [statistics.mean(curve.points[cost]) for cost in costs]
            bars = [spread(curve.points[c]) or math.nan for c in costs]
            shape = 'k*' if curve.dashes else 'o'
            drawn = axes.errorbar(costs, means, bars, fmt=shape, capsize=2)
            front = [
                (cost, mean)
                for i, (cost, mean) in enumerate(zip(costs, means))
                if mean == max(means[: i + 1])
            ]
            axes.plot(
                *zip(*front),
                curve.dashes or '-',
                color=drawn[0].get_color(),
                label=curve.name,
            )
        axes.set(xscale='log')
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel='multiply-accumulates [M]', title=title)
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel('top-1 accuracy [%], mean and standard deviation')
    all_axes[0].legend()
    figure.savefig(path, dpi=120)
