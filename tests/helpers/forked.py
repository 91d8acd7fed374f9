"""Processes that are forked, which spares each the start of Python."""

import time

import torch
import torch.multiprocessing as mp


def run_forked(work, *arguments, processes=2, seconds=240):
    """Call ``work(rank, *arguments)`` in each process, and wait for all."""
    context = mp.start_processes(
        _run,
        (work, *arguments),
        nprocs=processes,
        join=False,
        start_method='fork',
    )
    end = time.monotonic() + seconds
    while not context.join(timeout=1):  # raises what a process raised
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f'a process takes more than {seconds} s')


def _run(rank, work, *arguments):
    # The threads that the parent's operations ran on are not there.
    torch.set_num_threads(1)
    work(rank, *arguments)
