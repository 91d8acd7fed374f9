# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What launchers of several processes tell each of them."""

import os
from typing import NamedTuple, Optional

from ..errors import ConfigError


class _Launcher(NamedTuple):
    """Names of environment variables, and the command that sets them."""

    command: str
    told: str
    """What MMEngine reads first, so that it has to be there."""
    rank: str
    processes: str


_LAUNCHERS = dict(
    pytorch=_Launcher('torchrun', 'RANK', 'RANK', 'WORLD_SIZE'),
    slurm=_Launcher('srun', 'SLURM_PROCID', 'SLURM_PROCID', 'SLURM_NTASKS'),
    mpi=_Launcher(
        *('mpirun', 'OMPI_COMM_WORLD_LOCAL_RANK'),
        *('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
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
    if launcher == 'pytorch':  # as the stock tools: one process a machine
        os.environ.setdefault('LOCAL_RANK', '0')


def is_first(launcher: Optional[str]) -> bool:
    """Whether this is the first process of those that a launcher started."""
    known = _LAUNCHERS.get(launcher or 'none')
    return known is None or os.environ.get(known.rank, '0') == '0'


def count_processes(launcher: Optional[str]) -> int:
    """Count the processes that a launcher started, 1 without one."""
    known = _LAUNCHERS.get(launcher or 'none')
    return 1 if known is None else int(os.environ.get(known.processes, '1'))
