# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One training step and one prediction, stage by stage, as a proof."""

import logging
from contextlib import contextmanager
from traceback import format_exc
from typing import Any, Dict, Iterator, List, Optional

import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger, print_log
from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)

from ..config import check_clips, check_colours, check_resolution
from ..config.pipelines import Step
from ..errors import ConfigError, UsageError, first_line
from ..models import MutualLearningMixin
from ..models.build import build_model, without_weights
from ..models.traits import frozen_parameters
from ..sampler import GivenSubnets
from .calibration import calibrate

STAGES = ('build', 'data', 'loss', 'backward', 'calibrate', 'predict')


class TrialError(UsageError):
    """A stage of a trial failed.

    Args:
        stage (str): One of :data:`STAGES`.
        reason (str): In one line.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f'{stage}: {reason}')
        self.stage = stage
        self.reason = reason


@contextmanager
def silenced() -> Iterator[None]:
    """Keep MMEngine's log from saying anything but warnings."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def init_from_scratch(model: nn.Module) -> None:
    """Initialise a model that was built without pretrained weights.

    Args:
        model (nn.Module): Stock or adaptive. It is changed.
    """
    for layer in model.modules():
        # mmaction2's 2D backbones would load weights that nobody named.
        if getattr(layer, 'pretrained', None) is None and getattr(
            layer, 'pretrained2d', False
        ):
            layer.pretrained2d = False
    with silenced():  # a line for each weight
        model.init_weights()


def build_trial_model(cfg: Config) -> MutualLearningMixin:
    """Build a network whose steps train the full and the smallest subnet.

    Its weights are initialised as a stock model's without pretrained ones.
    Parameters of its backbone that do not learn are named in a warning.

    Args:
        cfg (Config): Adaptive. It is not changed.

    Raises:
        ConfigError: If its pipelines do not fit it, or if it cannot be built.
    """
    for check in (check_colours, check_resolution, check_clips):
        check(cfg)
    cfg = without_weights(cfg)
    if 'mutual' not in cfg.model:
        raise ConfigError(
            f'a {Step("", cfg.model).kind} holds the adaptive detector one '
            'level deeper and trains it in its own way, which is not tried '
            'here: make the config of the detector itself adaptive'
        )
    torch.manual_seed(0)
    model = build_model(cfg)
    init_from_scratch(model)
    if model.sampler.single_subnet is None:
        drawn = dict(full=model.space.full, min=model.space.smallest)
        model.sampler = GivenSubnets(model.sampler, drawn)
    frozen = frozen_parameters(model.backbone)
    if frozen:
        names = ', '.join(frozen[:3] + ['...'] * (len(frozen) > 3))
        print_log(
            f'{len(frozen)} parameters of the backbone do not learn: {names}; '
            'an argument of it may freeze them',
            logger='current',
            level=logging.WARNING,
        )
    return model


@contextmanager
def trial_stage(
    name: str, model: Optional[nn.Module] = None
) -> Iterator[None]:
    """Say in one line at which stage a ``with`` block failed, and where.

    The traceback of what is no refusal of ours is logged, for debugging.

    Args:
        name (str): One of :data:`STAGES`.
        model (nn.Module, optional): Whose layers run: the one in which an
            error came up is named. Defaults to None.

    Raises:
        TrialError: In place of any error.
    """
    running: List[str] = []
    try:
        with _watched(model, running):
            yield
    except UsageError as error:  # says what it is about
        raise TrialError(name, first_line(error)) from error
    except Exception as error:
        print_log(format_exc(), logger='current', level=logging.DEBUG)
        where = f'in {running[-1]}: ' if running and running[-1] else ''
        kind = type(error).__name__
        said = first_line(error)
        what = kind if said == kind else f'{kind}: {said}'
        raise TrialError(name, f'{where}{what}') from error


@contextmanager
def _watched(model: Optional[nn.Module], running: List[str]) -> Iterator[None]:
    """Keep the names of the layers that run, the innermost last."""
    if model is None:
        yield
        return
    names = {layer: name for name, layer in model.named_modules()}

    def enter(layer: nn.Module, inputs: Any) -> None:
        if layer in names:
            running.append(names[layer])

    def leave(layer: nn.Module, inputs: Any, output: Any) -> None:
        # What raised and was caught inside did not leave.
        if layer in names:
            while running and running.pop() != names[layer]:
                pass

    handles = [
        register_module_forward_pre_hook(enter),
        register_module_forward_hook(leave),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _first_iteration() -> Iterator[None]:
    """Say what a runner says to heads and augmentations that count."""
    info = MessageHub.get_current_instance().runtime_info
    lacking = {n: 0 for n in ('iter', 'epoch') if info.get(n) is None}
    info.update(lacking)
    try:
        yield
    finally:
        for name in lacking:
            info.pop(name, None)


@_first_iteration()
def try_training(model: nn.Module, batch: Any) -> None:
    """Get the loss of a batch, and its gradients.

    Args:
        model (nn.Module): Stock or adaptive. Its weights are kept; gradients
            are left on them.
        batch (dict): As the train loader gives it.

    Raises:
        TrialError: Of stage ``'data'``, ``'loss'`` or ``'backward'``.
    """
    model.train()
    with trial_stage('data'):
        data = model.data_preprocessor(batch, True)
    with trial_stage('loss', model):
        losses = model(**data, mode='loss')
        total, logged = model.parse_losses(losses)
        _check_finite('the loss', logged)
    with trial_stage('backward'):
        total.backward()
        gradients = {
            f'the gradient of {name}': p.grad
            for name, p in model.named_parameters()
            if p.grad is not None
        }
        if not gradients:
            raise UsageError('no parameter has a gradient')
        _check_finite('', gradients)


def try_subnet(
    model: MutualLearningMixin, subnet: Any, train_batch: Any, batch: Any
) -> None:
    """Calibrate a subnet and let it predict, as the evaluation loops do.

    Args:
        model (MutualLearningMixin): The adaptive model.
        subnet (Subnet): Such as ``model.space.smallest``.
        train_batch (dict): What to calibrate on.
        batch (dict): As the test loader gives it.

    Raises:
        TrialError: Of stage ``'calibrate'`` or ``'predict'``.
    """
    model.eval()
    with trial_stage('calibrate', model):
        bank = calibrate(model, [subnet], [train_batch])
    with trial_stage('predict', model), torch.no_grad():
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        model.task.check_channels(model, inputs)
        model.task.check_test(model, inputs, samples)
        resized = model.task.resize(model, inputs, samples, subnet)
        with model.activate(subnet, bank.get(str(subnet))):
            model(*resized, mode='predict')


def try_prediction(model: nn.Module, batch: Any) -> None:
    """Let a stock model predict.

    Raises:
        TrialError: Of stage ``'predict'``.
    """
    model.eval()
    with trial_stage('predict', model), torch.no_grad():
        model(**model.data_preprocessor(batch, False), mode='predict')


def _check_finite(what: str, values: Dict[str, Any]) -> None:
    for name, value in values.items():
        if not torch.as_tensor(value).isfinite().all():
            said = f'{what} {name}'.strip()
            raise UsageError(f'{said} is not finite')
