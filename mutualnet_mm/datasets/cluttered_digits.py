# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Handwritten digits between pieces of others, on photographs.

Small images on which a classifier gains from width and from resolution.
"""

import shutil
from pathlib import Path
from typing import Sequence, Tuple, Union

import cv2
import numpy as np

from ..errors import ConfigError, is_count
from ..progress_bars import track
from .digit_scenes import take_share
from .folders import finish_folder, start_folder

_MAKER = 'mutualnet_mm.datasets.make_cluttered_digits'
_SETTINGS = 'cluttered_digits.json'
_VERSION = 2  # raised whenever the same arguments would give other images
_SIZES = (16, 128)  # least and largest size of images
_SIDES = (0.45, 0.9)  # of the image's side: the square that holds the digit
_ANGLE = 20  # degrees, to either side
_PIECES = 2
_LIGHT = (140, 220)  # grey level of digits
_DARK = (0.2, 0.5)  # what is left of the photograph's light

# Numbers of the streams of random numbers: with others, other images.
_STREAMS = dict(train=5, val=3)


def make_cluttered_digits(
    out_dir: Union[str, Path],
    num_train: int = 4000,
    num_val: int = 2000,
    size: int = 32,
    seed: int = 0,
) -> Path:
    """Make images for ``CustomDataset``, unless they are already there.

    ``{train,val}/<digit>/*.png``: one of scikit-learn's digits, scaled,
    rotated by up to 20 degrees and placed at random, over two pieces of other
    digits in the same colour, on a darkened part of one of its two
    photographs. Train and val share no digit and no part of a photograph.

    Args:
        out_dir (str or Path): A new or empty folder, or an earlier result,
            which is replaced if its settings differ or it is incomplete.
        num_train (int): Number of training images. Defaults to 4000.
        num_val (int): Number of validation images. Defaults to 2000.
        size (int): Side of the square images in pixels, from 16 to 128.
            Defaults to 32.
        seed (int): Same seed, same images. Defaults to 0.

    Returns:
        Path: ``out_dir``.

    Raises:
        ConfigError: If a value is out of range, ``out_dir`` holds something
            else, or scikit-learn is missing.
    """
    numbers = dict(num_train=num_train, num_val=num_val)
    for name, number in dict(numbers, seed=seed).items():
        if number != 0 and not is_count(number):
            raise ConfigError(f'{name}={number!r}: use a whole number from 0')
    least, most = _SIZES
    if not is_count(size) or not least <= size <= most:
        raise ConfigError(
            f'size={size!r}: use a whole number from {least} to {most}'
        )
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise ConfigError(
            'scikit-learn is missing: pip install scikit-learn'
        ) from error
    out_dir = Path(out_dir)
    settings = dict(made_by=_MAKER, version=_VERSION, size=size, seed=seed)
    settings.update(numbers)
    if not start_folder(out_dir, _SETTINGS, settings):
        return out_dir
    digits = load_digits()
    photographs = load_sample_images().images
    order = np.random.default_rng(seed).permutation(len(digits.target))
    for split in ('train', 'val'):
        shutil.rmtree(out_dir / split, ignore_errors=True)
        for name in digits.target_names:
            (out_dir / split / str(name)).mkdir(parents=True)
        rng = np.random.default_rng((seed, _STREAMS[split]))
        chosen = take_share(order, split)
        glyphs, labels = digits.images[chosen] / 16, digits.target[chosen]
        views = [take_share(photo, split, axis=1) for photo in photographs]
        count = numbers[f'num_{split}']
        for index in track(range(count), f'{split} images', count):
            image, label = _paint(rng, glyphs, labels, views, size)
            file = out_dir / split / str(label) / f'{index:05d}.png'
            cv2.imwrite(str(file), image[..., ::-1])  # OpenCV writes BGR
    finish_folder(out_dir, _SETTINGS, settings)
    return out_dir


def _paint(
    rng: np.random.Generator,
    glyphs: np.ndarray,
    labels: np.ndarray,
    photographs: Sequence[np.ndarray],
    size: int,
) -> Tuple[np.ndarray, int]:
    """Make an image, (size, size, 3) RGB of uint8; return its label, too."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    image = _cut_background(rng, photograph, size)
    # Digit and pieces share a colour, lighter than the darkened photograph.
    colour = rng.uniform(*_LIGHT) + rng.uniform(-40, 40, size=3)
    index = int(rng.integers(len(glyphs)))
    side = rng.uniform(*_SIDES) * size
    for other in rng.integers(len(glyphs), size=_PIECES):
        top, left = rng.integers(0, 6, size=2)
        piece = glyphs[other][top : top + 3, left : left + 3]
        _add(rng, image, piece, side * 3 / 8, colour)
    _add(rng, image, glyphs[index], side, colour)
    image = np.round(np.clip(image, 0, 255)).astype(np.uint8)
    return image, int(labels[index])


def _cut_background(
    rng: np.random.Generator, photograph: np.ndarray, size: int
) -> np.ndarray:
    """Cut out a random square of up to four times the size; darken it."""
    most = min(4 * size, *photograph.shape[:2])
    side = int(rng.integers(size, most + 1))
    top = rng.integers(photograph.shape[0] - side + 1)
    left = rng.integers(photograph.shape[1] - side + 1)
    part = photograph[top : top + side, left : left + side]
    part = cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA)
    return part * rng.uniform(*_DARK)


def _add(
    rng: np.random.Generator,
    image: np.ndarray,
    glyph: np.ndarray,
    side: float,
    colour: np.ndarray,
) -> None:
    """Paint a square glyph somewhere, turned; most of it lies in the image."""
    size = len(image)
    angle = rng.uniform(-_ANGLE, _ANGLE)
    matrix = cv2.getRotationMatrix2D(
        ((len(glyph) - 1) / 2,) * 2, angle, side / len(glyph)
    )
    # From the middle of the glyph to where it comes to lie.
    place = rng.uniform(side / 2, size - side / 2, size=2)
    matrix[:, 2] = matrix[:, 2] + place - len(glyph) / 2
    ink = cv2.warpAffine(
        # OpenCV 5.0.0 rounds double precision to whole numbers first.
        glyph.astype(np.float32),
        matrix,
        (size, size),
        flags=cv2.INTER_CUBIC,
    )
    opacity = np.clip(2 * ink - 0.5, 0, 1)[..., None]  # a sharper edge
    image += opacity * (colour - image)
