# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Detections of several subnets or networks, side by side (Fig. 17)."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import mmcv
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from ..errors import UsageError
from ..models.training_record import TrainingRecord
from ..visualization.palette import COLOURS
from .matching import unmatched
from .trained import TrainedNetwork

_SIDE = 224  # pixels that the short side of a picture has at least
_FRAME = 4  # pixels between a box and its frame
_MISSED, _ONLY_HERE = COLOURS[1], COLOURS[5]


class Panel(NamedTuple):
    """What one subnet finds in an image.

    Attributes:
        name (str): Of the subnet, and of its network if there are several.
        found (InstanceData): Detections with ``bboxes``, ``labels``,
            ``scores`` and, of networks that have them, ``masks``.
    """

    name: str
    found: Any


class Comparison(NamedTuple):
    """A panel beside the first one.

    Attributes:
        name (str): The panel's.
        found (int): How many detections it has.
        only_here (list[int]): Its own that the first panel misses. Of the
            first panel, those that any other misses.
        missed (list[int]): The first panel's that it misses.
    """

    name: str
    found: int
    only_here: List[int]
    missed: List[int]


def shared_meta(checkpoints: Sequence[str]) -> dict:
    """Return the metadata of the classes that networks were trained for.

    Args:
        checkpoints (Sequence[str]): Files of the networks.

    Raises:
        UsageError: If they name different classes: detections of the same
            number would count as the same.
    """
    metas = [TrainingRecord(path).dataset_meta for path in checkpoints]
    known = [
        (path, tuple(meta['classes']))
        for path, meta in zip(checkpoints, metas)
        if meta.get('classes')
    ]
    for path, classes in known:
        if classes != known[0][1]:
            raise UsageError(
                f'{known[0][0]!r} and {path!r} were trained for different '
                'classes: compare networks of the same data set'
            )
    return metas[0]


class Detectors:
    """Subnets of one or more trained detectors.

    Args:
        networks (dict[str, TrainedNetwork]): By name. With more than one,
            panels bear it.
        score (float): Least score of what counts as found. Defaults to 0.3.

    Raises:
        UsageError: If a network is no detector.
    """

    def __init__(
        self, networks: Dict[str, TrainedNetwork], score: float = 0.3
    ) -> None:
        self._score = score
        self._panels: List[Tuple[str, TrainedNetwork, Any]] = []
        for name, network in networks.items():
            if network.model.task.name != 'detection':
                raise UsageError(
                    f'{type(network.model).__name__} finds no boxes in '
                    'images: give the config of a detector'
                )
            for subnet in network.subnets:
                label = (
                    f'{name}: {subnet}' if len(networks) > 1 else f'{subnet}'
                )
                self._panels.append((label, network, network.static(subnet)))

    @torch.no_grad()
    def __call__(self, path: str) -> List[Panel]:
        """Return what each subnet finds in an image file.

        Raises:
            UsageError: If the file cannot be read.
        """
        panels = []
        for name, network, net in self._panels:
            inputs, samples = network.inputs([path])
            (sample,) = net(inputs, samples, mode='predict')
            found = sample.pred_instances.cpu()
            panels.append(Panel(name, found[found.scores >= self._score]))
        return panels


def compare_panels(
    panels: Sequence[Panel], iou: float = 0.5
) -> List[Comparison]:
    """Say what each panel finds and the first misses, and the other way.

    Args:
        panels (Sequence[Panel]): Of one image.
        iou (float): Least overlap of detections that are the same; they also
            have the same class. Defaults to 0.5.
    """
    first = _parts(panels[0].found)
    rest, lacking = [], set()
    for panel in panels[1:]:
        missed, only_here = unmatched(first, _parts(panel.found), iou)
        lacking.update(missed)
        rest.append(
            Comparison(panel.name, len(panel.found), only_here, missed)
        )
    head = panels[0]
    return [
        Comparison(head.name, len(head.found), sorted(lacking), []),
        *rest,
    ]


def _parts(found: Any) -> Tuple[Tensor, Tensor, Tensor]:
    return found.bboxes.float(), found.labels, found.scores


def draw_comparison(
    path: str,
    panels: Sequence[Panel],
    compared: Sequence[Comparison],
    dataset_meta: Optional[dict] = None,
) -> Figure:
    """Draw the panels side by side, with what they do not share framed.

    A solid blue frame is round what only this panel finds (of the first one,
    what another misses), a dashed red one where it misses what the first one
    finds.

    Args:
        path (str): Image file.
        panels (Sequence[Panel]): What was found in it.
        compared (Sequence[Comparison]): Of these panels.
        dataset_meta (dict, optional): Names (``classes``) and colours
            (``palette``) of the classes. Defaults to numbers.
    """
    image = mmcv.imread(path, channel_order='rgb')
    zoom = max(1, -(-_SIDE // min(image.shape[:2])))
    image = mmcv.imrescale(image, float(zoom), interpolation='nearest')
    height, width = image.shape[:2]
    figure = Figure(
        figsize=(4.5 * len(panels), 4.5 * height / width + 0.7),
        layout='constrained',
    )
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)  # type: ignore
    first = panels[0].found
    for axes, panel, own in zip(
        np.ravel(figure.subplots(1, len(panels))), panels, compared
    ):
        drawn = _draw(image, panel.found, zoom, dataset_meta)
        axes.imshow(drawn)
        for found, indices, style in (
            (panel.found, own.only_here, dict(ec=_ONLY_HERE, ls='-')),
            (first, own.missed, dict(ec=_MISSED, ls='--')),
        ):
            for box in found.bboxes[indices].tolist():
                _frame(axes, [zoom * side for side in box], image, **style)
        parts = [f'{own.found} found']
        if panel is panels[0]:
            parts.append(f'{len(own.only_here)} missed by others')
        else:
            parts.append(f'{len(own.only_here)} only here')
            parts.append(f'{len(own.missed)} missed')
        axes.set_title(f'{panel.name}\n{", ".join(parts)}', fontsize=10)
        axes.set(xlim=(0, width), ylim=(height, 0))  # not beyond the image
        axes.axis('off')
    return figure


def _frame(
    axes: Any, box: Sequence[float], image: np.ndarray, ec: str, ls: str
) -> None:
    """Frame a box, inside of the image."""
    height, width = image.shape[:2]
    x1, y1 = (max(side - _FRAME, 0) for side in box[:2])
    x2, y2 = (
        min(side + _FRAME, most)
        for side, most in zip(box[2:], (width, height))
    )
    axes.add_patch(
        Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, lw=2.5, ec=ec, ls=ls)
    )


def _draw(
    image: np.ndarray, found: Any, zoom: int, dataset_meta: Optional[dict]
) -> np.ndarray:
    """Boxes and masks on an enlarged image, by mmdet's own visualizer."""
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    # Boxes beyond the image would grow the canvas, and shrink the image.
    height, width = image.shape[:2]
    edges = found.bboxes.new_tensor([width, height, width, height])
    boxes = (found.bboxes * zoom).clamp(min=0).minimum(edges)
    large = found.new(bboxes=boxes, labels=found.labels)
    large.scores = found.scores
    if 'masks' in found:
        masks = torch.as_tensor(np.asarray(found.masks))
        for axis in (1, 2):
            masks = masks.repeat_interleave(zoom, axis)
        large.masks = masks
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dataset_meta or {}
    visualizer.add_datasample(
        'comparison',
        image.copy(),
        DetDataSample(pred_instances=large),
        draw_gt=False,
        pred_score_thr=0.0,
    )
    return visualizer.get_image()


def totals(
    images: Dict[str, Sequence[Comparison]],
) -> List[Dict[str, Any]]:
    """Sum over images what each panel finds, alone finds and misses."""
    rows: Dict[str, Dict[str, Any]] = {}
    for compared in images.values():
        for own in compared:
            row = rows.setdefault(
                own.name, dict(panel=own.name, found=0, only_here=0, missed=0)
            )
            row['found'] += own.found
            row['only_here'] += len(own.only_here)
            row['missed'] += len(own.missed)
    return list(rows.values())


def name_networks(checkpoints: Sequence[str]) -> List[str]:
    """Short names of checkpoint files: those of their folders, if unlike."""
    for names in (
        [Path(c).stem for c in checkpoints],
        [Path(c).resolve().parent.name for c in checkpoints],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(c) for c in checkpoints]
