# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What COCO annotation files say, where stock code takes it silently."""

from collections import Counter
from typing import (
    Any,
    Dict,
    Iterable,
    Iterator,
    List,
    Sequence,
    Tuple,
)

from mmengine.config import Config

from ..errors import is_count
from .coco_classes import classes_of, coco_class
from .coco_file import CocoFile, opened
from .coco_objects import (
    check_masks,
    check_trained_objects,
    is_mask,
    warn_of_objects,
)
from .pipelines import STAGES, Step, stage_datasets


def check_coco_files(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse COCO files that training or evaluation would take wrongly.

    Stock code raises errors from the depths for some, after all images are
    tested for others, and gives wrong numbers for the rest: labels of another
    class, objects that count as missed. Files above 200 MiB are not looked
    into, nor are data sets that read otherwise than ``CocoDataset``.

    A warning says what is legal but costs: boxes without area, masks that
    training cannot read, annotations of unknown images, an annotation of id 0.

    Args:
        cfg (Config): Its files exist, see :func:`~.checks.check_files`.
        stages (Sequence[str]): Any of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        ConfigError: Names the setting, the file, what is wrong with it and
            the remedy.
    """
    read: Dict[str, Dict[str, List[dict]]] = {}
    sets: Dict[str, List[CocoFile]] = {stage: [] for stage in stages}
    for stage in stages:
        for place, dataset in stage_datasets(cfg, (stage,)):
            kind = coco_class(dataset, cfg.get('default_scope'))
            if kind is None:
                continue
            root = dataset.get('data_root') or ''
            file = opened(place, dataset, root, read)
            if file is not None:
                file = file._replace(classes=classes_of(kind, dataset))
                _check_classes(file)
                _check_heads(file, cfg.get('model'))
                check_masks(file, dataset)
                if stage == 'train':
                    check_trained_objects(file, dataset)
                sets[stage].append(file)
    _check_same_labels([file for files in sets.values() for file in files])
    for stage in stages:
        for place, metric in _metrics(cfg.get(f'{stage}_evaluator'), stage):
            file = opened(place, metric, '', read)
            if file is not None and not metric.get('format_only'):
                _check_truth(file, metric, sets[stage])
    for file in {f.path: f for files in sets.values() for f in files}.values():
        warn_of_objects(file)


def _metrics(evaluator: Any, stage: str) -> Iterable[Tuple[str, dict]]:
    place = f'{stage}_evaluator'
    listed = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    for i, metric in enumerate(listed):
        if isinstance(metric, dict) and Step('', metric).kind == 'CocoMetric':
            yield place if metric is evaluator else f'{place}.{i}', metric


def _check_classes(file: CocoFile) -> None:
    """Refuse classes that are not in the file: labels would move up."""
    if file.classes is None:
        return
    names = [c['name'] for c in file.content['categories']]
    missing = [name for name in file.classes if name not in names]
    if missing:
        what = f'{len(missing)} of the {len(file.classes)} classes are'
        shown = ', '.join(map(repr, missing[:3]))
        listed = ', '.join(map(repr, names[:3]))
        raise file.refuse(
            f'{what} not among its {len(names)} categories, such as {shown} '
            f'(it has {listed}{", ..." * (len(names) > 3)}), so that labels '
            'would be of other classes or none',
            'set metainfo=dict(classes=...) of all data sets to names that '
            'the file has, and num_classes of the heads',
        )
    twice = [n for n, c in Counter(names).items() if c > 1]
    if set(twice) & set(file.classes):
        raise file.refuse(
            f'two categories are named {twice[0]!r}', 'rename one of them'
        )


def _check_heads(file: CocoFile, model: Any) -> None:
    """Refuse heads of another number of classes than the data set has.

    Stock training takes objects of the class behind the last one for
    background, and stock validation fails after all images are tested if
    there are more. Mask heads beside box heads are never asked for those.
    """
    if file.classes is None or not isinstance(model, dict):
        return
    if 'language_model' in model:  # its heads count words of a text
        return
    wanted = len(file.classes)
    for name, head, tells_classes in _heads(model):
        number: Any = head.get('num_classes')
        if is_count(number) and (
            number < wanted or (tells_classes and number > wanted)
        ):
            raise file.refuse(
                f'{name}.num_classes={number}, and the data set has {wanted}',
                f'set that to {wanted}, or metainfo=dict(classes=...) of all '
                'data sets',
            )


def _heads(model: dict) -> Iterator[Tuple[str, dict, bool]]:
    """Place and settings of heads, and whether they tell classes apart."""
    for prefix in ('model', 'model.roi_head'):
        part: Any = model if prefix == 'model' else model.get('roi_head')
        kinds = [k for k in ('bbox_head', 'mask_head') if (part or {}).get(k)]
        for kind in kinds:
            heads = {f'{prefix}.{kind}': part[kind]}
            if isinstance(part[kind], (list, tuple)):
                numbers = enumerate(part[kind])
                heads = {f'{prefix}.{kind}.{i}': head for i, head in numbers}
            for name, head in heads.items():
                if isinstance(head, dict) and not head.get('class_agnostic'):
                    yield name, head, kind == kinds[0]


def _check_same_labels(files: Sequence[CocoFile]) -> None:
    """Refuse data sets whose labels count in another order.

    Stock labels follow the order of the file's categories, not the one of
    the classes.
    """
    named = [file for file in files if file.classes is not None]

    def names(file: CocoFile) -> List[str]:
        by_id = {c['id']: c['name'] for c in file.content['categories']}
        return [by_id[number] for number in file.labels]

    for file in named[1:]:
        pairs = [p for p in zip(names(named[0]), names(file)) if p[0] != p[1]]
        if pairs:
            raise file.refuse(
                f'a label that is {pairs[0][1]!r} here is {pairs[0][0]!r} in '
                f'{named[0].path!r}, since labels follow the order of '
                'categories in a file',
                'bring categories into the same order',
            )
    for file in {f.path: f for f in named}.values():
        pairs = [
            p for p in zip(names(file), file.classes or ()) if p[0] != p[1]
        ]
        if pairs:
            file.warn(
                f'labels follow the order of its categories: what is '
                f'{pairs[0][0]!r} will be shown as {pairs[0][1]!r}. Bring the '
                'classes of metainfo into the order of the categories'
            )


def _check_truth(
    file: CocoFile, metric: dict, sets: Sequence[CocoFile]
) -> None:
    """Refuse ground truth that the metric cannot use, or not for these."""
    rows = file.content['annotations']
    if not rows:
        raise file.refuse(
            'it has no annotations, so that there is nothing to compare with',
            'give the one with the ground truth, or set format_only=True',
        )
    kinds = metric.get('metric', 'bbox')
    kinds = kinds if isinstance(kinds, (list, tuple)) else [kinds]
    for row in rows:
        if 'iscrowd' not in row:
            raise file.refuse(
                f"annotation {row['id']} has no 'iscrowd'",
                'add it, 0 for single objects',
            )
        if 'segm' in kinds and not is_mask(row.get('segmentation')):
            raise file.refuse(
                f'annotation {row["id"]} has no mask that can be read '
                f'(segmentation={str(row.get("segmentation"))[:60]})',
                'give polygons of three points or more or run-length codes, '
                "or leave 'segm' out of the metrics",
            )
    if any(row['id'] == 0 for row in rows):
        file.warn(
            'an annotation has id 0, which pycocotools takes for no match: '
            'its object counts as missed. Count ids from 1'
        )
    _check_images(file, sets)
    if not any(f.path == file.path for f in sets):
        warn_of_objects(file)


def _check_images(file: CocoFile, sets: Sequence[CocoFile]) -> None:
    if not sets or any(f.path == file.path for f in sets):
        return
    known = {row['id'] for row in file.content['images']}
    come = {row['id'] for f in sets for row in f.content['images']}
    unknown = come - known
    if unknown:
        raise file.refuse(
            f'{len(unknown)} images of the data set are not in it, such as '
            f'id {next(iter(unknown))!r} of {sets[0].path!r}',
            'give the same file to data set and metric',
        )
    if known - come:
        file.warn(
            f'{len(known - come)} of its {len(known)} images are not in the '
            'data set: their objects count as missed'
        )
