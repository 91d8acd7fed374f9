# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One digit of a known box in each image, from tiny to filling it.

For weakly supervised localisation: a classifier learns the digits' names, and
the boxes say whether it looks at them.
"""

import json
from pathlib import Path
from typing import Tuple, Union

from ..files import atomic_write
from .digit_scenes import make_digit_scenes


def make_single_digits(
    out_dir: Union[str, Path],
    num_train: int = 3000,
    num_val: int = 1000,
    image_size: int = 96,
    digit_size: Tuple[int, int] = (16, 96),
    seed: int = 0,
) -> Path:
    """Make scenes of one digit each, and the lists that classifiers read.

    As :func:`~.digit_scenes.make_digit_scenes` writes them, boxes in
    ``annotations/instances_{train,val}.json``, with ``{train,val}.txt``
    beside it: lines of ``file digit``, for ``CustomDataset``.

    Args:
        out_dir: Where to write; a new or empty folder, or an earlier result.
        num_train: Number of training images. Defaults to 3000.
        num_val: Number of validation images. Defaults to 1000.
        image_size: Side of the square images in pixels. Defaults to 96.
        digit_size: Smallest and largest side of the square that holds the
            digit, drawn uniformly, in pixels. Defaults to (16, 96).
        seed: Same seed, same images. Defaults to 0.

    Returns:
        ``out_dir`` as a path.

    Raises:
        ConfigError: As for :func:`~.digit_scenes.make_digit_scenes`.
    """
    out_dir = make_digit_scenes(
        out_dir,
        num_train,
        num_val,
        (image_size, image_size),
        digits_per_scene=(1, 1),
        digit_size=digit_size,
        seed=seed,
    )
    for split in ('train', 'val'):
        path = out_dir / 'annotations' / f'instances_{split}.json'
        truth = json.loads(path.read_text())
        names = {image['id']: image['file_name'] for image in truth['images']}
        lines = [
            f'{names[digit["image_id"]]} {digit["category_id"] - 1}\n'
            for digit in truth['annotations']
        ]
        with atomic_write(out_dir / f'{split}.txt') as file:
            file.write(''.join(lines).encode())
    return out_dir
