# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checks what a deployed network is given to calibrate on."""

from typing import Any, Iterable

from ..errors import UsageError


def check_loader(dataloader: Any) -> None:
    """Refuse what is neither a data loader nor its settings."""
    if isinstance(dataloader, dict):
        fits = 'dataset' in dataloader
    else:
        fits = isinstance(dataloader, Iterable)
    if not fits:
        raise UsageError(
            f'calibrate() was given {dataloader!r}: give a data loader of the '
            'config, or its settings with a dataset, such as '
            'net.cfg.train_dataloader'
        )


def check_batch(batch: Any) -> dict:
    """Return a batch as it is; refuse what no data loader gives."""
    if not isinstance(batch, dict) or 'inputs' not in batch:
        raise UsageError(
            f'a batch to calibrate on is a {type(batch).__name__}: give what '
            'a data loader of the config gives, or its settings, such as '
            'net.cfg.train_dataloader'
        )
    return batch
