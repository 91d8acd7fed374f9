# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Each config in a process of its own, with a time limit."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from traceback import print_exc
from typing import Any, Dict, Iterator, Sequence, Tuple

import torch

from ..engine.trial import TrialError
from .made_data import NO_DATA

# Sizes are divided by the first of these at which the stock model runs:
# some networks are made for one size.
DIVISORS = dict(mmdet=(4, 1), mmpretrain=(1,), mmaction=(2, 1))


TOO_SLOW = 'takes more than'


@dataclass(frozen=True)
class Outcome:
    """What became of a config.

    Args:
        config (str): Its name.
        result (str): ``'works'``, ``'refused'``, also where the adaptive
            process is killed or crashes, ``'stock fails'``, ``'not tried'``
            where the survey has no data for it, or ``'too slow'``, stock or
            adaptive.
        stage (str): Where it ended, of
            :data:`~mutualnet_mm.engine.trial.STAGES`; empty if it works.
        reason (str): In one line; empty if it works.
        stock_ran (bool): Whether the stock model ran.
        divisor (int): What image sizes were divided by.
        seconds (float): That it took.
    """

    config: str
    result: str
    stage: str
    reason: str
    stock_ran: bool
    divisor: int
    seconds: float


def survey(
    project: str,
    folder: Path,
    names: Sequence[str],
    data: Path,
    logs: Path,
    timeout: float,
    jobs: int = 1,
) -> Iterator[Outcome]:
    """Try configs as they are and adaptive; yield what became of each.

    Args:
        project (str): Such as ``'mmdet'``.
        folder (Path): Of its configs.
        names (Sequence[str]): Of those to try.
        data (Path): Where generated data go.
        logs (Path): Where what each process prints goes.
        timeout (float): Seconds of a process.
        jobs (int): Processes at the same time. Defaults to 1.
    """
    with ThreadPoolExecutor(jobs) as pool:
        running = [
            pool.submit(_compare, project, folder, name, data, logs, timeout)
            for name in names
        ]
        try:
            for done in as_completed(running):
                yield done.result()
        finally:  # an interruption waits for those that run, no more
            for future in running:
                future.cancel()


def _compare(
    project: str,
    folder: Path,
    name: str,
    data: Path,
    logs: Path,
    timeout: float,
) -> Outcome:
    """Try the stock config, then the adaptive one at the same size."""
    start = time.monotonic()

    def attempt(adaptive: bool, divisor: int) -> Tuple[str, str]:
        stem = name.replace('/', '--')[: -len('.py')]
        log = logs / f'{stem}-{"adaptive" if adaptive else "stock"}.txt'
        arguments = dict(
            path=folder / name, adaptive=adaptive, divisor=divisor, data=data
        )
        return run_process(arguments, log, timeout)

    result, divisor, stage, reason = '', 1, '', ''
    for divisor in DIVISORS[project]:
        stage, reason = attempt(False, divisor)
        result = 'not tried' if NO_DATA in reason else 'stock fails'
        if not stage or stage == 'build' or result == 'not tried':
            break  # which has nothing to do with sizes
        if _too_slow(reason):
            break  # larger images take longer still
    stock_ran = not stage
    if stock_ran:
        stage, reason = attempt(True, divisor)
        while divisor > 1 and _may_be_of_size(stage, reason):
            divisor //= 2
            stage, reason = attempt(True, divisor)
        result = 'refused' if stage else 'works'
    if _too_slow(reason):
        result = 'too slow'
    seconds = round(time.monotonic() - start, 1)
    return Outcome(name, result, stage, reason, stock_ran, divisor, seconds)


def _may_be_of_size(stage: str, reason: str) -> bool:
    """Whether larger images may help: they have maps that had vanished."""
    if not stage or _too_slow(reason):
        return False
    return stage != 'build' or 'resolution' in reason


def _too_slow(reason: str) -> bool:
    return reason.startswith(TOO_SLOW)


def run_process(
    arguments: Dict[str, Any], log: Path, timeout: float
) -> Tuple[str, str]:
    """Run :func:`~.one_config.try_config` in a process of its own.

    Args:
        arguments (dict): Of the function.
        log (Path): Gets what the process prints.
        timeout (float): Seconds, after which it is killed.

    Returns:
        tuple[str]: Stage and reason of what failed; empty if nothing did.
    """
    # The server has imported what each process needs, and forks it.
    context = get_context('forkserver')
    context.set_forkserver_preload([f'{__package__}.imports'])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, log, arguments))
    process.start()
    there.close()
    stage, result = 'build', None
    until = time.monotonic() + timeout
    while result is None and here.poll(max(0.0, until - time.monotonic())):
        try:
            kind, said = here.recv()
        except EOFError:  # it ended without a word
            break
        if kind == 'stage':
            stage = said
        else:
            result = said
    if result is None and process.is_alive() and time.monotonic() >= until:
        process.kill()
        result = (stage, f'{TOO_SLOW} {timeout:g} s')
    process.join()
    if result is None:
        said = f'the process ended with code {process.exitcode}'
        if process.exitcode == -signal.SIGKILL:
            said += ', killed, as for want of memory'
        result = (stage, said)
    return result


def _child(pipe: Any, log: Path, arguments: Dict[str, Any]) -> None:
    with log.open('w') as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    from .one_config import try_config

    result = ('', '')
    try:
        try_config(**arguments, say=lambda stage: pipe.send(('stage', stage)))
    except TrialError as error:
        print_exc()  # to the log
        result = (error.stage, error.reason)
    pipe.send(('result', result))
