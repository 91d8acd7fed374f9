# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""CIFAR-10 as small images, listed for training, search and test."""

import json
from pathlib import Path
from typing import Dict, List

import mmcv

from mutualnet_mm import UsageError
from mutualnet_mm.files import atomic_write


def prepare_images(
    data: Path, out: Path, size: int, train: int, test: int
) -> None:
    """Shrink the images once and list who trains, searches and tests.

    Args:
        data (Path): With ``{train,test}/<class>/*.jpg``.
        out (Path): Where the images and lists go.
        size (int): Side of the images in pixels.
        train (int): Training images of each class; the last fifth of them is
            held back from the search of the learning rates.
        test (int): Test images of each class.

    Raises:
        UsageError: If ``data`` is not CIFAR-10, or ``out`` holds images of
            other settings.
    """
    made = dict(size=size, train=train, test=test)
    stamp = out / 'made.json'
    if stamp.is_file():
        if json.loads(stamp.read_text()) != made:
            raise UsageError(
                f'{str(out)!r} holds the images of another recipe: use '
                'another --out'
            )
        return
    lists: Dict[str, List[str]] = dict(
        train=[], search=[], holdout=[], test=[]
    )
    for split in ('train', 'test'):
        folders = sorted(p for p in (data / split).glob('*') if p.is_dir())
        if len(folders) != 10:
            raise UsageError(
                f'{str(data / split)!r} does not hold the ten folders of '
                'CIFAR-10: give the folder with train/<class>/*.jpg and '
                'test/<class>/*.jpg'
            )
        for label, folder in enumerate(folders):
            files = sorted(folder.iterdir())[: made[split]]
            for i, file in enumerate(files):
                name = f'{split}/{folder.name}/{file.stem}.png'
                image = mmcv.imread(str(file))
                mmcv.imwrite(
                    mmcv.imresize(image, (size, size), interpolation='area'),
                    str(out / name),
                )
                line = f'{name} {label}'
                lists[split].append(line)
                if split == 'train':
                    part = 'search' if i < 0.8 * len(files) else 'holdout'
                    lists[part].append(line)
    for name, lines in lists.items():
        (out / f'{name}.txt').write_text('\n'.join(lines))
    with atomic_write(stamp) as file:
        file.write(json.dumps(made).encode())
