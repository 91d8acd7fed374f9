#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Test a checkpoint at several subnets, with calibrated batch norms."""

from pathlib import Path

import torch
from mmengine.runner import Runner

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import config_parser, load_config, one_line_errors


def main() -> None:
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--subnet',
        nargs='+',
        metavar='SUBNET',
        help="such as 1.0x-600 0.25x-240; default: test_cfg's",
    )
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # of a small network's tails on a CPU
    with one_line_errors():
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('test',),
        )
        if (
            '://' not in args.checkpoint
            and not Path(args.checkpoint).is_file()
        ):
            raise ConfigError(f'checkpoint {args.checkpoint!r} does not exist')
        cfg.load_from = args.checkpoint
        if args.subnet:
            cfg.test_cfg.type = 'mutualnet_mm.SubnetTestLoop'
            cfg.test_cfg.subnets = [str(Subnet.parse(s)) for s in args.subnet]
        Runner.from_cfg(cfg).test()


if __name__ == '__main__':
    main()
