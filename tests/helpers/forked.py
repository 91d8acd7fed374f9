"""Two processes that are forked, which spares each the start of Python."""

import time

import torch.multiprocessing as mp


def run_forked(work, *arguments, seconds=240):
    """Call ``work(rank, *arguments)`` in two processes, and wait for both."""
    context = mp.start_processes(
        work, arguments, nprocs=2, join=False, start_method='fork'
    )
    end = time.monotonic() + seconds
    while not context.join(timeout=1):  # raises what a process raised
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f'a process takes more than {seconds} s')
