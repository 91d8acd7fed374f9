# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The network that an adaptive file holds."""

import logging
from contextlib import suppress
from typing import Optional, Set, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.logging import print_log

from ..devices import check_device
from ..engine import SubnetStatistics, move_statistics
from ..errors import UsageError, as_usage_error
from ..models import MutualLearningMixin
from ..models.build import build_model
from ..models.checkpoints import check_finite, load_strictly
from ..models.draws import same_draws
from ..slimmable import slim_batch_norms
from ..slimmable.known import KnownChannels, known_channels
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
    with broken, known_channels(_known(file)):
        model = _build(cfg)
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


def find_channels(
    config: str, model: Optional[MutualLearningMixin] = None
) -> Optional[str]:
    """Find what the layers of a network get and keep, for a file.

    Args:
        config (str): The file's, of a network that was verified.
        model (MutualLearningMixin, optional): One like that, such as before
            what only training needs was left out of the config. Where the
            two agree, nothing is traced again. Defaults to None.

    Returns:
        str: For ``AdaptiveFile.channels``; None if it cannot be said of what
        code the network is.
    """
    cfg = Config.fromstring(config, '.py')
    known = None
    if model is not None:
        known = KnownChannels.of(model, config)
    # What goes on draws the numbers that it would have drawn.
    with torch.random.fork_rng(devices=[]), same_draws():
        with suppress(UsageError), known_channels(known):
            built = _build(cfg)
            if known is None or known.given:
                return channels_of(built, config)
        return channels_of(_build(cfg), config)


def channels_of(model: MutualLearningMixin, config: str) -> Optional[str]:
    """Do as :func:`find_channels` for a network that the config built."""
    known = KnownChannels.of(model, config)
    return None if known is None else known.text()


def _known(file: AdaptiveFile) -> Optional[KnownChannels]:
    """What the file says of the channels of the network of its config."""
    if file.channels is None:
        return None
    known = KnownChannels.read(file.channels)
    if known is None or known.is_of(file.config):
        return known
    print_log(
        'the config in the adaptive file was edited after its table was '
        'measured: predictions and scores may be others than the table says',
        logger='current',
        level=logging.WARNING,
    )
    return None  # it is traced


def _build(cfg: Config) -> MutualLearningMixin:
    # What wrote the file verified it; its weights are loaded later.
    with already_verified(), weights_on_meta():
        return build_model(cfg)


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
