#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Make any stock config of mmpretrain, mmdet or mmaction2 adaptive.

Writes a config that inherits the stock one and changes a few lines, shows it,
and runs one random batch through the network as proof. No data is needed.
"""

from pathlib import Path

from mutualnet_mm.apis import make_adaptive
from mutualnet_mm.cli import add_space, one_line_errors, tool_parser
from mutualnet_mm.config.stock import derived_name, read_stock_config


def parse_args():
    parser = tool_parser(__doc__)
    parser.add_argument(
        'config',
        help='config file, or a name such as '
        'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
    )
    add_space(parser)
    parser.add_argument(
        '--out',
        metavar='NEW.py',
        help='file to write, default: mutual-<name of the config> in the '
        'current folder, of a config with read_base mutual_<name>',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='do not run a batch through the network',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    with one_line_errors():
        out = Path(args.out or derived_name(read_stock_config(args.config)))
        made = make_adaptive(
            args.config,
            args.width,
            args.resolution,
            args.frames,
            out,
            check=False,
        )
        print(out.read_text(encoding='utf-8'))
        for note in made.notes:
            print(f'note: {note}')
        if not args.no_check:
            made.prove()
            print(
                'proven: the full and the smallest subnet learned from one '
                'random batch, and the smallest one predicted'
            )
        print(f'written: {out}; next: mutualnet train {out}')


if __name__ == '__main__':
    main()
