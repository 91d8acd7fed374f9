# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A trained checkpoint, ready to be looked at subnet by subnet."""

from functools import cached_property
from typing import Any, List, Sequence, Union

import torch
from mmengine.config import Config
from torch import nn

from ..deploy.inputs import InputPipeline
from ..devices import check_device
from ..engine import calibrate
from ..engine.calibration import SubnetStatistics
from ..engine.hooks import calibration_recipe
from ..errors import ConfigError
from ..models.build import build_model
from ..models.checkpoints import load_trained
from ..models.static import static_model
from ..progress_bars import track
from ..subnet import Subnet

_IMAGES = 'mutualnet cam makes its activation maps'
_ELSEWHERE = dict(
    classification=_IMAGES,
    detection=_IMAGES,
    action='mutualnet cam-video makes its activation maps',
)
_NOWHERE = 'mutualnet --help lists the analyses'


class TrainedNetwork:
    """A network with its weights, and the statistics of some subnets.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.
        checkpoint (str): File of mutual learning, or of a stock training of
            the same model.
        subnets (Sequence[str or Subnet]): Whose statistics to collect when
            they are first asked for, from the data that the config's
            ``BNCalibrationHook`` names. Those of the full network, or of the
            one that is trained alone, are the running ones unless it says
            otherwise.
        calibrated (bool): Whether statistics are collected. Otherwise each
            subnet has the leading running ones. Defaults to True.
        device (str or torch.device): Where to run. Defaults to ``'cpu'``.
        tasks (Sequence[str]): Those that what follows is for, such as
            ``'detection'``. Defaults to any.

    Attributes:
        model (MutualLearningMixin): In evaluation mode.
        subnets (list[Subnet]): As given, in order.

    Raises:
        UsageError: If the checkpoint does not fit the config, or was not
            trained for a subnet, or if there is no such device.
        ConfigError: If a subnet is outside of the config's range, or the
            model is for another task.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        subnets: Sequence[Union[str, Subnet]],
        calibrated: bool = True,
        device: Union[str, torch.device] = 'cpu',
        tasks: Sequence[str] = (),
    ) -> None:
        check_device(device)
        self.cfg = cfg
        self.model: Any = build_model(cfg)
        task = self.model.task.name
        if tasks and task not in tasks:
            raise ConfigError(
                f'the model is for {task}, and this is for '
                f'{" or ".join(tasks)}: {_ELSEWHERE.get(task, _NOWHERE)}'
            )
        self.subnets: List[Subnet] = self.model.space.choose(subnets)
        load_trained(self.model, checkpoint)
        self.model.check_trained(self.subnets)
        self.model.to(device).eval()
        self._recipe = calibration_recipe(cfg)
        self._calibrated: List[Subnet] = []
        if calibrated:
            self._calibrated = self._recipe.chosen(self.model, self.subnets)

    @cached_property
    def statistics(self) -> SubnetStatistics:
        """Collected batch-norm statistics, by ``str(subnet)``."""
        if not self._calibrated:
            return {}
        recipe = self._recipe
        batches = track(
            recipe.batches_of(self.cfg), 'calibrating', recipe.num_batches
        )
        subnets, tested = self._calibrated, recipe.is_tested
        return calibrate(self.model, subnets, batches, tested)

    def static(self, subnet: Union[str, Subnet]) -> nn.Module:
        """A subnet as a stock model of its size, see :func:`static_model`.

        It takes what the pipeline delivers with ``mode='predict'``, and
        inputs of its own size with ``mode='tensor'``.
        """
        statistics = self.statistics.get(str(subnet))
        return static_model(self.model, subnet, statistics)

    @cached_property
    def inputs(self) -> InputPipeline:
        """Reads files as the config's test pipeline does."""
        return InputPipeline(self.cfg, self.model)
