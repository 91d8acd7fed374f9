# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Whether boxes belong to the images and classes of a test set."""

import logging
from collections import Counter, defaultdict
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from ..config.pipelines import loaders_of
from ..errors import ConfigError, UsageError
from .true_boxes import TrueBoxes
from .view import check_view


def check_localization(
    cfg: Config, truth: TrueBoxes, thresholds: Sequence[float]
) -> DataLoader:
    """Refuse what :func:`~.localize` cannot do, before a network is loaded.

    Args:
        cfg (Config): Its first test set counts.
        truth (TrueBoxes): Of the test set's images.
        thresholds (Sequence[float]): Fractions of a map's maximum.

    Returns:
        DataLoader: Of the test set. A warning says how many of its images
        have boxes of another class, see :func:`of_other_classes`.

    Raises:
        ConfigError: If an image has no box, or the test pipeline is not one
            that boxes can be followed through.
        UsageError: If a threshold is not between 0 and 1.
    """
    for threshold in thresholds:
        if not 0 < threshold < 1:
            raise UsageError(
                f'threshold {threshold}: give a fraction of the maximum, '
                'between 0 and 1'
            )
    check_view(cfg)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    _, settings = next(loaders_of(cfg, 'test'))
    loader = Runner.build_dataloader(settings, seed=0)
    images: Any = loader.dataset
    infos = [images.get_data_info(i) for i in range(len(images))]
    for info in infos:
        truth.of(info['img_path'])
    meta = getattr(images, 'metainfo', None) or {}
    _warn_of_other_classes(infos, truth, meta.get('classes'))
    return loader


def _warn_of_other_classes(
    infos: Sequence[dict], truth: TrueBoxes, names: Optional[Sequence[str]]
) -> None:
    if not all(np.ndim(info.get('gt_label', ())) == 0 for info in infos):
        return  # not one label each, which is refused where it is read
    paths = [info['img_path'] for info in infos]
    labels = [int(info['gt_label']) for info in infos]
    kinds = [truth.class_of(path) for path in paths]
    others = of_other_classes(labels, kinds, names)
    if others:
        first = others[0]
        print_log(
            f'{len(others)} of {len(paths)} images have boxes of another '
            f'class in {str(truth.path)!r}, the first {paths[first]!r} of '
            f'{kinds[first]!r}: what is localised there is another object',
            logger='current',
            level=logging.WARNING,
        )


def of_other_classes(
    labels: Sequence[int],
    kinds: Sequence[str],
    names: Optional[Sequence[str]] = None,
) -> List[int]:
    """Find the images whose boxes are of another class than they are.

    Classes are compared by name where boxes have the names of the test set.
    Elsewhere, as in ImageNet's annotations, the class of a label is the one
    that most boxes of its images have.

    Args:
        labels (Sequence[int]): Class of each image.
        kinds (Sequence[str]): Class of its boxes, as their file names it.
        names (Sequence[str], optional): Of the labels. Defaults to unknown.

    Returns:
        list[int]: Numbers of the images.
    """
    if names and set(kinds) <= set(names):
        expected: Dict[int, str] = dict(enumerate(names))
    else:
        counts: Dict[int, Counter] = defaultdict(Counter)
        for label, kind in zip(labels, kinds):
            counts[label][kind] += 1
        expected = {
            label: count.most_common(1)[0][0]
            for label, count in counts.items()
        }
    return [
        i
        for i, (label, kind) in enumerate(zip(labels, kinds))
        if expected.get(label) != kind
    ]


def check_inside(sample: Any, true: np.ndarray, truth: TrueBoxes) -> None:
    """Refuse boxes of another version of an image; a pixel is rounding.

    Args:
        sample (DataSample): Of the image.
        true (np.ndarray): (N, 4), its boxes.
        truth (TrueBoxes): Where they come from.

    Raises:
        ConfigError: If one reaches beyond the image.
    """
    height, width = sample.ori_shape
    if (true[:, 2] > width + 1).any() or (true[:, 3] > height + 1).any():
        raise ConfigError(
            f'image {sample.img_path!r} has {width} x {height} pixels, and a '
            f'box in {str(truth.path)!r} lies beyond: give the annotations of '
            'the images as they are'
        )


def label_of(sample: Any) -> int:
    """Return the class of an image.

    Args:
        sample (DataSample): Of the image.

    Raises:
        ConfigError: If it has none, or several.
    """
    labels = sample.get('gt_label')
    if labels is None or labels.numel() != 1:
        raise ConfigError(
            f'image {sample.get("img_path")!r} has no single class: the test '
            'set must have one label for each image'
        )
    return int(labels)
