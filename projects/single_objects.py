#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Make the images that weakly supervised localisation is tried on.

One object of a known box in each: handwritten digits on photographs, or
objects cut out of COCO's images together with what is around them. Both are
written with the lists that a classifier of folders reads, and with boxes in
COCO's format.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from mutualnet_mm import UsageError
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.datasets.single_digits import make_single_digits
from mutualnet_mm.errors import as_usage_error
from mutualnet_mm.files import atomic_write, make_folder
from mutualnet_mm.progress_bars import track

SIDE = 96  # of the crops, in pixels
LEAST = 16  # side of an object, below which there is nothing to see
SHARES = (0.05, 0.9)  # of a crop, that its object's box takes
OTHERS = 0.2  # of a crop, that boxes of other objects may take
TRIALS = 20
CROPS = dict(train=6, val=1)  # of each object

Box = Sequence[float]


def make_crops(coco: Path, out: Path, seed: int = 0) -> None:
    """Cut single objects out of ``train2017`` and ``val2017``.

    Crops are squares; the share that the object takes is drawn uniformly. The
    classes are COCO's supercategories.

    Args:
        coco (Path): Folder in COCO's layout.
        out (Path): Folder to write to.
        seed (int): Same seed, same crops. Defaults to 0.

    Raises:
        UsageError: If there is no such data, or nothing to cut out.
    """
    classes: List[str] = []
    for split, crops in CROPS.items():
        path = coco / 'annotations' / f'instances_{split}2017.json'
        if not path.is_file():
            raise UsageError(
                f"{str(path)!r} does not exist: give a folder in COCO's layout"
            )
        rng = np.random.default_rng((seed, crops))
        with as_usage_error(f"{str(path)!r} is not in COCO's format"):
            truth = json.loads(path.read_text())
            kinds = {c['id']: c['supercategory'] for c in truth['categories']}
            classes = classes or sorted(set(kinds.values()))
            found = list(_crops(truth, coco / f'{split}2017', crops, rng))
            labels = [classes.index(kinds[crop[2]]) for crop in found]
        if not found:
            raise UsageError(
                f'no object in {str(path)!r} is large enough and by itself: '
                'give other images'
            )
        _write(out, split, found, labels, classes)


_Crop = Tuple[np.ndarray, Box, int]


def _crops(
    truth: dict, folder: Path, number: int, rng: np.random.Generator
) -> Iterator[_Crop]:
    """Yield crops, the object's box in each, and its category."""
    objects: Dict[int, List[dict]] = defaultdict(list)
    for annotation in truth['annotations']:
        objects[annotation['image_id']].append(annotation)
    known = {category['id'] for category in truth['categories']}
    for image in track(truth['images'], folder.name):
        pixels = cv2.imread(str(folder / image['file_name']))
        if pixels is None:
            raise UsageError(
                f'{str(folder / image["file_name"])!r} cannot be read'
            )
        for one in objects[image['id']]:
            if one.get('iscrowd') or min(one['bbox'][2:]) < LEAST:
                continue
            if one['category_id'] not in known:
                continue  # as the stock data set leaves them out
            rest = [o['bbox'] for o in objects[image['id']] if o is not one]
            for _ in range(number):
                window = _window(one['bbox'], rest, pixels.shape, rng)
                if window is None:
                    continue
                left, top, side = window
                part = pixels[top : top + side, left : left + side]
                scale, (x, y, *size) = SIDE / side, one['bbox']
                box = [(x - left) * scale, (y - top) * scale]
                box += [edge * scale for edge in size]
                shrunk = cv2.resize(
                    part, (SIDE, SIDE), interpolation=cv2.INTER_AREA
                )
                yield shrunk, box, one['category_id']


def _window(
    box: Box,
    others: Sequence[Box],
    shape: Sequence[int],
    rng: np.random.Generator,
) -> Optional[Tuple[int, int, int]]:
    """Draw a square with one object inside of it: left, top and side."""
    x, y, width, height = box
    for _ in range(TRIALS):
        side = int(np.sqrt(width * height / rng.uniform(*SHARES)))
        if not max(width, height) <= side <= min(shape[:2]):
            continue
        # No edge of the box is outside of the window, whose own are whole.
        lows = (
            max(0, int(np.ceil(x + width)) - side),
            max(0, int(np.ceil(y + height)) - side),
        )
        highs = min(int(x), shape[1] - side), min(int(y), shape[0] - side)
        if lows[0] > highs[0] or lows[1] > highs[1]:
            continue
        left, top = (int(n) for n in rng.integers(lows, highs, endpoint=True))
        covered = sum(_common(other, (left, top, side)) for other in others)
        if covered <= OTHERS * side**2:
            return left, top, side
    return None


def _common(box: Box, window: Sequence[int]) -> float:
    left, top, side = window
    x, y, width, height = box
    across = min(x + width, left + side) - max(x, left)
    down = min(y + height, top + side) - max(y, top)
    return max(across, 0.0) * max(down, 0.0)


def _write(
    out: Path,
    split: str,
    crops: Sequence[_Crop],
    labels: Sequence[int],
    classes: Sequence[str],
) -> None:
    make_folder(out / split)
    make_folder(out / 'annotations')
    images: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    lines = []
    for number, ((pixels, box, _), label) in enumerate(zip(crops, labels), 1):
        name = f'{number:06d}.png'
        cv2.imwrite(str(out / split / name), pixels)
        images.append(dict(id=number, file_name=name, width=SIDE, height=SIDE))
        own = dict(id=number, image_id=number, category_id=label + 1)
        annotations.append(dict(own, bbox=list(box), iscrowd=0))
        lines.append(f'{name} {label}\n')
    names = [dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    truth = dict(images=images, annotations=annotations, categories=names)
    with atomic_write(out / 'annotations' / f'instances_{split}.json') as file:
        file.write(json.dumps(truth).encode())
    with atomic_write(out / f'{split}.txt') as file:
        file.write(''.join(lines).encode())
    print(f'{split}: {len(crops)} crops')


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument('kind', choices=['digits', 'crops'])
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument(
        '--coco', type=Path, help="folder in COCO's layout, for crops"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        if args.kind == 'digits':
            make_single_digits(args.out)
        elif args.coco is None:
            raise UsageError('crops are cut out of images: give --coco')
        else:
            make_crops(args.coco, args.out)


if __name__ == '__main__':
    main()
