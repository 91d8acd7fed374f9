#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train a config of mmpretrain, mmdet or mmaction2, with our models or not.

The stock tool of each project does the same, and its options are taken here;
this one serves all three and checks the config before the first download or
iteration.
"""

from mutualnet_mm.apis import load_config
from mutualnet_mm.apis.make_adaptive import write_adaptive
from mutualnet_mm.cli import (
    add_space,
    one_line_errors,
    set_training,
    training_parser,
)
from mutualnet_mm.config import check_training, make_runner, only_training
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.engine import TrainingClock
from mutualnet_mm.models import MutualLearningMixin
from mutualnet_mm.models.build import unwrapped
from mutualnet_mm.models.checkpoints import check_resumed
from mutualnet_mm.models.last_checkpoint import skip_damaged


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument(
        '--adaptive',
        action='store_true',
        help='of a stock config, train what mutualnet adapt makes of it, at:',
    )
    add_space(parser)
    args = parser.parse_args()
    space = (args.width, args.resolution, args.frames)
    if not args.adaptive and space != (None, None, None):
        parser.error('--width, --resolution and --frames need --adaptive')
    prepare_cpu()
    with one_line_errors():
        if args.adaptive:
            args.config = write_adaptive(args.config, *space, args.work_dir)
            print(f'written: {args.config}')
        cfg = load_config(
            str(args.config),
            args.cfg_options,
            args.work_dir,
            args.launcher,
            stages=('train',) if args.no_validate else ('train', 'val'),
        )
        set_training(cfg, args)
        check_training(cfg)
        with only_training(cfg):
            skip_damaged(cfg)
            runner = make_runner(cfg)
            model = unwrapped(runner.model)
            check_resumed(cfg, model)
            if isinstance(model, MutualLearningMixin):
                model.check_teacher()
            runner.register_hook(TrainingClock())
            runner.train()


if __name__ == '__main__':
    main()
