# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which data sets are read as ``CocoDataset`` reads, and their classes."""

from typing import Any, Optional, Sequence

from .pipelines import Step


def coco_class(dataset: dict, scope: Optional[str]) -> Optional[type]:
    """``CocoDataset``, or a class of one's own that reads as it does.

    Args:
        dataset (dict): Settings of a data set.
        scope (str, optional): That names without one are of.

    Returns:
        type: None of all others.
    """
    named = dataset.get('type')
    if isinstance(named, str):
        scope = named.split('.')[0] if '.' in named else scope
        if scope in ('mmpretrain', 'mmaction'):  # mmdet need not be imported
            return None
    is_stock = Step('', dataset).kind == 'CocoDataset'
    if not is_stock and not str(dataset.get('ann_file')).endswith('.json'):
        return None
    try:
        from mmdet.datasets import CocoDataset
        from mmdet.registry import DATASETS
    except (ImportError, AssertionError):  # which the runner will say
        return None
    found = CocoDataset if is_stock else named
    if isinstance(found, str):
        found = DATASETS.get(found)
    if not isinstance(found, type) or not issubclass(found, CocoDataset):
        return None
    # Those of mmdet's own read files of other content, some of them.
    is_own = found.__module__.split('.')[0] != 'mmdet'
    reads_alike = all(
        getattr(found, name) is getattr(CocoDataset, name)
        for name in ('load_data_list', 'parse_data_info')
    )
    return found if is_stock or (is_own and reads_alike) else None


def classes_of(kind: Any, dataset: dict) -> Optional[Sequence[str]]:
    """Classes of a data set that :func:`coco_class` knows, None of others."""
    metainfo = dataset.get('metainfo')
    found = kind._load_metainfo(metainfo and dict(metainfo))
    classes = found.get('classes')
    return classes if isinstance(classes, (list, tuple)) else None
