#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Convert a checkpoint of the published code (MutualNet, US-Net) for a config.

Every weight is used once, the network of the config is compared with the
published one, and the file that is written loads strictly. Statistics of batch
norms are taken over; where those of the full network are missing, they are
calibrated on the data that the config's BNCalibrationHook names.
"""

from mutualnet_mm.apis import convert_checkpoint, load_config
from mutualnet_mm.cli import add_device, config_parser, one_line_errors
from mutualnet_mm.devices import prepare_cpu


def parse_args():
    parser = config_parser(__doc__)
    parser.add_argument('checkpoint', help='file of the published code')
    parser.add_argument(
        '--out', required=True, metavar='FILE', help='checkpoint to write'
    )
    add_device(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare_cpu()
    with one_line_errors():
        cfg = load_config(
            args.config, args.cfg_options, launcher='none', stages=()
        )
        done = convert_checkpoint(cfg, args.checkpoint, args.out, args.device)
    print(f'{done.network}: {done.num_weights} weights, each used once')
    print(
        'statistics of the full network: '
        + (
            f'calibrated on {done.calibrated} batches'
            if done.calibrated
            else 'those of the checkpoint'
        )
    )
    if done.statistics:
        print(f'statistics beside them: {", ".join(done.statistics)}')
    print('the published training must agree with these settings:')
    for name, value in done.agreed.items():
        print(f'  {name}={value}')
    then = f'mutualnet test {args.config} {args.out}'
    print(f'written: {args.out}; next: {then}')


if __name__ == '__main__':
    main()
