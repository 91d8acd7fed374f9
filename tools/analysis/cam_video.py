#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Show which frames, and where in them, several video subnets look at.

For each video a picture as in Fig. 4 of the paper, VIDEO.png, with the
normalised activation of each frame and the frames with their maps, and the raw
maps, VIDEO.npz. They are of the first view that the test pipeline takes; of
SlowFast, of the Slow branch.
"""

import argparse

from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.classes import chosen_class
from mutualnet_mm.analysis.frame_activation import frame_activation
from mutualnet_mm.analysis.frame_figures import draw_frames, save_frames
from mutualnet_mm.analysis.map_figures import (
    class_name,
    output_names,
    save_figure,
)
from mutualnet_mm.analysis.pixels import input_pixels
from mutualnet_mm.cli import one_line_errors, trained_parser
from mutualnet_mm.config import load_config
from mutualnet_mm.files import make_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = trained_parser(__doc__, '1.0x-224-8 0.63x-112-3')
    parser.add_argument(
        'video',
        nargs='+',
        help='videos, or folders of frames where the config reads those',
    )
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--class',
        dest='label',
        metavar='NAME_OR_INDEX',
        help='class to map, default: the one that each subnet predicts',
    )
    return parser.parse_intermixed_args()


def draw(args: argparse.Namespace) -> None:
    """Write the picture and the maps of each video."""
    stems = output_names(args.video)
    cfg = load_config(args.config, args.cfg_options)
    network = TrainedNetwork(
        cfg, args.checkpoint, args.subnet, device=args.device
    )
    names, label = chosen_class(network, args.checkpoint, args.label)
    folder = make_folder(args.out)
    nets = [network.static(subnet) for subnet in network.subnets]
    for video, stem in zip(track(args.video, 'videos'), stems):
        inputs, _ = network.inputs([video])
        view = network.inputs.one_view(inputs)
        found = [frame_activation(net, view, label) for net in nets]
        clip = input_pixels(
            network.model,
            view[0, 0].transpose(0, 1),
            network.inputs.channel_order,
        )
        save_figure(draw_frames(clip, found, names), folder / f'{stem}.png')
        save_frames(found, folder / f'{stem}.npz')
        for one in found:
            shown = class_name(one.label, names)
            curve = ' '.join(
                f'{frame}:{value:.2f}'
                for frame, value in zip(one.frames, one.curve)
            )
            print(f'{video}: {one.subnet}: {shown} {one.score:.3f}, {curve}')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        draw(args)


if __name__ == '__main__':
    main()
