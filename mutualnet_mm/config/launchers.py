# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What launchers of several processes tell each of them."""

import os
from contextlib import contextmanager
from typing import Any, Iterator, NamedTuple, Optional

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import MODEL_WRAPPERS
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError
from ..shards import Shard
from .pipelines import Step, loaders_of


class _Launcher(NamedTuple):
    """Names of environment variables, and the command that sets them."""

    command: str
    told: str
    """What MMEngine reads first, so that it has to be there."""
    rank: str
    local_rank: str
    """Number of the process among those of its machine."""
    processes: str


_LAUNCHERS = dict(
    pytorch=_Launcher('torchrun', 'RANK', 'RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
    slurm=_Launcher(
        *('srun', 'SLURM_PROCID'),
        *('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
    ),
    mpi=_Launcher(
        *('mpirun', 'OMPI_COMM_WORLD_LOCAL_RANK'),
        *('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'),
        'OMPI_COMM_WORLD_SIZE',
    ),
)


def check_launched(launcher: str) -> None:
    """Refuse a launcher that did not start this process.

    Args:
        launcher (str): ``'none'``, or one of MMEngine's.

    Raises:
        ConfigError: Names the variable that is missing.
    """
    known = _LAUNCHERS.get(launcher)
    if known is not None and known.told not in os.environ:
        raise ConfigError(
            f'launcher {launcher!r}, but there is no {known.told} in the '
            f'environment: start the tool by {known.command}, or use '
            '--launcher none'
        )
    if known is not None:
        # Torchrun's name is the one that MMEngine's runner reads, whatever
        # started it. Without any, as the stock tools: one process a machine.
        local_rank = os.environ.get(known.local_rank, '0')
        os.environ.setdefault('LOCAL_RANK', local_rank)
        _check_gpu(int(os.environ['LOCAL_RANK']))


def _check_gpu(local_rank: int) -> None:
    """Refuse more processes than this machine has GPUs, if it has some."""
    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if 0 < number <= local_rank:
        raise ConfigError(
            f'process {local_rank} of this machine has no GPU of its own: '
            f'{number} can be seen (CUDA_VISIBLE_DEVICES='
            f'{os.environ.get("CUDA_VISIBLE_DEVICES")}): start as many '
            'processes as GPUs'
        )


@contextmanager
def processes_without_gpu(cfg: Config) -> Iterator[None]:
    """Let MMEngine start several processes where there is no GPU.

    MMEngine 0.10.7 sets the CUDA device of each process and hands it to
    ``DistributedDataParallel``, and talks by NCCL, all of which fail on a
    CPU. In the ``with`` block, where the runner is built, it talks by gloo
    and no device is set. With a GPU, or a single process, nothing changes.

    Args:
        cfg (Config): As :func:`~.load.load_config` returns it; its
            ``env_cfg`` and ``model_wrapper_cfg`` may change.
    """
    if (cfg.get('launcher') or 'none') == 'none' or get_device() != 'cpu':
        yield
        return
    env_cfg = dict(cfg.get('env_cfg') or {})
    cfg.env_cfg = dict(
        env_cfg, dist_cfg=dict(env_cfg.get('dist_cfg') or {}, backend='gloo')
    )
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    kind = wrapper.get('type') or 'MMDistributedDataParallel'
    found = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if found is not None and issubclass(found, DistributedDataParallel):
        cfg.model_wrapper_cfg = dict(wrapper, type=kind, device_ids=None)
    stock = torch.cuda.set_device
    torch.cuda.set_device = _set_no_device
    try:
        yield
    finally:
        torch.cuda.set_device = stock
    if is_first(cfg.launcher):
        print_log(
            f'No GPU can be seen: {count_processes(cfg.launcher)} processes '
            'run on the CPU, and talk by gloo',
            logger='current',
        )


def _set_no_device(device: Any) -> None:
    del device


def is_first(launcher: Optional[str]) -> bool:
    """Whether this is the first process of those that a launcher started."""
    known = _LAUNCHERS.get(launcher or 'none')
    return known is None or os.environ.get(known.rank, '0') == '0'


def launched_shard(launcher: Optional[str]) -> Optional[Shard]:
    """Which part of how many this process is, by its rank.

    Processes that share work by it need not talk to each other.

    Args:
        launcher (str, optional): ``'none'``, or one of MMEngine's.

    Returns:
        Shard: None if there is one process.

    Raises:
        ConfigError: If there are several, and none has a rank.
    """
    number = count_processes(launcher)
    if number == 1:
        return None
    check_launched(launcher or 'none')
    rank = int(os.environ[_LAUNCHERS[launcher or 'none'].rank])
    return Shard(rank + 1, number)


def use_local_gpu(launcher: Optional[str]) -> None:
    """Make the GPU of this process the current one, where there are some.

    The processes of a machine take its GPUs in turn, as MMEngine has it.

    Args:
        launcher (str, optional): As for :func:`launched_shard`.
    """
    known, number = _LAUNCHERS.get(launcher or 'none'), 0
    if torch.cuda.is_available():
        number = torch.cuda.device_count()
    if known is not None and number:
        torch.cuda.set_device(int(os.environ.get(known.local_rank, '0')) % number)


def count_processes(launcher: Optional[str]) -> int:
    """Count the processes that a launcher started, 1 without one."""
    known = _LAUNCHERS.get(launcher or 'none')
    return 1 if known is None else int(os.environ.get(known.processes, '1'))


# Wrappers, and strategies of MMEngine's FlexibleRunner, that run parts of
# the model by themselves, or keep a part of the weights on each process.
_ONLY_WHOLE = (
    'ColossalAIStrategy',
    'CollosalAIModelWrapper',
    'DataParallel',
    'DeepSpeedStrategy',
    'FSDPStrategy',
    'FullyShardedDataParallel',
    'MMDeepSpeedEngineWrapper',
    'MMFullyShardedDataParallel',
    'MMSeparateDistributedDataParallel',
)


def check_wrapper(cfg: Config) -> None:
    """Refuse what spreads a model over devices in a way that it cannot run.

    The losses of a step and the subnets of an evaluation run the whole model,
    several times, inside of the wrapper.

    Args:
        cfg (Config): With a model. A stock one may be spread in any way.

    Raises:
        ConfigError: Names the wrapper or the strategy.
    """
    if not _learns_mutually(cfg.get('model')):
        return
    for place in ('model_wrapper_cfg', 'strategy'):
        kind = Step('', cfg.get(place) or {}).kind
        if kind in _ONLY_WHOLE:
            raise ConfigError(
                f'{place}.type={kind!r} does not run subnets: they run on '
                'all weights of the whole model, several times in a step. '
                f'Leave {place} out for MMDistributedDataParallel'
            )
    runner = str(cfg.get('runner_type') or 'Runner').rpartition('.')[2]
    if runner == 'FlexibleRunner':
        raise ConfigError(
            f'runner_type={runner!r} builds the model after its loops, which '
            "ask it for its subnets: leave runner_type out for MMEngine's "
            'Runner'
        )


def _learns_mutually(model: Any) -> bool:
    if not isinstance(model, dict):
        return False
    return Step('', model).kind == 'MutualLearning' or _learns_mutually(
        model.get('detector')
    )


def check_same_length(cfg: Config) -> None:
    """Refuse samplers that give some processes more images than others.

    Each step meets all processes: one with a batch more would wait for the
    others, or take what they say in their validation for gradients.

    Args:
        cfg (Config): With data loaders or not.

    Raises:
        ConfigError: Names the setting.
    """
    number = count_processes(cfg.get('launcher'))
    for place, loader in loaders_of(cfg, 'train'):
        sampler = loader.get('sampler')
        rounds_up = not isinstance(sampler, dict) or sampler.get(
            'round_up', True
        )
        if number > 1 and not rounds_up:
            raise ConfigError(
                f'{place}.sampler.round_up=False gives {number} processes '
                'different numbers of batches, and each step waits for all '
                'of them: leave it out'
            )
