# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command line that our tools share."""

import argparse
import sys
from contextlib import contextmanager
from typing import Iterable, Iterator, Optional, TypeVar

from mmengine.config import DictAction
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from .errors import UsageError

Item = TypeVar('Item')


def config_parser(description: str) -> argparse.ArgumentParser:
    """Make a parser of the arguments of every tool that reads a config.

    Args:
        description (str): What the tool does; the first line is shown.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser


def runner_parser(description: str) -> argparse.ArgumentParser:
    """:func:`config_parser` with what training and testing take besides.

    Args:
        description (str): What the tool does; the first line is shown.
    """
    parser = config_parser(description)
    parser.add_argument('--work-dir', help='where results and logs go')
    parser.add_argument(
        '--launcher',
        choices=['auto', 'none', 'pytorch', 'slurm', 'mpi'],
        default='auto',
        help='job launcher; the default finds out',
    )
    # torch.distributed.launch passes it, torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', help=argparse.SUPPRESS)
    return parser


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool in one line where the user can put something right.

    Anything else is a defect and keeps its traceback.
    """
    try:
        yield
    except (UsageError, FileNotFoundError, ModuleNotFoundError) as error:
        # A process that loads data puts its traceback into the message.
        _, name, message = str(error).rpartition(f'{type(error).__name__}: ')
        is_traceback = name and 'Traceback (most recent call' in str(error)
        sys.exit(f'error: {message.strip() if is_traceback else error}')


def progress_bar() -> Progress:
    """Make a progress bar on standard error, if somebody watches there.

    Standard output is the result's.
    """
    return Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
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
