# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Clips at a small size, dealt into folds."""

import random
from pathlib import Path
from typing import Dict, List

import cv2

from mutualnet_mm import UsageError
from mutualnet_mm.files import atomic_write

SIZE = (96, 72)  # width and height: room for crops of 64 pixels


def prepare_clips(data: Path, out: Path, folds: int) -> None:
    """Shrink every listed clip once, and write the lists of the folds.

    Args:
        data (Path): With ``train.txt`` and ``val.txt``, lines of ``path
            label``, and the videos.
        out (Path): Where small clips, their own ``train.txt`` and ``val.txt``
            and ``fold<i>_{train,test}.txt`` go.
        folds (int): Parts of equal shares of each class; each part is tested
            by networks trained on the others.

    Raises:
        UsageError: If there are no lists, or a clip cannot be read.
    """
    if (out / f'fold{folds - 1}_test.txt').is_file():
        return
    by_label: Dict[str, List[str]] = {}
    for name in ('train.txt', 'val.txt'):
        if not (data / name).is_file():
            raise UsageError(
                f'{str(data / name)!r} does not exist: give the folder with '
                'train.txt and val.txt'
            )
        listed = []
        for line in (data / name).read_text().splitlines():
            path, label = line.rsplit(' ', 1)
            small = Path(path).with_suffix('.mp4')
            shrink(data / path, out / small)
            listed.append(f'{small} {label}')
            by_label.setdefault(label, []).append(listed[-1])
        (out / name).write_text('\n'.join(listed))
    dealt: List[List[str]] = [[] for _ in range(folds)]
    for lines in by_label.values():
        lines.sort()
        random.Random(0).shuffle(lines)
        for i, line in enumerate(lines):
            dealt[i % folds].append(line)
    for i, test in enumerate(dealt):
        train = [line for j in range(folds) if j != i for line in dealt[j]]
        for part, lines in (('train', train), ('test', test)):
            with atomic_write(out / f'fold{i}_{part}.txt') as file:
                file.write('\n'.join(lines).encode())


def shrink(video: Path, out: Path) -> None:
    """Write a video again at :data:`SIZE`."""
    source = cv2.VideoCapture(str(video))
    rate = source.get(cv2.CAP_PROP_FPS)
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(
        str(out), cv2.VideoWriter_fourcc(*'mp4v'), rate, SIZE
    )
    frames = 0
    while True:
        found, frame = source.read()
        if not found:
            break
        writer.write(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA))
        frames += 1
    writer.release()
    if not frames:
        raise UsageError(f'{str(video)!r} has no frame that can be read')
