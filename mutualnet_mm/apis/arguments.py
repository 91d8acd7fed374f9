# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command line that our tools share."""

import argparse

from mmengine.config import DictAction


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
