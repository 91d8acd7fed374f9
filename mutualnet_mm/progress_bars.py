# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Progress bars, for those who watch."""

import sys
from contextlib import contextmanager
from typing import Iterable, Iterator, Optional, TypeVar

from mmengine.dist import is_main_process
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

Item = TypeVar('Item')


def progress_bar() -> Progress:
    """Make a progress bar on standard error, if somebody watches there.

    Standard output is the result's. Of several processes one shows it.
    """
    return Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=not (sys.stderr.isatty() and is_main_process()),
    )


def track(
    sequence: Iterable[Item], description: str, total: Optional[int] = None
) -> Iterator[Item]:
    """Go through a sequence and show how far it is.

    Args:
        sequence (Iterable): What to go through.
        description (str): Shown beside the bar.
        total (int, optional): Number of items. Defaults to the length.
    """
    with progress_bar() as bar:
        yield from bar.track(sequence, total, description=description)


@contextmanager
def working(description: str) -> Iterator[None]:
    """Show that something is going on, whose end is not known.

    Args:
        description (str): Shown beside the bar, while the block runs.
    """
    with progress_bar() as bar:
        bar.add_task(description, total=None)
        yield
