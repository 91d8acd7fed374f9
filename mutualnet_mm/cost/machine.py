# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The machine that figures are measured on."""

import platform
from pathlib import Path

import torch


def machine_name(device: str = 'cpu') -> str:
    """Name a GPU, or the processor and the threads that PyTorch uses.

    Args:
        device (str): As PyTorch writes it. Defaults to ``'cpu'``.
    """
    if torch.device(device).type == 'cuda':
        return torch.cuda.get_device_name(device)
    info = Path('/proc/cpuinfo')  # where there is one, it knows the name
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [x.split(':')[1].strip() for x in lines if 'model name' in x]
    name = next(iter(names), platform.processor() or platform.machine())
    return f'{name} (threads: {torch.get_num_threads()})'
