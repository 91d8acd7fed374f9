# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Data samples of a pass: its own, and those that a pipeline has made."""

import copy
from typing import List, Sequence, Tuple

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
        sample = sample.new()  # of the metainfo a deep copy, else a shallow
        if CARRIED in sample:
            sample.pop(CARRIED)
        owned.append(copy.deepcopy(sample) if with_truth else sample)
    return owned


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
