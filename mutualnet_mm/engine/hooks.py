# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The recipe of batch-norm calibration."""

import copy
from itertools import islice
from typing import Any, Iterator, Optional

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

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
        self._built: Optional[DataLoader] = None

    def batches(self, runner: Runner) -> Iterator[Any]:
        """Yield the calibration batches, the same ones on every call.

        Raises:
            ConfigError: If there is no data loader to take them from.
        """
        if self._built is None:
            self._built = runner.build_dataloader(self._config(runner), seed=0)
        # The epoch seeds the sampler's shuffling.
        if hasattr(self._built.sampler, 'set_epoch'):
            self._built.sampler.set_epoch(0)
        return islice(iter(self._built), self.num_batches)

    def _config(self, runner: Runner) -> dict:
        config = self.dataloader or runner.cfg.get('train_dataloader')
        if config is None:
            raise ConfigError(
                'batch norms need images to be calibrated on: give the config '
                'a train_dataloader or BNCalibrationHook a dataloader'
            )
        config = copy.deepcopy(config)
        if not isinstance(config, dict):
            raise ConfigError(
                'train_dataloader is built already: give '
                'BNCalibrationHook a dataloader config'
            )
        # Workers stop after each calibration, beside the training's own; a
        # sampler for endless iteration is cut by ``num_batches``.
        config['persistent_workers'] = False
        return config
