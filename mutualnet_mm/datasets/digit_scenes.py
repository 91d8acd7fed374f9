# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A small COCO instance-segmentation data set that needs no download.

Handwritten digits are pasted on darkened photographs, both of which come with
scikit-learn. It serves the quick start and the tests, not the paper.
"""

import json
import shutil
import zlib
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import cv2
import numpy as np

from ..errors import ConfigError, is_count
from ..progress_bars import track
from .folders import finish_folder, start_folder

DIGIT_CLASSES = tuple(str(digit) for digit in range(10))

_MAKER = 'mutualnet_mm.datasets.make_digit_scenes'
_SETTINGS = 'settings.json'
_VERSION = 1  # raised whenever the same arguments would give other scenes
_INK = 0.4  # of the full ink: where a stroke ends
_TRAIN_SHARE = 0.7  # of the digits, and of each photograph's columns
_MIN_VISIBLE = 0.7  # of each digit's pixels
_PLACE_TRIALS = 50

# Numbers of the streams of random numbers: with others, other scenes.
_STREAMS = dict(train=5, val=3)

# An RGB image, and each digit's label and visible pixels.
_Scene = Tuple[np.ndarray, List[Tuple[int, np.ndarray]]]


def make_digit_scenes(
    out_dir: Union[str, Path],
    num_train: int = 400,
    num_val: int = 60,
    image_size: Tuple[int, int] = (128, 192),
    digits_per_scene: Tuple[int, int] = (1, 3),
    digit_size: Tuple[int, int] = (36, 72),
    seed: int = 0,
    photographs: Optional[Sequence[np.ndarray]] = None,
) -> Path:
    """Make the data set, unless it is already there with the same settings.

    Writes ``{train,val}/*.jpg`` and ``annotations/instances_{train,val}.json``
    with exact run-length masks. A digit covered by a later one loses the
    covered pixels, at most 30 % of its own; a digit for which there is no such
    place is left out. Train and val share no digit and no part of a
    photograph.

    Args:
        out_dir: Where to write; a new or empty folder, or an earlier result,
            which is replaced if its settings differ or it is incomplete.
        num_train: Number of training images. Defaults to 400.
        num_val: Number of validation images. Defaults to 60.
        image_size: Height and width in pixels. Defaults to (128, 192).
        digits_per_scene: Fewest and most digits. Defaults to (1, 3).
        digit_size: Smallest and largest side of the square that holds a
            digit, in pixels. Defaults to (36, 72).
        seed: Same seed, same scenes. Defaults to 0.
        photographs: Backgrounds, (H, W, 3) RGB of uint8. Defaults to the two
            that come with scikit-learn.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ConfigError: If a value is out of range, ``out_dir`` holds something
            else, or scikit-learn or pycocotools is missing.
    """
    numbers = dict(num_train=num_train, num_val=num_val, seed=seed)
    for name, number in numbers.items():
        if number != 0 and not is_count(number):
            raise ConfigError(f'{name}={number!r}: use a whole number from 0')
    limits = dict(digits_per_scene=digits_per_scene, digit_size=digit_size)
    for name, pair in dict(limits, image_size=image_size).items():
        if len(pair) != 2 or not all(map(is_count, pair)):
            raise ConfigError(
                f'{name}={tuple(pair)}: give two whole numbers from 1'
            )
        if name in limits and pair[0] > pair[1]:
            raise ConfigError(
                f'{name}={tuple(pair)}: give the least one first'
            )
    if digit_size[1] > min(image_size):
        raise ConfigError(
            f'digit_size={tuple(digit_size)} does not fit into '
            f'image_size={tuple(image_size)}: make it smaller'
        )
    out_dir = Path(out_dir)
    digits, labels, photographs = _load_sources(photographs)
    settings: Dict[str, Any] = dict(
        made_by=_MAKER,
        version=_VERSION,
        num_train=num_train,
        num_val=num_val,
        image_size=list(image_size),
        **{name: list(value) for name, value in limits.items()},
        seed=seed,
        photographs=[zlib.crc32(photo.tobytes()) for photo in photographs],
    )
    if not start_folder(out_dir, _SETTINGS, settings):
        return out_dir
    for name in ('train', 'val', 'annotations'):
        shutil.rmtree(out_dir / name, ignore_errors=True)
        (out_dir / name).mkdir()
    order = np.random.default_rng(seed).permutation(len(digits))
    for split in ('train', 'val'):
        rng = np.random.default_rng((seed, _STREAMS[split]))
        chosen = take_share(order, split)
        views = [take_share(photo, split, axis=1) for photo in photographs]
        source = digits[chosen], labels[chosen], views
        count = settings[f'num_{split}']
        scenes = (_paint_scene(rng, *source, settings) for _ in range(count))
        _write_split(out_dir, split, track(scenes, f'{split} scenes', count))
    finish_folder(out_dir, _SETTINGS, settings)
    return out_dir


def take_share(items: np.ndarray, split: str, axis: int = 0) -> np.ndarray:
    """Take the part of an array that belongs to a split."""
    cut = int(items.shape[axis] * _TRAIN_SHARE)
    return np.split(items, [cut], axis)[split == 'val']


def _load_sources(
    photographs: Optional[Sequence[np.ndarray]],
) -> Tuple[np.ndarray, np.ndarray, List[np.ndarray]]:
    try:
        import pycocotools  # noqa: F401  (else missed only after painting)
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ConfigError(
            f'{error.name} is missing: pip install scikit-learn pycocotools'
        ) from error
    if photographs is None:
        photographs = load_sample_images().images
    if len(photographs) == 0:
        raise ConfigError('photographs is empty: give one or more, or None')
    digits = load_digits()
    return digits.images / 16, digits.target, list(photographs)


def _paint_scene(
    rng: np.random.Generator,
    digits: np.ndarray,
    labels: np.ndarray,
    photographs: Sequence[np.ndarray],
    settings: Dict[str, Any],
) -> _Scene:
    photograph = photographs[int(rng.integers(len(photographs)))]
    image = _paint_background(rng, photograph, settings['image_size'])
    scene_labels: List[int] = []
    masks: List[np.ndarray] = []
    areas: List[int] = []
    for _ in range(_draw(rng, settings['digits_per_scene'])):
        index = rng.integers(len(digits))
        size = _draw(rng, settings['digit_size'])
        ink = cv2.resize(
            digits[index], (size, size), interpolation=cv2.INTER_CUBIC
        )
        mask = _place(rng, ink > _INK, image.shape[:2], masks, areas)
        if mask is None:
            continue
        # One strong channel at least: bright, whatever the colour.
        colour = rng.permutation([1, *rng.uniform(0.2, 1, 2)]) * 255
        shade = 0.6 + 0.4 * np.clip(ink[ink > _INK], 0, 1)
        image[mask] = colour * shade[:, None]
        masks = [other & ~mask for other in masks] + [mask]
        areas.append(int(mask.sum()))
        scene_labels.append(int(labels[index]))
    return np.round(image).astype(np.uint8), list(zip(scene_labels, masks))


def _draw(rng: np.random.Generator, limits: Sequence[int]) -> int:
    return int(rng.integers(limits[0], limits[1] + 1))


def _paint_background(
    rng: np.random.Generator, photograph: np.ndarray, image_size: Sequence[int]
) -> np.ndarray:
    """Cut out a random part of the image's shape and darken it."""
    height, width = image_size
    limit = min(photograph.shape[0] / height, photograph.shape[1] / width)
    scale = limit * rng.uniform(0.6, 1)
    rows, columns = int(height * scale), int(width * scale)
    top = rng.integers(photograph.shape[0] - rows + 1)
    left = rng.integers(photograph.shape[1] - columns + 1)
    part = photograph[top : top + rows, left : left + columns]
    part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
    return part * rng.uniform(0.2, 0.5)


def _place(
    rng: np.random.Generator,
    glyph: np.ndarray,
    image_size: Sequence[int],
    masks: Sequence[np.ndarray],
    areas: Sequence[int],
) -> Optional[np.ndarray]:
    """Find a place that leaves 70 % of every earlier digit visible."""
    for _ in range(_PLACE_TRIALS):
        top = rng.integers(image_size[0] - len(glyph) + 1)
        left = rng.integers(image_size[1] - len(glyph) + 1)
        mask = np.zeros(image_size, dtype=bool)
        mask[top : top + len(glyph), left : left + len(glyph)] = glyph
        if all(
            (other & ~mask).sum() >= _MIN_VISIBLE * area
            for other, area in zip(masks, areas)
        ):
            return mask
    return None


def _write_split(out_dir: Path, split: str, scenes: Iterable[_Scene]) -> None:
    from pycocotools import mask as coco_mask

    images: List[dict] = []
    annotations: List[dict] = []
    for image_id, (image, digits) in enumerate(scenes, 1):
        name = f'{image_id:06d}.jpg'
        file = str(out_dir / split / name)
        # OpenCV writes BGR.
        cv2.imwrite(file, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
        size = dict(height=image.shape[0], width=image.shape[1])
        images.append(dict(id=image_id, file_name=name, **size))
        for label, mask in digits:
            code = coco_mask.encode(np.asfortranarray(mask, np.uint8))
            code['counts'] = code['counts'].decode()
            annotation = dict(id=len(annotations) + 1, image_id=image_id)
            annotation.update(category_id=label + 1, segmentation=code)
            annotation.update(area=int(mask.sum()), iscrowd=0)
            annotation.update(bbox=coco_mask.toBbox(code).tolist())
            annotations.append(annotation)
    names = enumerate(DIGIT_CLASSES, 1)
    categories = [dict(id=index, name=name) for index, name in names]
    data = dict(images=images, annotations=annotations, categories=categories)
    path = out_dir / 'annotations' / f'instances_{split}.json'
    path.write_text(json.dumps(data))
