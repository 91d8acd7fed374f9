# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A training step on several processes, and what they reduce."""

import copy
import os
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Callable, Dict, List, Sequence

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel

from ..cost import MacsByWidth
from ..errors import UsageError, check_count
from ..sampler import GivenSubnets
from .subjects import (
    build_subject,
    narrow_networks,
    open_config,
    optimizer,
    training_batch,
)
from .turns import Ratio, Times, ratio, report

_SECONDS = 500
# DDP joins gradients into buckets anew after the first step.
_WARM_UP = 2


def benchmark_scale(
    network: str = 'mobilenet-v1',
    batch_size: int = 4,
    rounds: int = 3,
    processes: Sequence[int] = (1, 2, 4),
    steps: int = 3,
) -> Dict[str, Any]:
    """Compare steps on several processes with what a formula says.

    The processes talk by gloo, each with one thread, and the networks are in
    the stock ``MMDistributedDataParallel``: one of all subnets, and the full
    network alone. A step is predicted as the sum of what it is without
    reductions (``no_sync``) and of bare reductions of the same buckets. All
    three are timed in turn, in the same processes, since other work on a
    machine makes processes wait.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        batch_size (int): Images of each process. Defaults to 4.
        rounds (int): How often processes of each number are started, in turn.
            Medians of their steps count, of the slowest process. Defaults to
            3.
        processes (Sequence[int]): Their numbers, 1 first. Defaults to
            (1, 2, 4).
        steps (int): Timed steps of each start. Defaults to 3.

    Returns:
        dict: See :func:`~.turns.report`; times are elapsed ones, but for those
        of ``processor``, which a process used for a step. Of ``settings``,
        ``bytes`` and ``reductions`` are what one process hands over in a
        step.

    Raises:
        UsageError: If the numbers do not begin with 1, if there is nothing
            that processes reduce by, or if one fails.
    """
    if list(processes)[:1] != [1] or len(set(processes)) < 2:
        raise UsageError(
            f'processes {list(processes)}: give 1 first, then others'
        )
    for number in processes:
        check_count(number, 'processes')
    check_count(steps, 'steps')
    if not dist.is_available() or not hasattr(os, 'fork'):
        raise UsageError('this system has no processes that talk by gloo')
    model = build_subject(open_config(network))
    plan = model.sampler.sample(0)
    model.sampler = GivenSubnets(model.sampler, plan)
    batch = training_batch(model, batch_size)
    full = {'full': plan['full']}
    nets = dict(mutual=model, full=narrow_networks(model, full, batch)['full'])
    nets['full'].train()
    buckets = {
        name: _forked(2, _count, net, batch)[0]['buckets']
        for name, net in nets.items()
    }
    times: Times = {}
    for _ in range(rounds):
        for number in processes:
            for name, net in nets.items():
                found = _forked(
                    number, _time, net, batch, buckets[name], steps
                )
                for what in found[0]:
                    times.setdefault(f'{what}, {name}, {number}', []).append(
                        # The slowest one is what the others wait for.
                        max(rank[what] for rank in found)
                    )
    cores = len(os.sched_getaffinity(0))
    count = MacsByWidth(model)
    macs = {tag: count(subnet) for tag, subnet in plan.items()}
    told = report(
        'scale',
        times,
        _ratios(times, processes, buckets),
        network=network,
        batch_size=batch_size,
        steps=steps,
        plan={tag: str(subnet) for tag, subnet in plan.items()},
        arithmetic=sum(macs.values()) / macs['full'],
        cores=cores,
        bytes={name: 4 * sum(sizes) for name, sizes in buckets.items()},
        reductions={name: len(sizes) for name, sizes in buckets.items()},
    )
    return dict(told, clock='elapsed')


def _ratios(
    times: Times,
    processes: Sequence[int],
    buckets: Dict[str, List[int]],
) -> List[Ratio]:
    sums = {name: [sum(sizes)] for name, sizes in buckets.items()}
    found = [ratio('bytes, mutual / full', sums['mutual'], sums['full'], 1.0)]
    for name in buckets:
        for number in processes[1:]:
            parts = [
                times[f'{what}, {name}, {number}']
                for what in ('alone', 'reduction')
            ]
            predicted = [sum(pair) for pair in zip(*parts)]
            found.append(
                ratio(
                    f'{name} step of {number} / predicted',
                    times[f'step, {name}, {number}'],
                    predicted,
                )
            )
    return found


Found = Dict[str, Any]


def _count(net: Any, batch: Any) -> Found:
    """Sizes of what one step reduces, in numbers of single precision."""
    wrapper = _wrap(net)
    sizes: List[int] = []

    def hook(
        state: Any, bucket: dist.GradBucket
    ) -> torch.futures.Future[torch.Tensor]:
        del state
        sizes.append(bucket.buffer().numel())
        # Waited for here: the end of a process group must not find a
        # callback of Python that waits for the interpreter.
        dist.all_reduce(bucket.buffer())
        future: Any = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    wrapper.register_comm_hook(None, hook)
    step = _step_of(wrapper, batch)
    for _ in range(_WARM_UP):
        sizes.clear()
        step()
    return dict(buckets=sizes)


def _time(net: Any, batch: Any, buckets: Sequence[int], steps: int) -> Found:
    wrapper = _wrap(net)
    sent = [torch.zeros(size) for size in buckets]

    def reduce() -> None:
        for tensor in sent:
            dist.all_reduce(tensor)

    step = _step_of(wrapper, batch)

    def alone() -> None:
        with wrapper.no_sync():
            step()

    calls = dict(step=step, alone=alone, reduction=reduce)
    found: Dict[str, List[float]] = {name: [] for name in calls}
    found['processor'] = []
    for i in range(_WARM_UP + steps):
        for name, call in calls.items():
            dist.barrier()
            start, before = time.perf_counter(), time.process_time()
            call()
            if i >= _WARM_UP:
                found[name].append(time.perf_counter() - start)
                if name == 'step':
                    found['processor'].append(time.process_time() - before)
    return {name: median(values) for name, values in found.items()}


def _wrap(net: Any) -> MMDistributedDataParallel:
    with warnings.catch_warnings():
        # As MMEngine's runner does; PyTorch calls it otherwise by now.
        warnings.simplefilter('ignore', FutureWarning)
        return MMDistributedDataParallel(net, broadcast_buffers=False)


def _step_of(wrapper: Any, batch: Any) -> Callable[[], Any]:
    optim = optimizer(wrapper)
    return lambda: wrapper.train_step(copy.deepcopy(batch), optim)


def _forked(number: int, work: Callable, *arguments: Any) -> List[Found]:
    """What ``work(*arguments)`` returns in each process of a group."""
    with TemporaryDirectory() as folder:
        context: Any = mp.start_processes(
            _run,
            (number, folder, work, arguments),
            nprocs=number,
            join=False,
            start_method='fork',
        )
        end = time.monotonic() + _SECONDS
        try:
            while not context.join(timeout=1):
                if time.monotonic() > end:
                    raise UsageError(
                        f'processes that train take more than {_SECONDS} s'
                    )
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
        return [
            torch.load(Path(folder, f'{rank}.pth'), weights_only=True)
            for rank in range(number)
        ]


def _run(
    rank: int, number: int, folder: str, work: Callable, arguments: Any
) -> None:
    torch.set_num_threads(1)  # the threads of before are not there
    dist.init_process_group(
        'gloo',
        init_method=f'file://{folder}/rendezvous',
        rank=rank,
        world_size=number,
    )
    torch.save(work(*arguments), f'{folder}/{rank}.pth')
    dist.barrier()
    os._exit(0)  # nothing that the parent made is freed here
