# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Accuracy against multiply-accumulates."""

from collections import defaultdict
from pathlib import Path
from typing import Dict, Mapping, Tuple, Union

from matplotlib.figure import Figure

from ..subnet import Subnet


def plot_curve(
    points: Mapping[Subnet, Tuple[float, float]],
    metric: str,
    out: Union[str, Path],
    title: str = '',
) -> None:
    """Draw one network's accuracy-MACs curve as a PNG.

    Args:
        points (Mapping): ``{subnet: (multiply-accumulates, accuracy)}``; one
            colour for each resolution, each point named by its width.
        metric (str): Label of the accuracy axis.
        out (str or Path): File to write.
        title (str): Defaults to none.
    """
    figure = Figure(figsize=(6, 4), layout='constrained')
    axes = figure.add_subplot()
    lines: Dict[int, list] = defaultdict(list)
    for subnet, (macs, accuracy) in points.items():
        lines[subnet.resolution].append((macs / 1e9, accuracy, subnet.width))
    for resolution in sorted(lines, reverse=True):
        line = sorted(lines[resolution])
        axes.plot(
            *zip(*[point[:2] for point in line]), 'o-', label=str(resolution)
        )
        for macs, accuracy, width in line:
            axes.annotate(
                f'{width:g}x',
                (macs, accuracy),
                xytext=(4, 4),
                textcoords='offset points',
                fontsize='small',
            )
    axes.set(xlabel='multiply-accumulates [G]', ylabel=metric, title=title)
    axes.legend(title='resolution')
    axes.grid(alpha=0.3)
    figure.savefig(out, dpi=150)
