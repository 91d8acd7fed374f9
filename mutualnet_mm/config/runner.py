# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The runner of a config, and what it needs to train."""

from contextlib import contextmanager
from typing import Iterator, Sequence

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..datasets.named_files import naming_loaders
from ..errors import ConfigError
from ..files import make_folder, only_user
from ..subnet import names_subnet
from .init_cfg import init_configs
from .launchers import is_first
from .pipelines import STAGES, Step
from .processes import (
    check_same_length,
    check_wrapper,
    leave_group_at_exit,
    processes_without_gpu,
)
from .stock_errors import named_stock_errors

_TRAINING = ('train_dataloader', 'train_cfg', 'optim_wrapper')
# Of these the runner takes all or none.
_TOGETHER = (
    _TRAINING,
    *((f'{s}_dataloader', f'{s}_cfg', f'{s}_evaluator') for s in STAGES[1:]),
)


def make_runner(cfg: Config) -> Runner:
    """Build the runner of a config, and its work dir.

    Args:
        cfg (Config): As :func:`~.load.load_config` returns it.

    Raises:
        ConfigError: If the work dir cannot be made, or if some settings of a
            loop are there and others are not, or if a type or an argument
            does not exist, or if the model would be spread over
            devices in a way that it cannot run.

    Returns:
        Runner: Its data sets name a file that cannot be read.
    """
    for names in _TOGETHER:
        found = [name for name in names if cfg.get(name) is not None]
        lacking = [name for name in names if name not in found]
        if found and lacking:
            raise ConfigError(
                f'the config has {found[0]}, but no {lacking[0]}: set all of '
                f'{", ".join(names)}, or none'
            )
    check_wrapper(cfg)
    make_folder(cfg.work_dir)
    with named_stock_errors(), processes_without_gpu(cfg):
        if 'runner_type' in cfg:
            runner = RUNNERS.build(cfg)
        else:
            runner = Runner.from_cfg(cfg)
    leave_group_at_exit()
    # Not by a hook: loops over iterations start their workers when built.
    if hasattr(runner, 'build_dataloader'):  # not of every runner_type
        runner.build_dataloader = naming_loaders(runner.build_dataloader)
    return runner


@contextmanager
def only_training(cfg: Config) -> Iterator[None]:
    """Keep other trainings out of the work dir in a ``with`` block.

    Args:
        cfg (Config): As :func:`~.load.load_config` returns it. Of several
            processes that a launcher started, the first one counts.

    Raises:
        UsageError: If another one is trained there.
        ConfigError: If the work dir cannot be made.
    """
    if not is_first(cfg.get('launcher')):
        yield
        return
    with only_user(make_folder(cfg.work_dir)):
        yield


OLD_STATISTICS = (
    'MeanTeacherHook leaves the batch-norm statistics of the teacher as they '
    'were at the start: set skip_buffer=False'
)


def check_training(cfg: Config, needed: Sequence[str] = _TRAINING) -> None:
    """Refuse a config that cannot be trained on this machine.

    Args:
        cfg (Config): As :func:`~.load.load_config` returns it.
        needed (Sequence[str]): Settings that have to be there. Defaults to
            all that the runner takes.

    Raises:
        ConfigError: If a setting of the training is missing, if processes
            would get different numbers of batches, if a hook waits
            for a metric of a subnet that is not validated, if a teacher would
            keep its first batch-norm statistics, if channels are sorted that
            a checkpoint takes the place of, if its steps would be compiled,
            or if mixed precision is wanted without a GPU.
    """
    for name in needed:
        if cfg.get(name) is None:
            raise ConfigError(f'the config has no {name}: nothing to train')
    check_same_length(cfg)
    _check_watched(cfg)
    _check_teacher(cfg)
    _check_sorted(cfg)
    _check_compiled(cfg)
    device, wrapper = get_device(), Step('', cfg.optim_wrapper).kind
    if wrapper == 'AmpOptimWrapper' and device in ('cpu', 'mps'):
        raise ConfigError(
            f'{wrapper}, mixed precision, needs a GPU, but the device is '
            f'{device!r}: leave out --amp, or set optim_wrapper.type='
            'OptimWrapper'
        )


def _check_compiled(cfg: Config) -> None:
    """Refuse to compile or trace our step; also in a parallel wrapper."""
    if Step('', cfg.get('model') or {}).kind != 'MutualLearning':
        return
    if cfg.get('efficient_conv_bn_eval'):
        raise ConfigError(
            f'efficient_conv_bn_eval={cfg.efficient_conv_bn_eval!r} traces '
            'layers at one width, and those of subnets change: leave it out'
        )
    if cfg.get('compile'):
        raise ConfigError(
            f'compile={cfg.compile!r} would compile each training step anew, '
            'since its subnets have random widths: leave it out; what is '
            'deployed can be compiled'
        )


def _check_teacher(cfg: Config) -> None:
    """Refuse a teacher whose batch norms do not follow the student's.

    By default its hook averages weights alone: stock ones are frozen.
    """
    student = cfg.model.get('detector') if cfg.get('model') else None
    if Step('', student or {}).kind != 'MutualLearning':
        return
    for hook in cfg.get('custom_hooks') or ():
        if Step('', hook).kind == 'MeanTeacherHook' and (
            hook.get('skip_buffer', True)
        ):
            raise ConfigError(OLD_STATISTICS)


def _check_sorted(cfg: Config) -> None:
    """Refuse ``sort`` of an ``init_cfg`` that has no effect."""
    model = cfg.get('model') or {}
    if cfg.get('load_from') is None or cfg.get('resume'):
        return
    for place, part in (
        ('model', model),
        ('model.backbone', model.get('backbone')),
    ):
        given = part.get('init_cfg') if isinstance(part, dict) else None
        for config in init_configs(given):
            if config.get('sort') is not None:
                raise ConfigError(
                    f'{place}.init_cfg has sort={config["sort"]!r}, but '
                    f'load_from={cfg.load_from!r} takes the place of all '
                    'weights: sort that checkpoint by mutualnet sort, '
                    'or leave out one of the two'
                )


def _check_watched(cfg: Config) -> None:
    """Refuse hooks that watch a subnet's metric of the stock validation.

    Our loop checks the names itself when it is built.
    """
    loop = cfg.get('val_cfg')
    if loop is None or Step('', loop).kind not in ('', 'ValLoop'):
        return
    hooks = dict(cfg.get('default_hooks') or {})
    hooks.update(enumerate(cfg.get('custom_hooks') or ()))
    for hook in hooks.values():
        for setting in ('save_best', 'monitor'):
            watched = hook.get(setting) if isinstance(hook, dict) else None
            if isinstance(watched, str):
                watched = [watched]
            for metric in watched or ():
                if names_subnet(metric):
                    raise ConfigError(
                        f'{setting}={metric!r} is a metric of a subnet, but '
                        'val_cfg validates the full network alone: set '
                        "val_cfg=dict(type='mutualnet_mm.SubnetValLoop', "
                        f'subnets=[...]) with {metric.partition("/")[0]}'
                    )
