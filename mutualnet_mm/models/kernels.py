# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Settings that make kernels for one shape, where each step has others."""

import logging

import torch
from mmengine.logging import print_log
from torch import nn

from ..errors import ConfigError
from ..sampler import SubnetSampler


def check_compiled(model: nn.Module) -> None:
    """Refuse a training step that MMEngine has compiled (``cfg.compile``).

    Each step has other widths and sizes, and takes gradients in its middle:
    it would be compiled anew, piece by piece, until PyTorch gives up.

    Args:
        model (nn.Module): Of which the runner has replaced ``train_step``.

    Raises:
        ConfigError: Says what to leave out.
    """
    if 'train_step' in vars(model):
        raise ConfigError(
            'compile of the config would compile each training step anew, '
            'since its subnets have random widths: leave it out; what is '
            'deployed can be compiled'
        )


def warn_of_benchmark(sampler: SubnetSampler) -> None:
    """Say in one line that cuDNN searches for kernels again and again.

    Args:
        sampler (SubnetSampler): What subnets are trained.
    """
    if torch.backends.cudnn.benchmark and not sampler.trains_one:
        print_log(
            'cudnn_benchmark=True searches for the fastest kernels of each '
            'new shape, and each step has other widths and sizes: leave it '
            'out of env_cfg',
            logger='current',
            level=logging.WARNING,
        )
