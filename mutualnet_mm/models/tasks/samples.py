# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The data samples of one pass: copies, or those that a pipeline made."""

import copy
from typing import Any, List, Optional, Sequence, Tuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ...datasets.transforms import CARRIED
from ...errors import ConfigError

Samples = Sequence[BaseDataElement]
Batch = Tuple[Tensor, List[BaseDataElement]]


def own_samples(
    data_samples: Samples, with_truth: bool
) -> List[BaseDataElement]:
    """Return samples that a pass may write into.

    Stock heads do: they pad masks, replace them by tensors and add their
    predictions. The sizes that ``MultiResolution`` made are taken off.

    Args:
        data_samples (Sequence): One for each input. They are not changed.
        with_truth (bool): Whether the ground truth is copied, too, as training
            needs it. Otherwise it is shared.
    """
    owned = []
    for sample in data_samples or ():
        sample = _own(sample, with_truth)
        if CARRIED in sample:
            sample.pop(CARRIED)
        owned.append(sample)
    return owned


def _own(value: Any, with_truth: bool) -> Any:
    """Copy what holds data, and the data themselves if they are truth.

    Five times as fast as ``deepcopy``, which shows with a thousand images.
    """
    if isinstance(value, BaseDataElement):
        new = value.__class__.__new__(value.__class__)
        for name, field in value.__dict__.items():
            shared = name == CARRIED  # all sizes of an image
            new.__dict__[name] = field if shared else _own(field, with_truth)
        return new
    if isinstance(value, dict):
        return {key: _own(item, with_truth) for key, item in value.items()}
    if isinstance(value, list):
        return [_own(item, with_truth) for item in value]
    if isinstance(value, set):
        return set(value)
    if not with_truth or isinstance(value, (str, int, float, tuple)):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.deepcopy(value)


def predicted_scores(data_samples: Samples) -> Optional[Tensor]:
    """Return the predicted score of each class, (N, classes).

    Args:
        data_samples (Sequence): Predictions; there is at least one.

    Returns:
        Tensor or None: None where there is not one row of them for each.
    """
    rows = [getattr(sample, 'pred_score', None) for sample in data_samples]
    if not all(isinstance(r, Tensor) and r.dim() == 1 for r in rows):
        return None
    return torch.stack(rows)


def carries(data_samples: Samples, resolution: int, with_truth: bool) -> bool:
    """Whether ``MultiResolution`` made this size; in training it has to.

    Raises:
        ConfigError: If it made others alone.
    """
    if not data_samples or CARRIED not in data_samples[0]:
        return False
    made = data_samples[0].get(CARRIED)
    if with_truth and resolution not in made:
        raise ConfigError(
            f'resolution {resolution} was not made by the MultiResolution '
            f'transform, which made {sorted(made)} beside the full one: '
            'give it the same list as mutual.resolution'
        )
    return resolution in made


def carried_batch(
    model: nn.Module,
    data_samples: Samples,
    resolution: int,
    with_truth: bool,
) -> Batch:
    """Return the batch of a size that ``MultiResolution`` made.

    Raises:
        ConfigError: If batch augmentations would mix each size anew.
    """
    preprocessor = model.data_preprocessor
    if with_truth and getattr(preprocessor, 'batch_augments', None):
        raise ConfigError(
            'MultiResolution cannot be combined with batch augmentations '
            '(Mixup, CutMix, ...), which would mix each size anew: leave '
            'one of them out'
        )
    packed = [sample.get(CARRIED)[resolution] for sample in data_samples]
    batch = {key: [p[key] for p in packed] for key in packed[0]}
    # Preprocessors share what they need not move to another device.
    batch['data_samples'] = own_samples(batch['data_samples'], with_truth)
    data = preprocessor(batch, with_truth)
    return data['inputs'], data['data_samples']
