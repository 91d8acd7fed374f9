# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Settings of ``mutual`` that a training is resumed with."""

import logging
from typing import Any, Dict, List, Mapping, Optional

from mmengine.logging import print_log

from .settings import acting_settings


def note_training(model: Any, metadata: Dict[str, Any]) -> None:
    """Write what a model is trained by into the metadata of its weights.

    Args:
        model (MutualLearningMixin): With its space, sampler and learning.
        metadata (dict): Of a ``state_dict``; it gets plain values.
    """
    metadata['mutual'] = acting_settings(model)
    metadata['max_iters'] = model._steps.length


def warn_of_changes(
    model: Any, metadata: Mapping[str, Any], step: int
) -> None:
    """Say in one line what changes in a training that goes on.

    Args:
        model (MutualLearningMixin): That is to be trained.
        metadata (Mapping): Beside the weights that were loaded into it.
        step (int): Number of the first step to come.
    """
    noted = metadata.get('mutual')
    if noted is None:
        text = (
            'from a checkpoint that does not say by which settings of mutual '
            'it was trained: they may differ from those of the config'
        )
    else:
        changes = _changes(model, noted, metadata.get('max_iters'))
        if not changes:
            return
        text = (
            'with other settings of mutual than the checkpoint was trained '
            f'by: {", ".join(changes)}'
        )
    print_log(
        f'training goes on at iteration {step} {text}',
        logger='current',
        level=logging.WARNING,
    )


def _changes(
    model: Any, noted: Mapping[str, Any], noted_length: Optional[int]
) -> List[str]:
    """Such as ``'num_random=2 -> 1'``; those that both have count."""
    own, length = acting_settings(model), model._steps.length
    changes = [
        f'{name}={noted[name]!r} -> {own[name]!r}'
        for name in own
        if name in noted and name != 'start' and noted[name] != own[name]
    ]
    # A share of the training: of another length, it ends elsewhere.
    before = _begin(noted.get('start', 0.0), noted_length)
    now = _begin(own['start'], length)
    return changes + [f'start={before} -> {now}'] * (before != now)


def _begin(start: float, length: Optional[int]) -> str:
    if not start or length is None:
        return repr(start)
    return f'{start!r} (iteration {round(start * length)} of {length})'
