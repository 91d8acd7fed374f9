# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Work in a process of its own, and the memory that it takes."""

import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import torch

from ..devices import release_freed
from ..errors import UsageError
from .turns import Call

_SECONDS = 600
_MEMORY = Path('/proc/self/statm')
Work = Callable[[], Call]
Works = Dict[str, Work]


def in_child(work: Work) -> Dict[str, float]:
    """Run something in a process that is forked, which begins as this one is.

    Args:
        work (Callable): Prepares, and returns the call that is measured.

    Returns:
        dict: ``seconds`` of the processor, and ``mebibytes``, by how much
        the largest resident memory during the call, looked at every
        millisecond, exceeds that of the beginning of the process.

    Raises:
        UsageError: If this is no Linux, or if the process fails.
    """
    if not _MEMORY.exists():
        raise UsageError('memory of a process is measured on Linux alone')
    context: Any = multiprocessing.get_context('fork')
    here, there = context.Pipe()
    child = context.Process(target=_run, args=(work, there))
    child.start()
    there.close()  # so that the end of a child that fails is seen here
    if not here.poll(_SECONDS):
        child.kill()
        raise UsageError(f'a measured process takes more than {_SECONDS} s')
    try:
        seconds, mebibytes = here.recv()
    except EOFError as error:
        raise UsageError('a measured process failed, see above') from error
    finally:
        child.join()
    return dict(seconds=seconds, mebibytes=mebibytes)


def _run(work: Work, answer: Any) -> None:
    torch.set_num_threads(1)  # the threads of before are not there
    release_freed()  # what this process would take first
    before = _mebibytes()
    call = work()
    time.sleep(0.2)  # until the kernel has counted what was freed
    # Its own peak would count the preparation, too.
    found, over = [_mebibytes()], threading.Event()

    def watch() -> None:
        while not over.wait(0.001):
            found.append(_mebibytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.thread_time()
    kept = call()
    seconds = time.thread_time() - start
    found.append(_mebibytes())
    over.set()
    watcher.join()
    answer.send((seconds, max(found) - before))
    answer.close()
    del kept
    os._exit(0)


def _mebibytes() -> float:
    # That of /proc/self/status lags behind what is freed.
    pages = int(_MEMORY.read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def both(works: Works, rounds: int) -> Tuple[Dict[str, list], Dict[str, list]]:
    """Measure works in turn: seconds and mebibytes of each, by round."""
    seconds: Dict[str, list] = {name: [] for name in works}
    mebibytes: Dict[str, list] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            found = in_child(work)
            seconds[name].append(found['seconds'])
            mebibytes[name].append(found['mebibytes'])
    return seconds, mebibytes
