#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Sort the channels of a trained network, to start mutual learning from it.

A width keeps the leading channels. In the new checkpoint these are the most
important ones; the full network computes what it did before, which is proven
first. It holds the weights alone: name it as load_from of the adaptive config.
"""

from mutualnet_mm.apis import build_model, load_config
from mutualnet_mm.cli import config_parser, one_line_errors
from mutualnet_mm.models.sorting import describe_sorted, sort_checkpoint
from mutualnet_mm.progress_bars import working
from mutualnet_mm.slimmable.importance import MEASURES


def parse_args():
    parser = config_parser(__doc__)
    parser.add_argument(
        'checkpoint', help='file or address of a network trained alone'
    )
    parser.add_argument(
        '--out', required=True, metavar='FILE', help='checkpoint to write'
    )
    parser.add_argument(
        '--by',
        choices=MEASURES,
        default=MEASURES[0],
        help='the weights of the batch norms behind a channel, or all that '
        'make it, default: %(default)s',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        cfg = load_config(args.config, args.cfg_options, stages=())
        with working('sorting'):
            report, ignored = sort_checkpoint(
                build_model(cfg), args.checkpoint, args.out, args.by
            )
    for line in describe_sorted(report):
        print(line)
    if ignored:
        print(f'left out, which the config has not: {", ".join(ignored)}')
    print(
        f'written: {args.out}; next: mutualnet train {args.config} '
        f'--cfg-options load_from={args.out}'
    )


if __name__ == '__main__':
    main()
