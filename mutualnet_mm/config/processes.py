# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What several processes of one training need, and cannot do."""

import atexit
import gc
from contextlib import contextmanager
from typing import Any, Iterator

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.registry import MODEL_WRAPPERS
from torch.nn.parallel import DistributedDataParallel

from ..errors import ConfigError, first_line
from .launchers import count_processes, is_first
from .pipelines import Step, loaders_of

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


def leave_group_at_exit() -> None:
    """Let this process leave those that it talks to by gloo, when it ends.

    MMEngine leaves that to the interpreter. PyTorch 2.13 then aborts now and
    then: a training that is done ends with an error.
    """
    atexit.register(_leave_group)


def _leave_group() -> None:
    is_in = dist.is_available() and dist.is_initialized()
    if is_in and dist.get_backend() == 'gloo':  # that of GPUs does not abort
        dist.destroy_process_group()
        gc.collect()  # the model holds it, too, and is in a cycle


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

    Raises:
        ConfigError: If its batch norms are synchronised, which PyTorch does
            between GPUs alone.
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
    except ValueError as error:
        if 'SyncBatchNorm' not in str(error):
            raise
        raise ConfigError(
            f'several processes on a CPU, but {first_line(error)}: set '
            "sync_bn=None and norm_cfg=dict(type='BN'), or start one process"
        ) from error
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
