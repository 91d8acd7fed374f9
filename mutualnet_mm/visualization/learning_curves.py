# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Losses and metrics of every subnet over a training."""

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..errors import UsageError
from ..files import atomic_write
from .palette import legend_beside, line_style
from .training_log import Curve, TrainingLog

# Of trainings; colours and marks are of subnets.
_STYLES = ('-', '--', ':', '-.')


def plot_trainings(
    logs: Mapping[str, TrainingLog],
    out: Union[str, Path],
    metrics: Optional[Sequence[str]] = None,
) -> None:
    """Draw the losses of trainings, and below them metrics, as a picture.

    A colour is one subnet's in all panels of metrics. If there are several
    trainings, each has a style of its lines.

    Args:
        logs (Mapping): Trainings by their names in the legend, at most four.
        out (str or Path): File to write, ``.png``, ``.pdf`` or another format
            of Matplotlib's; a PNG if it does not end in one.
        metrics (Sequence[str], optional): Such as ``['coco/bbox_mAP']``, a
            panel for each. Defaults to the first one.

    Raises:
        UsageError: If there are more trainings, if none has such a metric, if
            metrics have steps of several kinds, or if ``out`` cannot be
            written.
    """
    if not 0 < len(logs) <= len(_STYLES):
        raise UsageError(
            f'{len(logs)} trainings: give 1 to {len(_STYLES)}, whose lines '
            'can be told apart'
        )
    known = list(
        dict.fromkeys(m for log in logs.values() for m in log.metrics)
    )
    chosen = known[:1] if metrics is None else list(metrics)
    for metric in chosen:
        if metric not in known:
            raise UsageError(
                f'metric {metric!r} was not logged: use '
                f'{" or ".join(known) or "a training with validation"}'
            )
    units = {log.unit for log in logs.values() if log.metrics}
    if chosen and len(units) > 1:
        raise UsageError(
            'some trainings log metrics by epoch and some by iteration: draw '
            'them into pictures of their own'
        )
    figure = Figure(figsize=(7.5, 3 * (1 + len(chosen))), layout='constrained')
    above, *below = figure.subplots(1 + len(chosen), squeeze=False)[:, 0]
    _draw(
        above, {name: log.losses for name, log in logs.items()}, marked=False
    )
    above.set(xlabel='iteration', ylabel='loss')
    for axes, metric in zip(below, chosen):
        curves = {n: log.metrics.get(metric, {}) for n, log in logs.items()}
        _draw(axes, curves, marked=True)
        axes.set(xlabel=units.copy().pop(), ylabel=metric)
    kind = Path(out).suffix[1:].lower() or 'png'
    if kind not in figure.canvas.get_supported_filetypes():
        raise UsageError(
            f'picture {str(out)!r} cannot be written: name a .png or .pdf file'
        )
    with atomic_write(out) as file:
        figure.savefig(file, dpi=150, format=kind)


def _draw(
    axes: Axes, trainings: Mapping[str, Dict[str, Curve]], marked: bool
) -> None:
    subnets: List[str] = list(
        dict.fromkeys(s for curves in trainings.values() for s in curves)
    )
    for (name, curves), dashes in zip(trainings.items(), _STYLES):
        for subnet, curve in curves.items():
            style: Dict[str, Any] = line_style(subnets.index(subnet))
            if not marked and len(curve) > 1:  # of hundreds of points
                style.pop('marker')
            prefix = f'{name}: ' if len(trainings) > 1 else ''
            axes.plot(
                list(curve),
                list(curve.values()),
                linestyle=dashes,
                linewidth=1.2,
                label=f'{prefix}{subnet}',
                **style,
            )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    legend_beside(axes)
