# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Handwritten digits as folders of images, without a download."""

from pathlib import Path
from typing import Union

import cv2
import numpy as np

from ..errors import ConfigError, is_count
from .folders import finish_folder, start_folder

_NUM_TRAIN = 1297  # of 1797
_SETTINGS = 'digits.json'


def make_digits(out_dir: Union[str, Path], size: int = 16) -> Path:
    """Write scikit-learn's digits for ``CustomDataset``, unless already done.

    1297 images to train on and 500 to validate, in ``train/<digit>/*.png``
    and ``val/<digit>/*.png``, enlarged from 8 x 8 pixels. It serves tests and
    small studies, not the paper.

    Args:
        out_dir (str or Path): A new or empty folder, or an earlier result.
        size (int): Side of the images in pixels. Defaults to 16.

    Returns:
        Path: ``out_dir``.

    Raises:
        ConfigError: If ``out_dir`` holds something else or is a file, if
            ``size`` is not a whole number from 1, or if scikit-learn is
            missing.
    """
    out_dir = Path(out_dir)
    if not is_count(size):
        raise ConfigError(f'size={size!r}: use a whole number from 1')
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ConfigError(
            'scikit-learn is missing: pip install scikit-learn'
        ) from error
    settings = dict(made_by='mutualnet_mm.datasets.make_digits', size=size)
    if not start_folder(out_dir, _SETTINGS, settings):
        return out_dir
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    for rank, index in enumerate(order):
        split = 'train' if rank < _NUM_TRAIN else 'val'
        folder = out_dir / split / str(digits.target[index])
        folder.mkdir(parents=True, exist_ok=True)
        image = (digits.images[index] * (255 / 16)).astype(np.uint8)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{index}.png'), image)
    finish_folder(out_dir, _SETTINGS, settings)
    return out_dir
