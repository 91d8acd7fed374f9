# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a built stock model says that its config does not."""

from dataclasses import dataclass, field
from typing import Any, Callable, Dict


@dataclass(frozen=True)
class StockTraits:
    """What a built stock model says that its config does not.

    Args:
        place (str): Of the part that has the backbone, ``'model'`` or, in a
            wrapper, ``'model.detector'``.
        task (str): Such as ``'detection'``.
        of_clips (bool): Whether it takes videos.
        of_segments (bool): Whether it takes them as segments (TSN).
        of_one_length (bool): Whether it takes a single number of segments,
            which all subnets share (TRN).
        segments (dict): Number of segments that the backbone and the head
            count, where they do, by their names. Defaults to none.
        divisor (int): To a multiple of which images are padded; 1 if they are
            not. Defaults to 1.
        frozen (dict): Arguments of the backbone that freeze parts of it, with
            the values that do not. Defaults to none.
        batch_norms (bool): Whether there are any. Defaults to True.
        synchronised (bool): Whether they are by themselves. Defaults to
            False.
        takes (Callable): ``takes(side, frames=None)`` says whether the
            backbone takes square images of a side, or such clips of a number
            of frames: its positions may be learned for others. Defaults to
            all.
    """

    place: str
    task: str
    of_clips: bool = False
    of_segments: bool = False
    of_one_length: bool = False
    segments: Dict[str, int] = field(default_factory=dict)
    divisor: int = 1
    frozen: Dict[str, Any] = field(default_factory=dict)
    batch_norms: bool = True
    synchronised: bool = False
    takes: Callable[..., bool] = lambda side, frames=None: True
