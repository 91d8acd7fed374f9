# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data in the place of a stock config's: its pipelines stay."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..config.pipelines import Step
from ..errors import UsageError
from ..files import atomic_write, make_folder

_NUMBER = 4  # images, clips or skeletons
_SIDES = (96, 128)  # height and width in pixels
_CLIP = (48, 64)
_FRAMES = 64
_THINGS = 3  # classes that are shown
Leaf = Dict[str, Any]


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
    for stage in ('train', 'val', 'test'):
        loader = cfg.get(f'{stage}_dataloader')
        if isinstance(loader, dict) and 'dataset' in loader:
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
        make = _coco
    if make is None:
        raise UsageError(f'the survey makes no data for a {kind}')
    kept = ('pipeline', 'test_mode', 'filter_cfg', '_scope_', 'lazy_init')
    settings = {key: dataset[key] for key in kept if key in dataset}
    return {**settings, **make(dict(dataset), root, labels)}


def _is_of_boxes(written: Any) -> bool:
    try:
        from mmdet.datasets import BaseDetDataset, BaseVideoDataset
        from mmdet.datasets.odvg import ODVGDataset
    except ImportError:
        return False
    cls = _dataset_class(written)
    others = (BaseVideoDataset, ODVGDataset)
    return (
        isinstance(cls, type)
        and issubclass(cls, BaseDetDataset)
        and not issubclass(cls, others)
    )


def _dataset_class(written: Any) -> Any:
    """What a ``type`` of the config stands for."""
    if not isinstance(written, str):
        return written
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(written)


# ---- Images


def _picture(
    number: int, sides: Tuple[int, int]
) -> Tuple[np.ndarray, List[Tuple[int, int, int, int]]]:
    """Noise with two brighter rectangles, and their x, y, width, height."""
    rng = np.random.default_rng(number)
    h, w = sides
    picture = rng.integers(0, 120, (h, w, 3), np.uint8)
    boxes = []
    for _ in range(2):
        x, y = int(rng.integers(1, w // 3)), int(rng.integers(1, h // 3))
        dx, dy = int(rng.integers(w // 4, w // 2)), int(h // 3)
        picture[y : y + dy, x : x + dx] += rng.integers(60, 130, 3, np.uint8)
        boxes.append((x, y, dx, dy))
    return picture, boxes


def _write_image(path: Path, picture: np.ndarray) -> None:
    if not path.is_file():
        make_folder(path.parent)
        _write(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as file:
        file.write(content)


def _keyed(root: Path, stem: str, content: Any, suffix: str) -> str:
    """Write a file under a name of its content; return the name."""
    if suffix == '.json':
        data = json.dumps(content).encode()
    else:
        data = pickle.dumps(content)
    name = f'{stem}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}'
    if not (root / name).is_file():
        _write(root / name, data)
    return name


def _folder(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Images in a folder for each class."""
    kind = Step('', dataset).kind
    tiny = kind in ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')
    sides = (32, 32) if tiny else _SIDES
    folder = root / ('tiny' if tiny else 'classes')
    for number in range(_NUMBER):
        path = folder / str(number % min(labels, 2)) / f'{number}.jpg'
        _write_image(path, _picture(number, sides)[0])
    made: Leaf = dict(
        type='mmpretrain.CustomDataset', data_root=str(folder), data_prefix=''
    )
    if tiny:  # these come as arrays
        grey = 'MNIST' in kind
        load = dict(
            type='LoadImageFromFile',
            color_type='grayscale' if grey else 'color',
        )
        made['pipeline'] = [load, *(dataset.get('pipeline') or ())]
    return made


def _several_labels(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Images of several classes each."""
    del dataset
    _folder(dict(type='ImageNet'), root, 1)
    content = dict(
        metainfo=dict(classes=[str(i) for i in range(labels)]),
        data_list=[
            dict(img_path=f'0/{number}.jpg', gt_label=[*range(labels)])
            for number in range(_NUMBER)
        ],
    )
    return dict(
        type='mmpretrain.MultiLabelDataset',
        data_root=str(root),
        data_prefix='classes',
        ann_file=_keyed(root, 'labels', content, '.json'),
    )


def _classes(dataset: Leaf) -> Dict[str, Any]:
    """Names of the classes, as the config or the data set's class has it."""
    own = dict(dataset.get('metainfo') or {})
    cls = _dataset_class(dataset['type'])
    meta = dict(getattr(cls, 'METAINFO', {}))
    names = own.get('classes') or meta.get('classes') or 'abc'
    if isinstance(names, str):
        names = tuple(names)
    return dict(meta, classes=tuple(names))


def _coco(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Boxes, masks and maps of classes in COCO's form."""
    names = _classes(dataset)['classes']
    content: Dict[str, list] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name) for i, name in enumerate(names)],
    )
    proposals = {}
    for number in range(_NUMBER):
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
        ann_file=_keyed(root, 'boxes', content, '.json'),
        data_prefix=dict(img='images/', seg='maps/'),
        metainfo=dict(classes=names),
    )
    if dataset.get('proposal_file'):
        made['proposal_file'] = _keyed(root, 'proposals', proposals, '.pkl')
    return made


def _image_entry(number: int) -> Dict[str, Any]:
    return dict(
        id=number,
        file_name=f'{number}.jpg',
        height=_SIDES[0],
        width=_SIDES[1],
    )


def _write_scene(
    root: Path, number: int, labels: int
) -> List[Tuple[int, int, int, int]]:
    """Write an image and its map of classes; return the boxes."""
    picture, boxes = _picture(number, _SIDES)
    _write_image(root / 'images' / f'{number}.jpg', picture)
    shown = np.zeros(_SIDES, np.uint8)
    for i, (x, y, w, h) in enumerate(boxes):
        shown[y : y + h, x : x + w] = i % labels
    _write_image(root / 'maps' / f'{number}.png', shown)
    return boxes


def _panoptic(dataset: Leaf, root: Path, labels: int) -> Leaf:
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
    for number in range(_NUMBER):
        boxes = _write_scene(root, number, labels)
        content['images'].append(_image_entry(number))
        h, w = _SIDES
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
        _write_image(root / 'segments' / f'{number}.png', drawn)
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
        ann_file=_keyed(root, 'panoptic', content, '.json'),
        data_prefix=dict(img='images/', seg='segments/'),
        metainfo=meta,
    )


# ---- Videos


def _frames(number: int) -> List[np.ndarray]:
    """A rectangle that moves, over noise."""
    picture, _ = _picture(number, _CLIP)
    return [np.roll(picture, i, axis=1) for i in range(_FRAMES)]


def _videos(dataset: Leaf, root: Path, labels: int) -> Leaf:
    lines = []
    for number in range(_NUMBER):
        path = root / 'videos' / f'{number}.mp4'
        if not path.is_file():
            make_folder(path.parent)
            draft = path.with_name(f'draft-{number}.mp4')
            writer = cv2.VideoWriter(
                str(draft), cv2.VideoWriter.fourcc(*'mp4v'), 25, _CLIP[::-1]
            )
            for frame in _frames(number):
                writer.write(frame)
            writer.release()
            draft.replace(path)
        lines.append(f'{number}.mp4 {number % labels}')
    _write(root / 'videos.txt', '\n'.join(lines).encode())
    return dict(
        type='mmaction.VideoDataset',
        ann_file=str(root / 'videos.txt'),
        data_prefix=dict(video=str(root / 'videos')),
        **_several(dataset),
    )


def _raw_frames(dataset: Leaf, root: Path, labels: int) -> Leaf:
    lines = []
    folder = root / 'frames'
    flow = dataset.get('modality') == 'Flow'
    template = dataset.get('filename_tmpl', 'img_{:05}.jpg')
    for number in range(_NUMBER):
        for i, frame in enumerate(_frames(number), start=1):
            axes = ('x', 'y') if flow else ('',)
            for axis in axes:
                name = template.format(*[axis] * flow, i)
                picture = frame[..., 0] if flow else frame
                _write_image(folder / str(number) / name, picture)
        lines.append(f'{number} {_FRAMES} {number % labels}')
    _write(root / 'frames.txt', '\n'.join(lines).encode())
    names = ('filename_tmpl', 'modality', 'start_index')
    return dict(
        type='mmaction.RawframeDataset',
        ann_file=str(root / 'frames.txt'),
        data_prefix=dict(img=str(folder)),
        **{n: dataset[n] for n in names if n in dataset},
        **_several(dataset),
    )


def _several(dataset: Leaf) -> Leaf:
    """Settings of videos that have several labels."""
    names = ('multi_class', 'num_classes')
    return {n: dataset[n] for n in names if n in dataset}


def _skeletons(dataset: Leaf, root: Path, labels: int) -> Leaf:
    steps = dataset.get('pipeline') or ()
    # Microsoft's cameras find 25 joints in space, pose estimators 17 of COCO.
    in_space = any(step.get('dataset') == 'nturgb+d' for step in steps)
    shape = (1, _FRAMES, 25 if in_space else 17)
    split = dataset.get('split') or 'all'
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(_NUMBER):
        places = rng.uniform(5, 90, (*shape, 3 if in_space else 2))
        pose = dict(
            frame_dir=str(number),
            label=number % labels,
            img_shape=_SIDES,
            original_shape=_SIDES,
            total_frames=_FRAMES,
            keypoint=places.astype(np.float32),
            valid={0.1 * i: _FRAMES for i in range(10)},
            box_score=np.ones(_FRAMES, np.float32),
        )
        if not in_space:
            pose['keypoint_score'] = np.ones(shape, np.float32)
        annotations.append(pose)
    content = dict(
        split={split: [a['frame_dir'] for a in annotations]},
        annotations=annotations,
    )
    made = dict(
        type='mmaction.PoseDataset',
        ann_file=str(root / _keyed(root, 'skeletons', content, '.pkl')),
    )
    return dict(made, split=split)


_MAKERS: Dict[str, Callable[[Leaf, Path, int], Leaf]] = dict(
    CocoPanopticDataset=_panoptic,
    VOC=_several_labels,
    VideoDataset=_videos,
    RawframeDataset=_raw_frames,
    PoseDataset=_skeletons,
)
_OF_CLASSES: Sequence[str] = (
    *('ImageNet', 'ImageNet21k', 'CustomDataset', 'CUB', 'InShop'),
    *('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'),
)
_MAKERS.update(dict.fromkeys(_OF_CLASSES, _folder))
