#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train a config of mmpretrain, mmdet or mmaction2, with our models or not.

The stock tool of each project does the same; this one serves all three and
checks the config before the first download or iteration.
"""

import torch
from mmengine.model import is_model_wrapper

from mutualnet_mm.apis import load_config
from mutualnet_mm.apis.make_adaptive import write_adaptive
from mutualnet_mm.cli import add_space, one_line_errors, runner_parser
from mutualnet_mm.config import check_training, make_runner
from mutualnet_mm.models.checkpoints import check_resumed


def main() -> None:
    parser = runner_parser(__doc__)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, by default the last of the work dir',
    )
    parser.add_argument(
        '--amp', action='store_true', help='automatic mixed precision (GPU)'
    )
    parser.add_argument(
        '--adaptive',
        action='store_true',
        help='of a stock config, train what tools/make_adaptive.py makes of '
        'it, at:',
    )
    add_space(parser)
    args = parser.parse_args()
    space = (args.width, args.resolution, args.frames)
    if not args.adaptive and space != (None, None, None):
        parser.error('--width, --resolution and --frames need --adaptive')
    torch.set_flush_denormal(True)  # of a fresh network's gradients on a CPU
    with one_line_errors():
        if args.adaptive:
            args.config = write_adaptive(args.config, *space, args.work_dir)
        cfg = load_config(
            str(args.config),
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('train', 'val'),
        )
        if args.resume is not None:
            cfg.resume = True
            cfg.load_from = None if args.resume == 'auto' else args.resume
        if args.amp and cfg.get('optim_wrapper') is not None:
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        check_training(cfg)
        runner = make_runner(cfg)
        model = runner.model
        check_resumed(cfg, model.module if is_model_wrapper(model) else model)
        runner.train()


if __name__ == '__main__':
    main()
