# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Maps of several subnets side by side over an image, as in Fig. 1."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Union

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..errors import UsageError
from ..files import atomic_write
from ..visualization.palette import COLOUR_MAP
from .activation_maps import ActivationMap
from .pixels import Size, enlarge_map, evidence

INCHES = 2.2  # of one picture


def draw_maps(
    pixels: np.ndarray,
    maps: Sequence[ActivationMap],
    names: Optional[Sequence[str]] = None,
) -> Figure:
    """Draw an image, and the map of each subnet over it.

    Dark blue is no evidence, yellow the most of this map: colours compare
    places in a map, not maps.

    Args:
        pixels (np.ndarray): Image as the full network sees it, (H, W, 3),
            without padding.
        maps (Sequence[ActivationMap]): In the order to show.
        names (Sequence[str], optional): Of the classes. Defaults to their
            numbers.
    """
    height, width = pixels.shape[:2]
    columns = len(maps) + 1
    figure = Figure(
        figsize=(INCHES * columns, INCHES * height / width + 0.6),
        layout='constrained',
    )
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore
    axes = figure.subplots(1, columns)
    _show(axes[0], pixels, 'image')
    for place, found in zip(axes[1:], maps):
        _show(place, pixels, _title(found, names))
        lay_over(place, evidence(spread_map(found, (height, width))))
    return figure


def spread_map(found: ActivationMap, size: Size) -> np.ndarray:
    """Interpolate a map to the size of the image, without padding.

    Args:
        found (ActivationMap): Of the image.
        size (tuple[int]): Height and width to give it.
    """
    height, width = size
    canvas = round(height / found.inside[0]), round(width / found.inside[1])
    return enlarge_map(found.values, canvas)[:height, :width]


def lay_over(axes: Axes, shares: np.ndarray) -> None:
    """Draw a map over an image of its size.

    Args:
        axes (Axes): Of the image.
        shares (np.ndarray): (H, W), 1 is yellow and 0 dark blue.
    """
    axes.imshow(shares, cmap=COLOUR_MAP, alpha=0.5, vmin=0, vmax=1)


def save_figure(figure: Figure, path: Union[str, Path]) -> None:
    """Write a picture, whole or not at all.

    Args:
        figure (Figure): To write.
        path (str or Path): A ``.png`` file.

    Raises:
        UsageError: If it cannot be written.
    """
    with atomic_write(path) as file:
        figure.savefig(file, dpi=100, format='png')


def save_arrays(
    found: Sequence[Any],
    values: str,
    others: Sequence[str],
    path: Union[str, Path],
) -> None:
    """Write what subnets have found as ``.npz``.

    Args:
        found (Sequence): With a ``subnet`` each, all different.
        values (str): Attribute that is written by the subnet's very name,
            such as ``0.5x-16``.
        others (Sequence[str]): Those beside it, such as ``0.5x-16/label``; -1
            stands for None.
        path (str or Path): File to write.

    Raises:
        UsageError: If it cannot be written.
    """
    arrays: Dict[str, Any] = {}
    for one in found:
        arrays[str(one.subnet)] = getattr(one, values)
        for key in others:
            value = getattr(one, key)
            arrays[f'{one.subnet}/{key}'] = np.array(
                -1 if value is None else value
            )
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays)


def save_maps(maps: Sequence[ActivationMap], path: Union[str, Path]) -> None:
    """Write raw maps as ``.npz``.

    The map of ``0.5x-16`` has this very name; ``0.5x-16/label``, ``/score``
    and ``/predicted`` are beside it, -1 where there is no label.

    Args:
        maps (Sequence[ActivationMap]): Of one image, of different subnets.
        path (str or Path): File to write.

    Raises:
        UsageError: If it cannot be written.
    """
    save_arrays(maps, 'values', ('label', 'score', 'predicted'), path)


def output_names(files: Sequence[str]) -> List[str]:
    """Name the outputs of files, without suffix.

    Args:
        files (Sequence[str]): Images or videos.

    Raises:
        UsageError: If two would have the same name.
    """
    stems = [Path(file).stem for file in files]
    for stem in stems:
        if stems.count(stem) > 1:
            raise UsageError(
                f'two files are named {stem!r}, as their pictures would be: '
                'give each with an --out of its own'
            )
    return stems


def class_name(label: Optional[int], names: Optional[Sequence[str]]) -> str:
    """Say which class a map is of.

    Args:
        label (int, optional): Its number; None for all that a detector finds.
        names (Sequence[str], optional): Of all classes, where they are known.
    """
    if label is None:
        return 'all classes'
    return names[label] if names else f'class {label}'


def _title(found: ActivationMap, names: Optional[Sequence[str]]) -> str:
    label = class_name(found.label, names)
    return f'{found.subnet}\n{label}, {found.score_name} {found.score:.2f}'


def _show(axes: Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels)
    axes.set_title(title, fontsize='small')
    axes.set_axis_off()
