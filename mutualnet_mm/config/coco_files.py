# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What COCO annotation files say, where stock code takes it silently."""

import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from mmengine.config import Config
from mmengine.logging import print_log

from ..errors import ConfigError, is_count, is_number
from .coco_classes import classes_of, coco_class
from .pipelines import STAGES, Step, pipeline_steps, stage_datasets

_LARGEST = 200 * 2**20  # bytes: larger files take minutes to be read twice
_NEEDED = dict(
    images=('id', 'file_name', 'height', 'width'),
    annotations=('id', 'image_id', 'category_id', 'bbox', 'area'),
    categories=('id', 'name'),
)


class _File(NamedTuple):
    """A file that was read, and where the config names it."""

    place: str
    path: str
    content: Dict[str, List[dict]]
    classes: Optional[Sequence[str]]

    def refuse(self, what: str, remedy: str) -> ConfigError:
        return ConfigError(
            f'{self.place}, annotation file {self.path!r}: {what}; {remedy}'
        )

    def warn(self, what: str) -> None:
        print_log(
            f'{self.place}, annotation file {self.path!r}: {what}',
            logger='current',
            level=logging.WARNING,
        )

    @property
    def labels(self) -> List[Any]:
        """Ids of the categories, in the order in which stock labels count."""
        classes = set(self.classes or ())
        return [
            c['id'] for c in self.content['categories'] if c['name'] in classes
        ]


def check_coco_files(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse COCO files that training or evaluation would take wrongly.

    Stock code raises errors from the depths for some, after all images are
    tested for others, and gives wrong numbers for the rest: labels of another
    class, objects that count as missed. Files above 200 MiB are not looked
    into, nor are data sets that read otherwise than ``CocoDataset``.

    A warning says what is legal but costs: boxes without area, annotations
    of unknown images, an annotation of id 0.

    Args:
        cfg (Config): Its files exist, see :func:`~.checks.check_files`.
        stages (Sequence[str]): Any of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        ConfigError: Names the setting, the file, what is wrong with it and
            the remedy.
    """
    read: Dict[str, Dict[str, List[dict]]] = {}
    sets: Dict[str, List[_File]] = {stage: [] for stage in stages}
    for stage in stages:
        for place, dataset in stage_datasets(cfg, (stage,)):
            kind = coco_class(dataset, cfg.get('default_scope'))
            if kind is None:
                continue
            root = dataset.get('data_root') or ''
            file = _opened(place, dataset, root, read)
            if file is not None:
                file = file._replace(classes=classes_of(kind, dataset))
                _check_classes(file)
                _check_heads(file, cfg.get('model'))
                _check_masks(file, dataset)
                sets[stage].append(file)
    _check_same_labels([file for files in sets.values() for file in files])
    for stage in stages:
        for place, metric in _metrics(cfg.get(f'{stage}_evaluator'), stage):
            file = _opened(place, metric, '', read)
            if file is not None and not metric.get('format_only'):
                _check_truth(file, metric, sets[stage])
    for file in {f.path: f for files in sets.values() for f in files}.values():
        _warn_of_boxes(file)


def _metrics(evaluator: Any, stage: str) -> Iterable[Tuple[str, dict]]:
    place = f'{stage}_evaluator'
    listed = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    for i, metric in enumerate(listed):
        if isinstance(metric, dict) and Step('', metric).kind == 'CocoMetric':
            yield place if metric is evaluator else f'{place}.{i}', metric


def _opened(
    place: str, settings: dict, root: str, read: Dict[str, Any]
) -> Optional[_File]:
    """Read a file once; None if it is elsewhere or too large."""
    written = settings.get('ann_file')
    backend = settings.get('backend_args') or {}
    if not written or '://' in f'{root}{written}':
        return None
    if backend and backend.get('backend') != 'local':
        return None
    path = os.path.join(root, str(written))
    if not Path(path).is_file() or Path(path).stat().st_size > _LARGEST:
        return None
    file = _File(f'{place}.ann_file', path, {}, None)
    if path not in read:
        read[path] = _read(file)
    return file._replace(content=read[path])


def _read(file: _File) -> Dict[str, List[dict]]:
    remedy = "give a file in COCO's format"
    try:
        content = json.loads(Path(file.path).read_text(encoding='utf-8'))
    except (OSError, ValueError, RecursionError) as error:
        what = f'it is damaged or not JSON ({error})'
        raise file.refuse(what, remedy) from error
    if not isinstance(content, dict):
        raise file.refuse(f'it holds a {type(content).__name__}', remedy)
    parts = {}
    for part, keys in _NEEDED.items():
        rows = content.get(part, [] if part == 'annotations' else None)
        if not isinstance(rows, list):
            raise file.refuse(f'it has no list of {part}', remedy)
        for i, row in enumerate(rows):
            lacking = [
                key
                for key in keys
                if not isinstance(row, dict) or key not in row
            ]
            if lacking:
                raise file.refuse(
                    f'{part}[{i}] has no {lacking[0]!r}', 'add it'
                )
            if not isinstance(row['id'], (int, str)):
                raise file.refuse(
                    f'{part}[{i}] has id={row["id"]!r}', 'give a number'
                )
        _check_unique(file, part, rows)
        parts[part] = rows
    for row in parts['images']:
        if not (is_number(row['height']) and is_number(row['width'])):
            raise file.refuse(
                f'image {row["id"]} has height={row["height"]!r} and '
                f'width={row["width"]!r}',
                'give numbers of pixels',
            )
    for row in parts['annotations']:
        if not _is_box(row['bbox']):
            raise file.refuse(
                f'annotation {row["id"]} has bbox={row["bbox"]!r}',
                'give left, top, width and height, four finite numbers',
            )
    return parts


def _check_unique(file: _File, part: str, rows: List[dict]) -> None:
    """Refuse equal ids: the stock index keeps the last row of each."""
    counts = Counter(row['id'] for row in rows)
    twice = [number for number, count in counts.items() if count > 1]
    if twice:
        raise file.refuse(
            f'{len(twice)} ids of {part} are there more than once, such as '
            f'{twice[0]!r}',
            'give each an id of its own',
        )


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(map(is_number, box))


def _check_classes(file: _File) -> None:
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


def _check_heads(file: _File, model: Any) -> None:
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


def _check_masks(file: _File, dataset: dict) -> None:
    """Refuse objects without a mask where the pipeline loads masks."""
    steps = pipeline_steps('', dataset)
    if not any(
        s.kind == 'LoadAnnotations' and s.settings.get('with_mask')
        for s in steps
    ):
        return
    labels = set(file.labels)
    for row in file.content['annotations']:
        if row['category_id'] in labels and not row.get('segmentation'):
            raise file.refuse(
                f'annotation {row["id"]} has no segmentation, and the '
                'pipeline loads masks',
                'add it, or set with_mask=False in LoadAnnotations of a '
                'network without masks',
            )


def _check_same_labels(files: Sequence[_File]) -> None:
    """Refuse data sets whose labels count in another order.

    Stock labels follow the order of the file's categories, not the one of
    the classes.
    """
    named = [file for file in files if file.classes is not None]

    def names(file: _File) -> List[str]:
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


def _check_truth(file: _File, metric: dict, sets: Sequence[_File]) -> None:
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
        if 'segm' in kinds and not _is_mask(row.get('segmentation')):
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
        _warn_of_boxes(file)


def _check_images(file: _File, sets: Sequence[_File]) -> None:
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


def _is_mask(mask: Any) -> bool:
    if isinstance(mask, dict):
        return 'counts' in mask and 'size' in mask
    return (
        isinstance(mask, list)
        and bool(mask)
        and all(
            isinstance(polygon, list)
            and len(polygon) >= 6
            and len(polygon) % 2 == 0
            for polygon in mask
        )
    )


def _warn_of_boxes(file: _File) -> None:
    sizes = {i['id']: i for i in file.content['images']}
    known = {c['id'] for c in file.content['categories']}
    lost: Dict[str, List[Any]] = {}
    checks: Dict[str, Callable[[dict], bool]] = {
        'are of images that are not in it: they do not count': (
            lambda row: row['image_id'] not in sizes
        ),
        'are of categories that are not in it: they do not count': (
            lambda row: row['category_id'] not in known
        ),
        'have boxes without area, or outside of their image: training '
        'leaves them out, and tests count them as missed': (
            lambda row: _is_outside(row['bbox'], sizes.get(row['image_id']))
        ),
    }
    for row in file.content['annotations']:
        for what, check in checks.items():
            if check(row):
                lost.setdefault(what, []).append(row['id'])
                break
    for what, rows in lost.items():
        number = len(file.content['annotations'])
        file.warn(
            f'{len(rows)} of {number} annotations {what} (the first one has '
            f'id {rows[0]!r})'
        )


def _is_outside(box: Sequence[float], image: Optional[dict]) -> bool:
    if image is None:
        return False
    x, y, w, h = box
    inside = min(x + w, image['width']) - max(x, 0)
    inside_high = min(y + h, image['height']) - max(y, 0)
    return w <= 0 or h <= 0 or inside <= 0 or inside_high <= 0
