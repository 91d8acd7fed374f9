# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Objects of COCO files that stock training leaves out without a word."""

from typing import Any, Callable, Dict, List, Optional

from .coco_file import CocoFile
from .pipelines import pipeline_steps


def check_masks(file: CocoFile, dataset: dict) -> None:
    """Refuse objects without a mask where the pipeline loads masks.

    Or with a polygon that is no list, at which the stock step stops.

    Args:
        file (CocoFile): Of a data set.
        dataset (dict): Its settings.

    Raises:
        ConfigError: Names the first one.
    """
    if _mask_loader(dataset) is None:
        return
    for row in _own_rows(file):
        if not row.get('segmentation'):
            raise file.refuse(
                f'annotation {row["id"]} has no segmentation, and the '
                'pipeline loads masks',
                'add it, or set with_mask=False in LoadAnnotations of a '
                'network without masks',
            )
        mask = row['segmentation']
        if isinstance(mask, list) and not all(
            isinstance(polygon, list) for polygon in mask
        ):
            raise file.refuse(
                f'annotation {row["id"]} has segmentation={str(mask)[:60]}, '
                'a list of numbers',
                'give a list of polygons, each of them a list',
            )


def check_trained_objects(file: CocoFile, dataset: dict) -> None:
    """Refuse a file of whose objects training leaves nothing.

    The images stay, so that a detector would learn background alone. A
    warning says if masks that cannot be read are some of them.

    Args:
        file (CocoFile): Of a data set of the training.
        dataset (dict): Its settings.

    Raises:
        ConfigError: Says why they are left out.
    """
    sizes = {i['id']: i for i in file.content['images']}
    rows = [
        row
        for row in _own_rows(file)
        if row['image_id'] in sizes
        and not row.get('ignore')
        and not row.get('iscrowd')
    ]
    loader = _mask_loader(dataset)
    bad_boxes = [r for r in rows if _is_left_out(r, sizes[r['image_id']])]
    bad_masks = [
        row
        for row in rows
        if loader is not None and not _is_read(row['segmentation'], loader)
    ]
    lost = {id(row) for row in (*bad_boxes, *bad_masks)}
    if rows and len(lost) == len(rows):
        first = (bad_boxes or bad_masks)[0]
        what = (
            f'bbox={first["bbox"]}, area={first["area"]!r}'
            if bad_boxes
            else f'segmentation={str(first["segmentation"])[:60]}'
        )
        raise file.refuse(
            f'training leaves out all of its {len(rows)} objects, such as '
            f'annotation {first["id"]} with {what}',
            'boxes count in pixels and have an area above 0, polygons have '
            'three points or more, and run-length codes need poly2mask=True '
            'in LoadAnnotations',
        )
    if bad_masks:
        file.warn(
            f'{len(bad_masks)} of {len(rows)} annotations have masks that '
            'training cannot read, and leaves out (the first one has id '
            f'{bad_masks[0]["id"]!r}): polygons of less than three points, or '
            'run-length codes, which need poly2mask=True in LoadAnnotations'
        )


def _own_rows(file: CocoFile) -> List[dict]:
    """Annotations of the data set's classes."""
    labels = set(file.labels)
    rows = file.content['annotations']
    return [row for row in rows if row['category_id'] in labels]


def _mask_loader(dataset: dict) -> Optional[dict]:
    """Settings of the step that loads masks, if there is one."""
    for step in pipeline_steps('', dataset):
        if step.kind == 'LoadAnnotations' and step.settings.get('with_mask'):
            return step.settings
    return None


def _is_read(mask: Any, loader: dict) -> bool:
    """Whether the stock step makes a mask of it."""
    if isinstance(mask, list):
        return any(len(p) >= 6 and len(p) % 2 == 0 for p in mask)
    return is_mask(mask) and bool(loader.get('poly2mask', True))


def is_mask(mask: Any) -> bool:
    """Whether a segmentation is polygons, or run-length codes."""
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


def warn_of_objects(file: CocoFile) -> None:
    """Say how many objects count for nothing, and why."""
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
        'have boxes below one pixel, without area, or outside of their '
        'image: training leaves them out, and tests count them as missed': (
            lambda row: _is_left_out(row, sizes.get(row['image_id']))
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


def _is_left_out(row: dict, image: Optional[dict]) -> bool:
    """Whether the stock data set drops the box."""
    if image is None:
        return False
    x, y, w, h = row['bbox']
    inside = min(x + w, image['width']) - max(x, 0)
    inside_high = min(y + h, image['height']) - max(y, 0)
    is_small = w < 1 or h < 1 or row['area'] <= 0
    return is_small or inside <= 0 or inside_high <= 0
