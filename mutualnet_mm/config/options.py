# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What options of the stock tools change in a config.

Each option does what it does in the tools of the project that has it, for
configs of all three.
"""

from itertools import chain
from typing import Optional, Sequence

from mmengine.config import Config
from mmengine.device import is_cuda_available

from ..errors import ConfigError
from .pipelines import STAGES, Step, loaders_of


def resume_training(cfg: Config, checkpoint: str) -> None:
    """Go on with an interrupted training: ``--resume [CHECKPOINT]``.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str): ``'auto'`` for the last one of the work dir.
    """
    cfg.resume = True
    cfg.load_from = None if checkpoint == 'auto' else checkpoint


def use_mixed_precision(cfg: Config) -> None:
    """Train in mixed precision: ``--amp``.

    Args:
        cfg (Config): Changed in place, if it has an ``optim_wrapper``.

    Raises:
        ConfigError: If the optimizer wrapper is one that would be replaced.
    """
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        return
    kind = Step('', wrapper).kind
    if kind not in ('', 'OptimWrapper', 'AmpOptimWrapper'):
        raise ConfigError(
            f'--amp would replace optim_wrapper.type={kind!r}: leave it out, '
            'or set a wrapper of mixed precision in the config'
        )
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def scale_learning_rate(cfg: Config) -> None:
    """Scale the learning rate with the batch size: ``--auto-scale-lr``.

    Args:
        cfg (Config): Changed in place.

    Raises:
        ConfigError: If it does not say of which batch size its rate is.
    """
    settings = cfg.get('auto_scale_lr')
    if not settings or not settings.get('base_batch_size'):
        raise ConfigError(
            '--auto-scale-lr needs the batch size that the learning rate of '
            'the config is for: set auto_scale_lr=dict(base_batch_size=...)'
        )
    settings.enable = True


def skip_validation(cfg: Config) -> None:
    """Train without validation: ``--no-validate``.

    Args:
        cfg (Config): Changed in place.
    """
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None


def set_randomness(
    cfg: Config,
    seed: Optional[int] = None,
    diff_rank_seed: bool = False,
    deterministic: bool = False,
) -> None:
    """``--seed``, ``--diff-rank-seed`` and ``--deterministic``.

    What is given takes the place of the config's own ``randomness``; the
    subnets that a step draws depend on ``mutual.seed`` alone.

    Args:
        cfg (Config): Changed in place.
        seed (int, optional): Seed of weights and data.
        diff_rank_seed (bool): Another seed for each process.
        deterministic (bool): Only algorithms that repeat their results.
    """
    given = dict(
        seed=seed,
        diff_rank_seed=diff_rank_seed or None,
        deterministic=deterministic or None,
    )
    given = {name: v for name, v in given.items() if v is not None}
    if given:
        cfg.randomness = dict(cfg.get('randomness') or {}, **given)


def set_loaders(
    cfg: Config,
    stages: Sequence[str] = STAGES,
    pin_memory: bool = True,
    persistent_workers: bool = True,
) -> None:
    """``--no-pin-memory`` and ``--no-persistent-workers``.

    mmpretrain's configs leave both to its tools, which turn them on and
    collate images into one tensor: where they say nothing, so does this.

    Args:
        cfg (Config): Changed in place.
        stages (Sequence[str]): Whose data loaders are set. Defaults to all.
        pin_memory (bool): False turns it off, on each.
        persistent_workers (bool): False turns it off, on each.
    """
    found = (loaders_of(cfg, stage) for stage in stages)
    for _, loader in chain.from_iterable(found):
        if cfg.get('default_scope') == 'mmpretrain':
            loader.setdefault('pin_memory', is_cuda_available())
            loader.setdefault('collate_fn', dict(type='default_collate'))
            if loader.get('num_workers'):  # else there are none to keep
                loader.setdefault('persistent_workers', True)
        if not pin_memory:
            loader['pin_memory'] = False
        if not persistent_workers:
            loader['persistent_workers'] = False
