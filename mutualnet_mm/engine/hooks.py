# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The recipe of batch-norm calibration."""

import copy
import random
from contextlib import contextmanager
from itertools import islice
from typing import Any, Iterator, Optional

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from ..errors import ConfigError
from ..registry import HOOKS


@HOOKS.register_module()
class BNCalibrationHook(Hook):
    """Says what subnets are calibrated on, and supplies it.

    The evaluation loops do the calibration, once they hold the weights that
    they evaluate (an EMA hook's, say), and ask this hook for the data; they
    use one with the defaults where the config has none. It works the same
    under ``test.py``, which builds no train loader.

    Args:
        num_batches (int): Batches per rank. Defaults to 32.
        dataloader (dict, optional): Of the images to use; labels are not
            needed. Defaults to the config's ``train_dataloader``, shuffled
            with a fixed seed.

    Raises:
        ConfigError: If ``num_batches`` is not positive.
    """

    priority = 'NORMAL'

    def __init__(
        self, num_batches: int = 32, dataloader: Optional[dict] = None
    ) -> None:
        if not isinstance(num_batches, int) or num_batches < 1:
            raise ConfigError(
                f'BNCalibrationHook(num_batches={num_batches!r})'
                ': use a whole number from 1'
            )
        self.num_batches = num_batches
        self.dataloader = dataloader
        self._dataset: Any = None

    def batches(self, runner: Runner) -> Iterator[Any]:
        """Yield the calibration batches, the same ones on every call.

        The data set is read once and kept. What draws random numbers meanwhile
        leaves the training's own ones as they were.

        Raises:
            ConfigError: If there is no data loader to take them from.
        """
        config = self.dataloader or runner.cfg.get('train_dataloader')
        if not isinstance(config, dict):
            raise ConfigError(
                'batch norms need images to be calibrated on: give the config '
                'a train_dataloader or BNCalibrationHook a dataloader (a dict)'
            )
        if self._dataset is None:
            self._dataset = DATASETS.build(copy.deepcopy(config['dataset']))
        yield from calibration_batches(
            dict(config, dataset=self._dataset), self.num_batches
        )


def calibration_batches(dataloader: dict, num_batches: int) -> Iterator[Any]:
    """Yield the first batches of a data loader, the same ones on every call.

    What draws random numbers meanwhile leaves others' as they were.

    Args:
        dataloader (dict): Its settings.
        num_batches (int): How many at most.
    """
    config = dict(dataloader)
    config['persistent_workers'] = False  # they would outlive the loader
    with _own_randomness():
        # A new loader each time: samplers and batch samplers remember.
        loader = Runner.build_dataloader(config, seed=0)
        yield from islice(loader, num_batches)


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Fix the random numbers of a ``with`` block, and restore them after."""
    # Of the CPU only, where data is made: torch.manual_seed would reach the
    # training's generators on a GPU too.
    cpu = torch.default_generator
    before = random.getstate(), np.random.get_state(), cpu.get_state()
    random.seed(0)
    np.random.seed(0)
    cpu.manual_seed(0)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        cpu.set_state(before[2])
