# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Weakly supervised localisation: boxes from activation maps (Table 2)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np
from torch.utils.data import DataLoader

from ..errors import ConfigError, UsageError
from ..files import atomic_write, check_target, csv_text
from ..progress_bars import track
from ..query_table.intervals import wilson_interval
from ..subnet import Subnet
from .activation_maps import ActivationMap, classifier_maps
from .box_checks import check_inside, check_localization, label_of
from .pixels import enlarge_map
from .trained import TrainedNetwork
from .true_boxes import TrueBoxes
from .view import to_original

LARGE, SMALL = 0.5, 0.2  # share of the image that the object's box takes
MIN_OVERLAP = 0.5  # intersection over union must be above
GROUPS = ('all', 'large', 'small')
OF_MAPS = ('truth', 'prediction')


@dataclass(frozen=True)
class Localized:
    """One image, as one subnet localises its object.

    Attributes:
        subnet (str): Such as ``'0.5x-160'``.
        image (str): Path of the file.
        share (float): Of the image that its largest box takes.
        label (int): True class.
        predicted (int): Class that the subnet predicts.
        overlaps (dict): By threshold, intersection over union of the found
            box with the true box that it fits best.
    """

    subnet: str
    image: str
    share: float
    label: int
    predicted: int
    overlaps: Dict[float, float]


@dataclass(frozen=True)
class Accuracy:
    """How many objects of one group a subnet localises.

    Attributes:
        subnet (str): Such as ``'0.5x-160'``.
        threshold (float): Of its maximum, from which on a map is in the box.
        group (str): Of :data:`GROUPS`.
        images (int): In the group.
        right (int): Of them, localised.
        accuracy (float, optional): Percent; None of no image.
        low (float, optional): Lower bound at 95 %, by Wilson's score.
        high (float, optional): Upper bound.
        only_this (int): Images that the first subnet gets wrong and this one
            right.
        only_first (int): The reverse.
        top1 (float, optional): Percent classified right.
    """

    subnet: str
    threshold: float
    group: str
    images: int
    right: int
    accuracy: Optional[float]
    low: Optional[float]
    high: Optional[float]
    only_this: int
    only_first: int
    top1: Optional[float]


def box_of(values: np.ndarray, threshold: float) -> Optional[np.ndarray]:
    """Box a map: the largest connected part that is strong enough.

    Points count that reach ``threshold`` times the maximum; those that touch
    at a side or corner are connected.

    Args:
        values (np.ndarray): Map, (H, W), at the size of the image.
        threshold (float): Fraction of the maximum, between 0 and 1.

    Returns:
        np.ndarray or None: Left, top, right and bottom edge; None of a map
        without any positive value.
    """
    highest = values.max()
    if not highest > 0:
        return None
    strong = (values >= threshold * highest).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(strong, connectivity=8)
    parts = stats[1:]  # the first is the rest of the image
    left, top, width, height, _ = parts[parts[:, cv2.CC_STAT_AREA].argmax()]
    return np.array([left, top, left + width, top + height], float)


def overlaps_of(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box with others.

    Args:
        box (np.ndarray): (4,), edges: left, top, right, bottom.
        boxes (np.ndarray): (N, 4).

    Returns:
        np.ndarray: (N,).
    """
    lower = np.maximum(box[:2], boxes[:, :2])
    upper = np.minimum(box[2:], boxes[:, 2:])
    common = np.clip(upper - lower, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return common / ((box[2:] - box[:2]).prod() + areas - common)


def localize(
    network: TrainedNetwork,
    truth: TrueBoxes,
    thresholds: Sequence[float] = (0.2,),
    of: str = 'truth',
    images: Optional[DataLoader] = None,
) -> List[Localized]:
    """Localise the objects of the first test set with every subnet.

    Boxes are compared in the original image. Of what a test pipeline crops
    away, nothing can be found.

    Args:
        network (TrainedNetwork): A classifier with its subnets.
        truth (TrueBoxes): Of the test set's images.
        thresholds (Sequence[float]): Fractions of a map's maximum. Defaults
            to ``(0.2,)``.
        of (str): Class to map: ``'truth'``, the true one, which measures
            where a subnet looks whatever it predicts, or ``'prediction'``.
            Defaults to ``'truth'``.
        images (DataLoader, optional): The test set, as
            :func:`~.check_localization` returns it. Defaults to its call.

    Raises:
        ConfigError: If the network is no classifier, an image has no box, or
            the test pipeline is not one that boxes can be followed through.
        UsageError: If a threshold is not between 0 and 1.
    """
    if network.model.task.name != 'classification':
        raise ConfigError(
            'boxes are found with the maps of classifiers, and this model is '
            f'for {network.model.task.name}'
        )
    if images is None:
        images = check_localization(network.cfg, truth, thresholds)
    nets = [network.static(subnet) for subnet in network.subnets]
    found = []
    for inputs, samples in _batches(network, images):
        size = inputs.shape[-2], inputs.shape[-1]
        labels = [label_of(sample) for sample in samples]
        boxes = [truth.of(sample.img_path) for sample in samples]
        for sample, true in zip(samples, boxes):
            check_inside(sample, true, truth)
        for net in nets:
            maps = classifier_maps(
                net, inputs, samples, labels if of == 'truth' else None
            )
            for one, sample, label, true in zip(maps, samples, labels, boxes):
                if not np.isfinite(one.values).all():
                    raise UsageError(
                        f'the map of {one.subnet} of {sample.img_path!r} is '
                        'not finite: take an earlier checkpoint'
                    )
                overlaps = _overlaps(one, sample, size, true, thresholds)
                found.append(
                    Localized(
                        str(one.subnet),
                        sample.img_path,
                        _share(true, sample.ori_shape),
                        label,
                        int(one.predicted or 0),
                        overlaps,
                    )
                )
    return found


def summarize(
    found: Sequence[Localized], subnets: Sequence[Union[str, Subnet]]
) -> List[Accuracy]:
    """Count what each subnet localises, in all, large and small images.

    Images are large where the largest box takes more than half of them, and
    small where it takes less than a fifth.

    Args:
        found (Sequence[Localized]): As :func:`localize` returns it.
        subnets (Sequence[str or Subnet]): The first is the one that others
            are compared with, image by image.
    """
    rows = []
    names = [str(subnet) for subnet in subnets]
    for threshold in found[0].overlaps if found else ():
        for group in GROUPS:
            right: Dict[str, np.ndarray] = {}
            for name in names:
                own = [
                    one
                    for one in found
                    if one.subnet == name and _is_in(group, one.share)
                ]
                right[name] = np.array(
                    [o.overlaps[threshold] > MIN_OVERLAP for o in own], bool
                )
                rows.append(
                    _accuracy(
                        (name, threshold, group),
                        right[name],
                        right[names[0]],
                        [one.label == one.predicted for one in own],
                    )
                )
    return rows


def check_table_file(path: Union[str, Path]) -> str:
    """Return the suffix of a file, if :func:`save_accuracies` can write it.

    Args:
        path (str or Path): File to write.

    Raises:
        UsageError: If it ends neither in ``.json`` nor in ``.csv``, or if no
            file can be written there.
    """
    kind = Path(path).suffix
    if kind not in ('.json', '.csv'):
        raise UsageError(f'{str(path)!r}: name a .json or .csv file')
    check_target(path)
    return kind


def save_accuracies(
    rows: Sequence[Accuracy],
    found: Sequence[Localized],
    settings: Dict[str, Any],
    path: Union[str, Path],
) -> None:
    """Write a table as ``.json``, with every image, or as ``.csv``.

    Args:
        rows (Sequence[Accuracy]): As :func:`summarize` returns them.
        found (Sequence[Localized]): What they count; in ``.json`` alone.
        settings (dict): How it was made; in ``.json`` alone.
        path (str or Path): File to write.

    Raises:
        UsageError: If it ends in neither, or cannot be written.
    """
    kind = check_table_file(path)
    table = [asdict(row) for row in rows]
    if kind == '.json':
        content = dict(
            settings=settings, rows=table, images=[asdict(f) for f in found]
        )
        text = json.dumps(content, indent=1).encode()
    else:
        text = csv_text(table)
    with atomic_write(path) as file:
        file.write(text)


def _batches(
    network: TrainedNetwork, images: DataLoader
) -> Iterator[Tuple[Any, List[Any]]]:
    preprocessor = network.model.data_preprocessor
    for batch in track(images, 'localising', len(images)):
        data = preprocessor(batch, False)
        yield data['inputs'], data['data_samples']


def _overlaps(
    found: ActivationMap,
    sample: Any,
    size: Tuple[int, int],
    true: np.ndarray,
    thresholds: Sequence[float],
) -> Dict[float, float]:
    large = enlarge_map(found.values, size)
    overlaps = {}
    for threshold in thresholds:
        box = box_of(large, threshold)
        if box is None:
            overlaps[threshold] = 0.0
            continue
        box = to_original(box, sample, size)
        overlaps[threshold] = float(overlaps_of(box, true).max())
    return overlaps


def _share(boxes: np.ndarray, shape: Sequence[int]) -> float:
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return float(areas.max() / (shape[0] * shape[1]))


def _is_in(group: str, share: float) -> bool:
    return dict(all=True, large=share > LARGE, small=share < SMALL)[group]


def _accuracy(
    place: Tuple[str, float, str],
    right: np.ndarray,
    first: np.ndarray,
    classified: List[bool],
) -> Accuracy:
    count = len(right)
    accuracy = low = high = top1 = None
    if count:
        share = float(right.mean())
        low, high = (100 * bound for bound in wilson_interval(share, count))
        accuracy, top1 = 100 * share, 100 * float(np.mean(classified))
    return Accuracy(
        *place,
        count,
        int(right.sum()),
        accuracy,
        low,
        high,
        int((right & ~first).sum()),
        int((first & ~right).sum()),
        top1,
    )
