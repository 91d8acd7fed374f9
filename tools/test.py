#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Test a checkpoint at several subnets, with calibrated batch norms."""

import argparse

import torch
from mmengine.config import DictAction
from mmengine.runner import Runner

from mutualnet_mm.apis import load_config, one_line_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help="such as 1.0x-600 0.25x-240; default: test_cfg's",
    )
    parser.add_argument('--work-dir', help='where the log goes')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.add_argument(
        '--launcher',
        choices=['auto', 'none', 'pytorch', 'slurm', 'mpi'],
        default='auto',
        help='job launcher; the default finds out',
    )
    # torch.distributed.launch passes it, torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_flush_denormal(True)  # of a small network's tails on a CPU
    with one_line_errors():
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('test',),
        )
        cfg.load_from = args.checkpoint
        if args.subnet:
            cfg.test_cfg.type = 'mutualnet_mm.SubnetTestLoop'
            cfg.test_cfg.subnets = args.subnet
        Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    main()
