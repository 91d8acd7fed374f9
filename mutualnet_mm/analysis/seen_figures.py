# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What subnets see, side by side."""

from typing import Any, List

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..models.clips import frame_indices
from ..visualization.palette import COLOURS
from .seen_inputs import Objects, SeenSample, View

COLUMNS = 4  # of images
MOST_FRAMES = 12  # that a figure shows side by side
_INCHES, _FRAME_INCHES = 3.8, 1.3  # of one image, of one frame


def draw_sample(sample: SeenSample) -> Figure:
    """Draw a sample as each subnet sees it, a panel for each.

    Panels have one size whatever the resolution, pixels are shown as they
    are, and the line in white is where the padding begins. Of clips, each
    subnet has a row of frames, with their numbers in the delivered clip.

    Args:
        sample (SeenSample): With a view at least.
    """
    if sample.views[0].subnet.frames is None:
        figure = _draw_images(sample.views)
    else:
        figure = _draw_clips(sample.views)
    title = ': '.join(filter(None, (sample.name, sample.label)))
    figure.suptitle(title, fontsize=10)
    return figure


def _draw_images(views: List[View]) -> Figure:
    columns = min(COLUMNS, len(views))
    rows = -(-len(views) // columns)
    height, width = views[0].frames.shape[1:3]
    figure = _new_figure(
        _INCHES * columns, rows * (_INCHES * height / width + 0.4)
    )
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis('off')
    for axes, view in zip(grid, views):
        _show(axes, view, 0)
        axes.set_title(_title(view), fontsize=9)
    return figure


def _draw_clips(views: List[View]) -> Figure:
    seen = sorted({number for view in views for number in view.numbers})
    columns = [
        seen[i] for i in frame_indices(len(seen), min(MOST_FRAMES, len(seen)))
    ]
    height, width = views[0].frames.shape[1:3]
    figure = _new_figure(
        _FRAME_INCHES * len(columns) + 0.4,
        len(views) * (_FRAME_INCHES * height / width + 0.5),
    )
    rows: Any = figure.subfigures(len(views), 1, squeeze=False)[:, 0]
    for row, view in zip(rows, views):
        row.suptitle(_title(view), fontsize=9)
        for axes, number in zip(
            row.subplots(1, len(columns), squeeze=False).flat, columns
        ):
            axes.axis('off')
            if number in view.numbers:
                _show(axes, view, view.numbers.index(number))
                axes.set_title(f'frame {number}', fontsize=7)
    return figure


def _new_figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height + 0.5), layout='constrained')
    figure.get_layout_engine().set(h_pad=0.05)  # type: ignore
    return figure


def _title(view: View) -> str:
    height, width = view.size
    title = f'{view.subnet}: {height} x {width}'
    padded = view.frames.shape[1:3]
    if padded != view.size:
        title += f' in {padded[0]} x {padded[1]}'
    if view.subnet.frames is not None:
        title += f', {len(view.frames)} frames'
    if view.objects is not None:
        number = len(view.objects.boxes)
        title += f', {number} {"box" if number == 1 else "boxes"}'
    return title


def _show(axes: Axes, view: View, frame: int) -> None:
    pixels = view.frames[frame]
    height, width = pixels.shape[:2]
    # Coordinates of boxes count edges of pixels, not their centres.
    extent = (0, width, height, 0)
    axes.imshow(pixels, extent=extent)
    if view.size != (height, width):
        axes.add_patch(
            Rectangle((0, 0), *view.size[::-1], fill=False, ec='w', lw=0.8)
        )
    if view.objects is not None:
        _draw_objects(axes, view.objects)
    # Boxes may reach beyond the image.
    axes.set(xlim=(0, width), ylim=(height, 0))


def _draw_objects(axes: Axes, objects: Objects) -> None:
    for i, (left, top, right, bottom) in enumerate(objects.boxes):
        colour = COLOURS[i % len(COLOURS)]
        axes.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                ec=colour,
                lw=1.5,
            )
        )
        if objects.names:
            axes.text(
                max(left, 0),
                max(top, 0),
                objects.names[i],
                color='w',
                fontsize=7,
                va='top',
                clip_on=True,
                bbox=dict(facecolor=colour, edgecolor='none', pad=1),
            )
        if objects.masks is not None:
            mask = objects.masks[i]
            layer = np.zeros((*mask.shape, 4))
            layer[mask] = (*to_rgb(colour), 0.45)
            axes.imshow(
                layer,
                extent=(0, mask.shape[1], mask.shape[0], 0),
                interpolation='nearest',
            )
