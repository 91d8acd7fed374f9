# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data of detectors, in COCO's form."""

from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from mmengine.registry import DATASETS

from .made_files import (
    NUMBER,
    SIDES,
    Leaf,
    draw_picture,
    write_image,
    write_keyed,
)


def dataset_class(written: Any) -> Any:
    """What a ``type`` of the config stands for."""
    if not isinstance(written, str):
        return written
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(written)


def _classes(dataset: Leaf) -> Dict[str, Any]:
    """Names of the classes, as the config or the data set's class has it."""
    own = dict(dataset.get('metainfo') or {})
    cls = dataset_class(dataset['type'])
    meta = dict(getattr(cls, 'METAINFO', {}))
    names = own.get('classes') or meta.get('classes') or 'abc'
    if isinstance(names, str):
        names = tuple(names)
    return dict(meta, classes=tuple(names))


def coco_scenes(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Boxes, masks and maps of classes in COCO's form."""
    names = _classes(dataset)['classes']
    content: Dict[str, list] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name) for i, name in enumerate(names)],
    )
    proposals = {}
    for number in range(NUMBER):
        boxes = _write_scene(root, number, labels)
        content['images'].append(_image_entry(number))
        for x, y, w, h in boxes:
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=number,
                    category_id=len(content['annotations']) % labels,
                    segmentation=[outline],
                    bbox=[x, y, w, h],
                    area=w * h,
                    iscrowd=0,
                )
            )
        corners = [(x, y, x + w, y + h) for x, y, w, h in boxes]
        proposals[f'images/{number}.jpg'] = dict(
            bboxes=np.array(corners, np.float32),
            scores=np.ones(len(corners), np.float32),
        )
    made = dict(
        type='mmdet.CocoDataset',
        data_root=str(root),
        ann_file=write_keyed(root, 'boxes', content, '.json'),
        data_prefix=dict(img='images/', seg='maps/'),
        metainfo=dict(classes=names),
    )
    if dataset.get('proposal_file'):
        made['proposal_file'] = write_keyed(
            root, 'proposals', proposals, '.pkl'
        )
    return made


def _image_entry(number: int) -> Dict[str, Any]:
    return dict(
        id=number,
        file_name=f'{number}.jpg',
        height=SIDES[0],
        width=SIDES[1],
    )


def _write_scene(
    root: Path, number: int, labels: int
) -> List[Tuple[int, int, int, int]]:
    """Write an image and its map of classes; return the boxes."""
    picture, boxes = draw_picture(number, SIDES)
    write_image(root / 'images' / f'{number}.jpg', picture)
    shown = np.zeros(SIDES, np.uint8)
    for i, (x, y, w, h) in enumerate(boxes):
        shown[y : y + h, x : x + w] = i % labels
    write_image(root / 'maps' / f'{number}.png', shown)
    return boxes


def panoptic_scenes(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """A segment for each object, and one for the rest of the image."""
    meta = _classes(dataset)
    things = list(meta.get('thing_classes') or meta['classes'])
    stuff = list(meta.get('stuff_classes') or ())
    categories = [
        dict(id=i, name=name, isthing=int(name in things))
        for i, name in enumerate(meta['classes'])
    ]
    number_of = {c['name']: c['id'] for c in categories}
    content: Dict[str, list] = dict(
        images=[], annotations=[], categories=categories
    )
    for number in range(NUMBER):
        boxes = _write_scene(root, number, labels)
        content['images'].append(_image_entry(number))
        h, w = SIDES
        places = [(number_of[n], 0, 0, w, h) for n in stuff[:1]]
        places += [
            (number_of[things[i % labels]], *box)
            for i, box in enumerate(boxes)
        ]
        drawn = np.zeros((h, w, 3), np.uint8)
        segments = []
        for i, (category, x, y, dx, dy) in enumerate(places, start=1):
            drawn[y : y + dy, x : x + dx] = (0, 0, i)  # red is last here
            segments.append(
                dict(
                    id=i,
                    category_id=category,
                    bbox=[x, y, dx, dy],
                    area=dx * dy,
                    iscrowd=0,
                )
            )
        write_image(root / 'segments' / f'{number}.png', drawn)
        content['annotations'].append(
            dict(
                image_id=number,
                file_name=f'{number}.png',
                segments_info=segments,
            )
        )
    return dict(
        type='mmdet.CocoPanopticDataset',
        data_root=str(root),
        ann_file=write_keyed(root, 'panoptic', content, '.json'),
        data_prefix=dict(img='images/', seg='segments/'),
        metainfo=meta,
    )
