# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The energy that a device says it has used."""

from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Callable, List, Mapping, Optional, Union

import torch

from ..errors import UsageError

POWERCAP = Path('/sys/class/powercap')
"""Where Linux tells of processors (RAPL)."""

# The counter of a processor moves once in a millisecond, that of a GPU up to
# ten times in a second.
_SECONDS = 2.0


class EnergyMeter:
    """Energy used since it was made, from counters that start over.

    It covers all that the device does, idling and other programs included.

    Args:
        counters (Mapping): Functions that read a counter, in millijoules, by
            its name.
        ranges (Mapping, optional): Millijoules at which each counter starts
            over. It must be read more often than that. Defaults to None: they
            do not.
    """

    def __init__(
        self,
        counters: Mapping[str, Callable[[], float]],
        ranges: Optional[Mapping[str, float]] = None,
    ) -> None:
        self._counters = counters
        self._ranges = ranges or {}
        self._last = {name: read() for name, read in counters.items()}
        self._total = 0.0

    def millijoules(self) -> float:
        """Return what all counters together rose by since it was made."""
        for name, read in self._counters.items():
            now = read()
            used = now - self._last[name]
            if used < 0:
                if name not in self._ranges:
                    raise UsageError(
                        f'the energy counter of {name} was reset while it '
                        'was measured: measure again'
                    )
                used += self._ranges[name]
            self._last[name] = now
            self._total += used
        return self._total

    def of_a_run(
        self,
        run: Callable[[], Any],
        seconds: float = _SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> float:
        """Return the mean energy of a run in millijoules.

        Args:
            run (Callable): Returns when the device has finished.
            seconds (float): It runs again until they have passed. Defaults
                to 2.
            clock (Callable): In seconds. Defaults to that of the system.

        Raises:
            UsageError: If no counter moved.
        """
        before, start, runs = self.millijoules(), clock(), 0
        while runs == 0 or clock() - start < seconds:
            run()
            runs += 1
            used = self.millijoules() - before  # a counter may start over
        if not used > 0:
            raise UsageError(
                f'the energy counter of {" and ".join(self._counters)} stood '
                'still during the measurement, as on virtual machines: leave '
                '--energy out'
            )
        return used / runs


def energy_meter(device: Union[str, torch.device] = 'cpu') -> EnergyMeter:
    """Return a meter of the energy of a device.

    That of a processor is of all its packages, without memory, by RAPL; that
    of an NVIDIA GPU is of its whole board, without the host, by NVML.

    Args:
        device (str or torch.device): Defaults to ``'cpu'``.

    Raises:
        UsageError: If the device does not tell it, or not to this user.
    """
    device = torch.device(device)
    if device.type == 'cpu':
        return _of_processor(POWERCAP)
    if device.type == 'cuda':
        return _of_gpu(device)
    raise UsageError(
        f'the energy of {str(device)!r} cannot be measured, only that of '
        'processors on Linux and of NVIDIA GPUs: leave --energy out'
    )


def _of_processor(root: Path) -> EnergyMeter:
    # Neither parts of a package (intel-rapl:0:0), nor what counts it once
    # more (psys, intel-rapl-mmio:0). AMD's processors have the same names.
    folders: List[Path] = [
        folder
        for folder in sorted(root.glob('intel-rapl:*'))
        if (folder / 'name').is_file()
        and (folder / 'name').read_text().startswith('package')
    ]
    if not folders:
        raise UsageError(
            f'this processor does not tell its energy (no RAPL in {root}), '
            'as on virtual machines: leave --energy out'
        )
    counters = {
        folder.name: partial(_microjoules, folder / 'energy_uj')
        for folder in folders
    }
    ranges = {
        folder.name: _microjoules(folder / 'max_energy_range_uj')
        for folder in folders
    }
    return EnergyMeter(counters, ranges)


def _microjoules(path: Path) -> float:
    """Read a file of microjoules, in millijoules."""
    try:
        return int(path.read_text()) / 1000
    except PermissionError as error:
        raise UsageError(
            f'{str(path)!r} may not be read, which tells the energy of the '
            'processor: let the administrator allow it (chmod a+r), or leave '
            '--energy out'
        ) from error
    except (OSError, ValueError) as error:
        raise UsageError(
            f'{str(path)!r}, which tells the energy of the processor, cannot '
            f'be read ({error}): leave --energy out'
        ) from error


def _of_gpu(device: torch.device) -> EnergyMeter:
    try:
        import pynvml
    except ImportError as error:
        raise UsageError(
            'the energy of a GPU takes a package that is not installed: pip '
            'install nvidia-ml-py, or leave --energy out'
        ) from error
    # NVML counts all GPUs, PyTorch those that CUDA_VISIBLE_DEVICES leaves.
    found = getattr(torch.cuda.get_device_properties(device), 'uuid', None)
    if found is None:
        raise UsageError(
            f'PyTorch {torch.__version__} does not tell which GPU {device} '
            'is: update it, or leave --energy out'
        )
    uuid = str(found)
    name = uuid if uuid.startswith(('GPU-', 'MIG-')) else f'GPU-{uuid}'
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(name)
        read = pynvml.nvmlDeviceGetTotalEnergyConsumption  # of millijoules
        return EnergyMeter({str(device): lambda: float(read(handle))})
    except pynvml.NVMLError as error:
        raise UsageError(
            f'{device} does not tell its energy ({error}): leave --energy out'
        ) from error
