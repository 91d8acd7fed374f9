# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data in the place of a stock config's: its pipelines stay."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

from mmengine.config import Config

from ..config.pipelines import STAGES, Step, loaders_of
from ..errors import UsageError
from ..files import make_folder
from .made_actions import ava_scenes
from .made_classes import class_folders, several_labels
from .made_files import Leaf
from .made_scenes import coco_scenes, dataset_class, panoptic_scenes
from .made_videos import raw_frames, skeletons, videos

NO_DATA = 'the survey makes no data for a'
_THINGS = 3  # classes that are shown, at most


def use_made_data(cfg: Config, root: Path) -> None:
    """Replace each data set of a config by generated data of its form.

    Wrappers (``RepeatDataset``, ``MultiImageMixDataset``, ...), pipelines and
    filters stay; data sets of boxes become ``CocoDataset`` of the same
    classes, those of classes ``CustomDataset``.

    Args:
        cfg (Config): It is changed.
        root (Path): Folder of the data, which are made where they lack.

    Raises:
        UsageError: If data of a form that is not known would be needed; names
            the data set.
    """
    make_folder(root)
    labels = min([_THINGS, *_class_numbers(cfg.model)])
    for stage in STAGES:
        for _, loader in loaders_of(cfg, stage):
            loader['dataset'] = _replaced(loader['dataset'], root, labels)


def _class_numbers(node: Any) -> List[int]:
    """Every ``num_classes`` of a model."""
    if isinstance(node, dict):
        own = node.get('num_classes')
        found = [own] if isinstance(own, int) and own > 0 else []
        node = list(node.values())
    else:
        found = []
    if isinstance(node, (list, tuple)):
        for item in node:
            found += _class_numbers(item)
    return found


def _replaced(dataset: Any, root: Path, labels: int) -> Any:
    """The tree of data sets with other leaves."""
    if isinstance(dataset, (list, tuple)):
        return [_replaced(item, root, labels) for item in dataset]
    for key in ('dataset', 'datasets'):
        if dataset.get(key) is not None:
            return {**dataset, key: _replaced(dataset[key], root, labels)}
    kind = Step('', dataset).kind
    make = _MAKERS.get(kind)
    if make is None and _is_of_boxes(dataset['type']):
        make = coco_scenes
    if make is None:
        raise UsageError(f'{NO_DATA} {kind}')
    kept = ('pipeline', 'test_mode', 'filter_cfg', '_scope_', 'lazy_init')
    settings = {key: dataset[key] for key in kept if key in dataset}
    return {**settings, **make(dict(dataset), root, labels)}


def _is_of_boxes(written: Any) -> bool:
    try:
        from mmdet.datasets import BaseDetDataset, BaseVideoDataset
        from mmdet.datasets.odvg import ODVGDataset
    except ImportError:
        return False
    cls = dataset_class(written)
    others = (BaseVideoDataset, ODVGDataset)
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseDetDataset)
        and not issubclass(cls, others)
    )


_MAKERS: Dict[str, Callable[[Leaf, Path, int], Leaf]] = dict(
    CocoPanopticDataset=panoptic_scenes,
    VOC=several_labels,
    VideoDataset=videos,
    RawframeDataset=raw_frames,
    PoseDataset=skeletons,
    AVADataset=ava_scenes,
    AVAKineticsDataset=ava_scenes,
)
_OF_CLASSES: Sequence[str] = (
    *('ImageNet', 'ImageNet21k', 'CustomDataset', 'CUB', 'Food101'),
    'InShop',
    *('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'),
)
_MAKERS.update(dict.fromkeys(_OF_CLASSES, class_folders))
