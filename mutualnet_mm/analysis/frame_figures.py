# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Activation along the frames of a clip, as in Fig. 4."""

from pathlib import Path
from typing import Any, List, Optional, Sequence, Union

import numpy as np
from matplotlib.figure import Figure

from ..models.clips import frame_indices
from ..visualization.palette import legend_beside, line_style
from .frame_activation import FrameActivation
from .map_figures import class_name, lay_over, save_arrays
from .pixels import enlarge_map

MOST_FRAMES = 12  # that a figure shows side by side
INCHES = 1.1  # of one frame


def draw_frames(
    clip: np.ndarray,
    found: Sequence[FrameActivation],
    names: Optional[Sequence[str]] = None,
) -> Figure:
    """Draw the curve of each subnet, and below the frames with their maps.

    Yellow is the most of all frames of one subnet: colours compare frames, not
    subnets. Frames that a subnet does not see are left out of its row.

    Args:
        clip (np.ndarray): As the full network sees it, (T, H, W, 3).
        found (Sequence[FrameActivation]): Of the same clip.
        names (Sequence[str], optional): Of the classes. Defaults to their
            numbers.
    """
    columns = shown_frames(found)
    height, width = clip.shape[1:3]
    figure = Figure(
        figsize=(
            INCHES * len(columns) + 1.6,
            2.2 + (INCHES * height / width + 0.1) * len(found),
        ),
        layout='constrained',
    )
    parts: Any = figure.subfigures(
        2, height_ratios=(2.2, (INCHES * height / width + 0.1) * len(found))
    )
    above, below = parts
    axes = above.subplots()
    axes.set(xlabel='frame', ylabel='normalised activation', ylim=(0, 1.05))
    axes.set_xticks(columns)
    axes.grid(alpha=0.3)
    for number, one in enumerate(found):
        label = _title(one, names)
        axes.plot(one.frames, one.curve, label=label, **line_style(number))
    legend_beside(axes)
    grid = below.subplots(len(found), len(columns), squeeze=False)
    for row, one in zip(grid, found):
        highest = max(one.maps.max(), np.finfo(np.float32).tiny)
        row[0].text(
            *(-0.08, 0.5, str(one.subnet)),
            transform=row[0].transAxes,
            ha='right',
            va='center',
            fontsize='small',
        )
        for place, frame in zip(row, columns):
            place.set_axis_off()
            if frame in one.frames:
                values = one.maps[one.frames.index(frame)]
                place.imshow(clip[frame])
                lay_over(place, enlarge_map(values, (height, width)) / highest)
    return figure


def shown_frames(found: Sequence[FrameActivation]) -> List[int]:
    """Choose frames to show: all that are seen, or as many as fit.

    Args:
        found (Sequence[FrameActivation]): Of the same clip.
    """
    seen = sorted({frame for one in found for frame in one.frames})
    picked = frame_indices(len(seen), min(MOST_FRAMES, len(seen)))
    return [seen[i] for i in picked]


def save_frames(
    found: Sequence[FrameActivation], path: Union[str, Path]
) -> None:
    """Write raw maps as ``.npz``.

    The maps of ``0.7x-160-4``, (frames, h, w), have this very name;
    ``0.7x-160-4/frames``, ``/curve``, ``/label``, ``/score`` and
    ``/predicted`` are beside them.

    Args:
        found (Sequence[FrameActivation]): Of one clip, of different subnets.
        path (str or Path): File to write.

    Raises:
        UsageError: If it cannot be written.
    """
    beside = ('frames', 'curve', 'label', 'score', 'predicted')
    save_arrays(found, 'maps', beside, path)


def _title(one: FrameActivation, names: Optional[Sequence[str]]) -> str:
    return (
        f'{one.subnet}\n{class_name(one.label, names)}, score {one.score:.2f}'
    )
