#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Test a checkpoint at several subnets, with calibrated batch norms."""

import torch
from mmengine.model import is_model_wrapper

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors, runner_parser
from mutualnet_mm.config import make_runner
from mutualnet_mm.models.checkpoints import check_checkpoint, check_exists


def main() -> None:
    parser = runner_parser(__doc__)
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
        check_exists(args.checkpoint)
        cfg.load_from = args.checkpoint
        for key in ('test_dataloader', 'test_evaluator'):
            if cfg.get(key) is None:
                raise UsageError(f'the config has no {key}: nothing to test')
        if args.subnet:
            cfg.test_cfg = dict(
                cfg.get('test_cfg') or {},
                type='mutualnet_mm.SubnetTestLoop',
                subnets=[str(Subnet.parse(s)) for s in args.subnet],
            )
        elif cfg.get('test_cfg') is None:
            raise UsageError(
                'the config has no test_cfg: name subnets by --subnet, or set '
                "test_cfg=dict(type='mutualnet_mm.SubnetTestLoop')"
            )
        runner = make_runner(cfg)
        model = runner.model
        check_checkpoint(
            args.checkpoint,
            model.module if is_model_wrapper(model) else model,
        )
        runner.test()


if __name__ == '__main__':
    main()
