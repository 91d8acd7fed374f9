# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Loading of one full-size input against that of a copy for each size."""

from typing import Any, Dict, List, Sequence

import cv2
import torch
from torch import Tensor

from .pictures import crop, jpegs, to_tensor
from .turns import ratio, report, take_turns


def benchmark_data(
    resolutions: Sequence[int] = (224, 192, 160, 128),
    pictures: int = 32,
    rounds: int = 10,
) -> Dict[str, Any]:
    """Compare what a worker does, and the bytes that it hands over.

    Both decode a picture and crop it. Then one hands it on as it is, and the
    training step resizes it; the other hands on a copy of each resolution,
    as in the paper. Both are of 8 bits.

    Args:
        resolutions (Sequence[int]): The full one first. Defaults to
            ImageNet's of the paper.
        pictures (int): Of a run. Defaults to 32.
        rounds (int): Timed runs of each. Defaults to 10.

    Returns:
        dict: See :func:`~.turns.report`.
    """
    stored = jpegs(pictures)
    found: Dict[str, List[Tensor]] = {}

    def one() -> None:
        found['one'] = [to_tensor(crop(p, resolutions[0])) for p in stored]

    def copies() -> None:
        found['copies'] = []
        for picture in stored:
            full = crop(picture, resolutions[0])
            for side in resolutions:
                copy = full
                if side != resolutions[0]:
                    copy = cv2.resize(full, (side, side))
                found['copies'].append(to_tensor(copy))

    times = take_turns({'one': one, 'copies': copies}, rounds)
    sizes = {
        name: sum(t.numel() * t.element_size() for t in tensors) / pictures
        for name, tensors in found.items()
    }
    return report(
        'data',
        times,
        [
            ratio(
                'time of one / of copies', times['one'], times['copies'], 1.0
            ),
            ratio(
                'bytes of one / of copies',
                [sizes['one']],
                [sizes['copies']],
                1 / 2.5,
            ),
        ],
        resolutions=list(resolutions),
        pictures=pictures,
        bytes_of_a_picture=sizes,
        threads=torch.get_num_threads(),
    )
