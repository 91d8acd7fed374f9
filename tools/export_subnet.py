#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write one subnet to a file of its own, proven equal to the adaptive network.

Formats: onnx and torch (a program of torch.export, .pt2) map preprocessed
batches of the subnet's own size to logits, of detectors to the maps of the
neck; static (.pth and .py) is a checkpoint and the config of a small network
of stock layers; stock is the same for the stock inferencers, and the full
network as the stock class itself. What was written is run beside the adaptive
network on real inputs; if they differ, no file is left.
"""

import sys
from contextlib import redirect_stdout

from mutualnet_mm.apis import AdaptiveModel, count_macs
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.config import find_views
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.export.export import FORMATS, TOLERANCE, export_subnet
from mutualnet_mm.progress_bars import working


def parse_args():
    parser = tool_parser(__doc__)
    parser.add_argument('adaptive', help='adaptive.pth of mutualnet table')
    parser.add_argument(
        '--subnet', required=True, metavar='SUBNET', help='such as 0.7x-160'
    )
    parser.add_argument('--format', required=True, choices=list(FORMATS))
    parser.add_argument(
        '--out',
        required=True,
        metavar='FILE',
        help='file to write: ' + ', '.join(sorted(set(FORMATS.values()))),
    )
    parser.add_argument(
        '--fuse-bn',
        action='store_true',
        help='fold batch norms into convolutions; onnx always has them folded',
    )
    parser.add_argument(
        '--inputs',
        nargs='+',
        metavar='FILE',
        help="images or videos to compare on, default: a few of the config's "
        'test data set',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=TOLERANCE,
        help='largest difference that passes, relative to the largest value '
        'of an output; default: %(default)s',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_cpu()
    # Standard output is the result's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        net = AdaptiveModel.from_file(args.adaptive)
        with working('exporting and comparing'):
            proof = export_subnet(
                net,
                args.subnet,
                args.format,
                args.out,
                args.inputs,
                args.fuse_bn,
                args.tolerance,
            )
        macs = count_macs(net.model, args.subnet, find_views(net.cfg).shape)
    print(
        f'subnet {args.subnet}: {macs / 1e6:,.2f} MMACs, '
        f'{proof.params:,} parameters'
    )
    for file, size in proof.files.items():
        print(f'{file}: {size:,} bytes')
    difference = proof.difference
    print(
        f'largest difference: {difference.absolute:.2g}, '
        f'{difference.relative:.2g} of the largest value '
        f'({proof.compared}, batches of '
        f'{" and ".join(map(str, proof.batch_sizes))} inputs)'
    )


if __name__ == '__main__':
    main()
