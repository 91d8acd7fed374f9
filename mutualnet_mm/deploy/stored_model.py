# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The network that an adaptive file holds."""

from typing import Set, Tuple, Union

import torch
from mmengine.config import Config

from ..devices import check_device
from ..engine import SubnetStatistics, move_statistics
from ..errors import UsageError, as_usage_error
from ..models import MutualLearningMixin
from ..models.build import build_model
from ..models.checkpoints import check_finite, load_strictly
from ..slimmable import slim_batch_norms
from ..slimmable.meta import weights_on_meta
from ..slimmable.verify import already_verified
from .adaptive_file import AdaptiveFile


def stored_config(file: AdaptiveFile) -> Config:
    """Read the config of a file; this executes the config.

    Raises:
        UsageError: If it is not Python, or imports what is not installed,
            or if a path was given in place of a loaded file.
    """
    if not isinstance(file, AdaptiveFile):
        raise UsageError(
            f'{file!r} is no AdaptiveFile: open adaptive.pth with '
            'AdaptiveModel.from_file(path)'
        )
    with as_usage_error("the adaptive file's config cannot be read"):
        return Config.fromstring(file.config, '.py')


def stored_model(
    file: AdaptiveFile, cfg: Config, device: Union[str, torch.device]
) -> Tuple[MutualLearningMixin, SubnetStatistics]:
    """Build the network of a file, with its weights, in evaluation mode.

    Args:
        file (AdaptiveFile): The loaded file.
        cfg (Config): Its config.
        device (str or torch.device): Where to put it.

    Returns:
        tuple: The network and the statistics of its subnets, on the device.

    Raises:
        UsageError: If weights, statistics or settings do not fit the
            config, or if there is no such device.
    """
    check_device(device)
    broken = as_usage_error("the adaptive file's config cannot be built")
    # What wrote the file verified it; its weights are loaded below.
    with broken, already_verified(), weights_on_meta():
        model = build_model(cfg)
    found = (
        (model.space.min_width, model.space.max_width),
        model.slim_state.rounding,
    )
    if found != (tuple(file.width), file.rounding):
        raise UsageError(
            f'the adaptive file is of widths {tuple(file.width)} with '
            f'rounding={file.rounding!r}, but its config builds {found[0]} '
            f'with {found[1]!r}: build the table again'
        )
    name = f'the adaptive file (written with {file.versions})'
    check_finite(file.weights, 'the adaptive file')
    load_strictly(model, file.weights, name, assign=True)
    model.to(device).eval()
    model.dataset_meta = file.dataset_meta  # where stock code looks for it
    _check_statistics(model, file.statistics)
    return model, move_statistics(file.statistics, device)


def _check_statistics(
    model: MutualLearningMixin, bank: SubnetStatistics
) -> None:
    layers = dict(slim_batch_norms(model))
    expected: Set[str] = set().union(*bank.values())
    for subnet, statistics in bank.items():
        unknown = expected.difference(statistics) | (
            set(statistics).difference(layers)
        )
        wrong = [
            name
            for name, (mean, variance) in statistics.items()
            if name in layers
            and not (
                len(mean) == len(variance) <= layers[name].num_features
                and mean.isfinite().all()
                and variance.isfinite().all()
                and (variance >= 0).all()
            )
        ]
        for name in (*sorted(unknown), *wrong):
            raise UsageError(
                f'the adaptive file is damaged: its statistics of {subnet} do '
                f'not fit layer {name!r}'
            )
