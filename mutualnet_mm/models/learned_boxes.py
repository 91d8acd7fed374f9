# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Whether there are objects, and each resolution learns their boxes."""

import logging
from typing import Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from mmengine.logging import print_log
from torch import Tensor, nn

from ..subnet import Subnet

PASSES = 100
"""Passes in a row of a resolution, after which the log names it."""

_Kind = Tuple[int, str]  # a resolution and the name of a loss


class LearnedBoxes:
    """Notices resolutions at which no object is assigned to any prediction.

    And whether any came at all. Below some size no anchor or point lies in a
    box, or overlaps it enough: such passes learn background alone, with a
    loss that falls as it should. Then the stock losses of boxes are exactly
    0. They travel with the values that are read in each step anyway, and a
    loss that was not 0 once at a resolution is not looked at there again.

    Args:
        model (nn.Module): Detector, whose heads a warning names.
    """

    def __init__(self, model: nn.Module) -> None:
        self._heads = {
            name: _describe(head)
            for name, head in model.named_children()
            if 'head' in name
        }
        self._found: Set[_Kind] = set()
        self._empty: Dict[_Kind, int] = {}
        self._without, self._is_told = 0, False
        self._values: List[Tensor] = []
        self._kinds: List[Tuple[_Kind, Subnet]] = []

    def start(self, has_objects: Optional[bool]) -> None:
        """Forget what the pass of an interrupted step left.

        Args:
            has_objects (bool, optional): Whether the batch has any; None for
                models that learn none. If the first batches all have none,
                the log says so once: data sets keep images whose objects
                they drop.
        """
        self._values, self._kinds = [], []
        if has_objects is None or self._is_told:
            return
        self._without += 1
        if has_objects:
            self._is_told = True
        elif self._without == PASSES:
            self._is_told = True
            print_log(
                f'the first {PASSES} batches of this process have no object: '
                'the detector learns background alone. Look what the '
                'pipeline delivers (mutualnet browse): boxes from 0 to 1 in '
                'place of pixels, an area of 0, masks that cannot be read, '
                'or classes of other names make a data set drop objects',
                logger='current',
                level=logging.WARNING,
            )

    def add(self, subnet: Subnet, losses: Mapping[str, Any]) -> None:
        """Take the losses of boxes of one pass, where they are in question.

        Args:
            subnet (Subnet): Which passed.
            losses (Mapping): As the stock model gives them, of a batch with
                objects.
        """
        for name, loss in losses.items():
            kind = subnet.resolution, name
            if not _is_of_boxes(name) or kind in self._found:
                continue
            parts = loss if isinstance(loss, (list, tuple)) else [loss]
            if not all(isinstance(part, Tensor) for part in parts):
                continue
            size = [part.detach().abs().sum() for part in parts]
            self._values.append(size[0] if len(size) == 1 else sum(size))
            self._kinds.append((kind, subnet))

    @property
    def values(self) -> Sequence[Tensor]:
        """What :meth:`finish` wants as numbers."""
        return self._values

    def finish(self, values: Sequence[float]) -> None:
        """Count the passes without any box; name a resolution once.

        Args:
            values (Sequence[float]): Of :attr:`values`.
        """
        for value, (kind, subnet) in zip(values, self._kinds):
            if value != 0:  # not a number, too, which is named elsewhere
                self._found.add(kind)
                self._empty.pop(kind, None)
                continue
            self._empty[kind] = self._empty.get(kind, 0) + 1
            if self._empty[kind] == PASSES and kind not in self._found:
                self._found.add(kind)
                print_log(
                    self._warning(kind, subnet), 'current', logging.WARNING
                )
        self.start(None)

    def _warning(self, kind: _Kind, subnet: Subnet) -> str:
        resolution, name = kind
        return (
            f'{name} was exactly 0 in the first {PASSES} passes of resolution '
            f'{resolution} (the last one of {subnet}) on images with objects: '
            f'{self._assigner(name)} finds no box there to learn from, so '
            'that these subnets learn background alone. List only larger '
            'resolutions in mutual.resolution, or use smaller anchors and '
            'strides'
        )

    def _assigner(self, loss: str) -> str:
        is_rpn = 'rpn' in loss
        for name, description in self._heads.items():
            if is_rpn == (name == 'rpn_head'):
                return description
        return 'the head'


def _is_of_boxes(name: str) -> bool:
    return 'loss' in name and 'bbox' in name


def _describe(head: nn.Module) -> str:
    for name in ('assigner', 'initial_assigner', 'bbox_assigner'):
        assigner = getattr(head, name, None)
        if assigner is not None:
            if isinstance(assigner, (list, tuple)):
                assigner = assigner[0]
            return f'{type(assigner).__name__} of {type(head).__name__}'
    return type(head).__name__
