# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Generated data of detectors of actions, in the form of AVA."""

from pathlib import Path
from typing import Dict, List

import numpy as np

from .made_files import NUMBER, Leaf, write_keyed
from .made_videos import video, write_frames

_SECOND = '0901'  # of the film: AVA begins at 900
_LABELS = (1, 3, 4)


def ava_scenes(dataset: Leaf, root: Path, labels: int) -> Leaf:
    """Frames of videos, a person in each who acts, and proposals of it."""
    del labels  # AVA's own are few numbers of many
    rows: List[str] = []
    proposals: Dict[str, np.ndarray] = {}
    for number in range(NUMBER):
        box = [0.1, 0.2, 0.6, 0.9]  # shares of width and height
        sides = ','.join(map(str, box))
        key = f'{video(number)},{_SECOND}'
        rows += [f'{key},{sides},{label},0' for label in _LABELS]
        proposals[key] = np.array([[*box, 0.95]], np.float32)
    listed = ''.join(
        f'item {{\n  name: "action {label}"\n  id: {label}\n}}\n'
        for label in _LABELS
    )
    files = dict(
        ann_file=('truth', '\n'.join(rows), '.txt'),
        exclude_file=('excluded', '', '.txt'),
        label_file=('actions', listed, '.txt'),
        proposal_file=('persons', proposals, '.pkl'),
    )
    names = ('filename_tmpl', 'start_index', 'num_classes', 'custom_classes')
    return dict(
        type=dataset['type'],
        **{
            name: str(root / write_keyed(root, *file))
            for name, file in files.items()
        },
        data_prefix=dict(img=str(write_frames(dataset, root))),
        **{name: dataset[name] for name in names if name in dataset},
    )
