# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data of recognizers: videos, frames and skeletons."""

import os
from pathlib import Path
from typing import List

import cv2
import numpy as np

from ..files import make_folder
from .made_files import (
    NUMBER,
    SIDES,
    Leaf,
    draw_picture,
    write_image,
    write_keyed,
)

_CLIP = (48, 64)  # height and width in pixels
_FRAMES = 64


def _frames(number: int) -> List[np.ndarray]:
    """A rectangle that moves, over noise."""
    picture, _ = draw_picture(number, _CLIP)
    return [np.roll(picture, i, axis=1) for i in range(_FRAMES)]


def videos(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Videos, and the list of them."""
    lines = []
    for number in range(NUMBER):
        path = root / 'videos' / f'{number}.mp4'
        if not path.is_file():
            make_folder(path.parent)
            draft = path.with_name(f'{number}-{os.getpid()}.mp4')
            writer = cv2.VideoWriter(
                str(draft), cv2.VideoWriter.fourcc(*'mp4v'), 25, _CLIP[::-1]
            )
            for frame in _frames(number):
                writer.write(frame)
            writer.release()
            draft.replace(path)
        lines.append(f'{number}.mp4 {number % labels}')
    listed = write_keyed(root, 'videos', '\n'.join(lines), '.txt')
    return dict(
        type='mmaction.VideoDataset',
        ann_file=str(root / listed),
        data_prefix=dict(video=str(root / 'videos')),
        **_several(dataset),
    )


def raw_frames(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Videos as folders of images, or of the two axes of flow."""
    folder = write_frames(dataset, root)
    lines = [f'{video(n)} {_FRAMES} {n % labels}' for n in range(NUMBER)]
    listed = write_keyed(root, 'frames', '\n'.join(lines), '.txt')
    names = ('filename_tmpl', 'modality', 'start_index')
    return dict(
        type='mmaction.RawframeDataset',
        ann_file=str(root / listed),
        data_prefix=dict(img=str(folder)),
        **{n: dataset[n] for n in names if n in dataset},
        **_several(dataset),
    )


def video(number: int) -> str:
    """Name of a folder of frames: as long as those of AVA's films."""
    return f'{number:011}'


def write_frames(dataset: Leaf, root: Path) -> Path:
    """Write videos as folders of images; return the folder of these."""
    folder = root / 'frames'
    flow = dataset.get('modality') == 'Flow'
    template = dataset.get('filename_tmpl', 'img_{:05}.jpg')
    for number in range(NUMBER):
        for i, frame in enumerate(_frames(number), start=1):
            axes = ('x', 'y') if flow else ('',)
            for axis in axes:
                name = template.format(*[axis] * flow, i)
                picture = frame[..., 0] if flow else frame
                write_image(folder / video(number) / name, picture)
    return folder


def _several(dataset: Leaf) -> Leaf:
    """Settings of videos that have several labels."""
    names = ('multi_class', 'num_classes')
    return {n: dataset[n] for n in names if n in dataset}


def skeletons(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Points that move at random, in the picture or in space."""
    steps = dataset.get('pipeline') or ()
    # Microsoft's cameras find 25 joints in space, pose estimators 17 of COCO.
    in_space = any(step.get('dataset') == 'nturgb+d' for step in steps)
    shape = (1, _FRAMES, 25 if in_space else 17)
    split = dataset.get('split') or 'all'
    rng = np.random.default_rng(0)
    annotations = []
    for number in range(NUMBER):
        places = rng.uniform(5, 90, (*shape, 3 if in_space else 2))
        pose = dict(
            frame_dir=str(number),
            label=number % labels,
            img_shape=SIDES,
            original_shape=SIDES,
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
        ann_file=str(root / write_keyed(root, 'skeletons', content, '.pkl')),
    )
    return dict(made, split=split)
