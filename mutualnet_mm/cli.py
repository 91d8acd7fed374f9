# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command line that our tools share."""

import argparse
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from mmengine.config import DictAction

from .config.stock_errors import named_stock_errors
from .errors import UsageError


def tool_parser(description: str) -> argparse.ArgumentParser:
    """Make the parser of a tool, without arguments.

    Args:
        description (str): What the tool does, its docstring. ``--help`` shows
            the first line above the arguments and the paragraph that follows,
            if there is one, below them.
    """
    first, _, rest = description.partition('\n\n')
    below = ' '.join(rest.split('\n\n')[0].split())
    return argparse.ArgumentParser(
        description=first.strip(), epilog=below or None
    )


def config_parser(description: str) -> argparse.ArgumentParser:
    """:func:`tool_parser` with the arguments of every tool for a config.

    Args:
        description (str): As for :func:`tool_parser`.
    """
    parser = tool_parser(description)
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)
    return parser


def runner_parser(description: str) -> argparse.ArgumentParser:
    """:func:`config_parser` with what training and testing take besides.

    Args:
        description (str): As for :func:`tool_parser`.
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


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, a dict, or None where it is not given."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )


class _Options(DictAction):
    """The stock action, which ends in a traceback on what it cannot parse."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: Any = None,
    ) -> None:
        for value in values:
            try:
                super().__call__(parser, namespace, [value], option_string)
            except (ValueError, AssertionError) as error:
                raise argparse.ArgumentError(
                    self, f'{value!r}: write KEY=VALUE, brackets in pairs'
                ) from error


def add_space(parser: argparse.ArgumentParser) -> None:
    """Add ``--width``, ``--resolution``, ``--frames``: lists, or None."""
    for name, kind, example, default in (
        ('width', float, '0.25,1.0', "the paper's"),
        ('resolution', int, '800,640,480,320', "the pipeline's and parts"),
        ('frames', int, '8,5,3', "the pipeline's and parts; of videos"),
    ):
        parser.add_argument(
            f'--{name}',
            type=_list_of(kind, example),
            metavar=example,
            help=f'default: {default}',
        )


def _list_of(kind: type, example: str) -> Callable[[str], list]:
    def parse(text: str) -> list:
        try:
            return [kind(item) for item in text.split(',')]
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f'{text!r}: write numbers with commas, as in {example}'
            ) from error

    return parse


def add_image_shape(parser: argparse.ArgumentParser, video: str) -> None:
    """Add ``--image-shape``, two numbers, or None where it is not given.

    Args:
        parser (ArgumentParser): Parser of a tool for a config.
        video (str): What it stands for if the config is one for videos, and
            the default there.
    """
    parser.add_argument(
        '--image-shape',
        nargs=2,
        type=_pixels,
        metavar=('H', 'W'),
        help='original image of a detector, which keeps the aspect ratio, '
        f'default: 480 640; {video}',
    )


def _pixels(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: use pixels, from 1')
    return int(text)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool in one line where the user can put something right.

    Anything else is a defect and keeps its traceback.
    """
    try:
        with named_stock_errors():
            yield
    except (UsageError, FileNotFoundError, ModuleNotFoundError) as error:
        # A process that loads data puts its traceback into the message.
        _, name, message = str(error).rpartition(f'{type(error).__name__}: ')
        is_traceback = name and 'Traceback (most recent call' in str(error)
        sys.exit(f'error: {message.strip() if is_traceback else error}')
