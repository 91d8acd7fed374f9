#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train a config of mmpretrain, mmdet or mmaction2, with our models or not.

The stock tool of each project does the same, and its options are taken here;
this one serves all three and checks the config before the first download or
iteration.
"""

import torch

from mutualnet_mm.apis import load_config
from mutualnet_mm.cli import one_line_errors, set_training, training_parser
from mutualnet_mm.config import check_training, make_runner
from mutualnet_mm.models.build import unwrapped
from mutualnet_mm.models.checkpoints import check_resumed


def main() -> None:
    args = training_parser(__doc__).parse_args()
    torch.set_flush_denormal(True)  # of a fresh network's gradients on a CPU
    with one_line_errors():
        cfg = load_config(
            args.config,
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('train',) if args.no_validate else ('train', 'val'),
        )
        set_training(cfg, args)
        check_training(cfg)
        runner = make_runner(cfg)
        check_resumed(cfg, unwrapped(runner.model))
        runner.train()


if __name__ == '__main__':
    main()
