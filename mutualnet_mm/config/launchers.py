# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What launchers of several processes tell each of them."""

import os
from typing import NamedTuple, Optional

import torch

from ..errors import ConfigError
from ..shards import Shard


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
            'processes as GPUs, and let each see all of them (srun --gres, '
            'not --gpus-per-task)'
        )


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

    Args:
        launcher (str, optional): As for :func:`launched_shard`, which refuses
            more processes on a machine than it has GPUs.
    """
    known = _LAUNCHERS.get(launcher or 'none')
    if known is not None and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get(known.local_rank, '0')))


def count_processes(launcher: Optional[str]) -> int:
    """Count the processes that a launcher started, 1 without one."""
    known = _LAUNCHERS.get(launcher or 'none')
    return 1 if known is None else int(os.environ.get(known.processes, '1'))
