#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Test a checkpoint at several subnets, with calibrated batch norms.

The options of the stock tools of mmpretrain, mmdet and mmaction2 are taken
here, for the configs of all three. What they write is kept apart by subnet.
"""

from mmengine.dist import is_main_process

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors, set_testing, testing_parser
from mutualnet_mm.config import make_runner
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.engine.prediction_files import (
    check_out,
    dump_metrics,
    dump_predictions,
)
from mutualnet_mm.models.build import unwrapped
from mutualnet_mm.models.checkpoints import check_checkpoint, check_exists


def main() -> None:
    args = testing_parser(__doc__).parse_args()
    prepare_cpu()
    with one_line_errors():
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('test',),
        )
        check_exists(args.checkpoint)
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
        item = args.out_item or 'pred'
        if args.out is not None:
            check_out(args.out, item)
        elif args.out_item is not None:
            raise UsageError(
                f'--out-item {args.out_item}: name the file by --out'
            )
        set_testing(cfg, args)
        runner = make_runner(cfg)
        check_checkpoint(args.checkpoint, unwrapped(runner.model))
        if args.out is not None and item == 'pred':
            dump_predictions(runner, args.out)
        metrics = runner.test()
        if args.out is not None and item == 'metrics' and is_main_process():
            dump_metrics(metrics, args.out)


if __name__ == '__main__':
    main()
