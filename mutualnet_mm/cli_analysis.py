# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command line that the tools of :mod:`.analysis` share."""

import argparse

from .cli import add_device, config_parser


def trained_parser(
    description: str, example: str, note: str = ''
) -> argparse.ArgumentParser:
    """:func:`config_parser` with a checkpoint and subnets to look at.

    Args:
        description (str): As for :func:`tool_parser`.
        example (str): Subnets, for the help.
        note (str): What else it says of them. Defaults to nothing.
    """
    parser = config_parser(description)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help=f'such as {example}, default: the full and the smallest{note}',
    )
    add_device(parser)
    return parser


def maps_parser(
    description: str, example: str, files: str, unnamed: str = ''
) -> argparse.ArgumentParser:
    """:func:`trained_parser` with files whose maps are drawn.

    Args:
        description (str): As for :func:`tool_parser`.
        example (str): As for :func:`trained_parser`.
        files (str): What they are, for the help.
        unnamed (str): What else is mapped without a class. Defaults to
            nothing.
    """
    parser = trained_parser(description, example)
    parser.add_argument('file', nargs='+', help=files)
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--class',
        dest='label',
        metavar='NAME_OR_INDEX',
        help='class to map, by its name, or by its number from 0 where none '
        f'is named so; default: the one that each subnet predicts{unnamed}',
    )
    return parser
