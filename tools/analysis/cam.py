#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Show where several subnets look: class activation maps side by side.

For each image a picture as in Fig. 1 of the paper, IMAGE.png, and the raw
maps, IMAGE.npz. Each subnet runs at its own resolution, with its own
calibrated statistics. Maps are made of the classifier's weights where it
follows global pooling, by Grad-CAM for other classifiers and by Layer-CAM for
detectors.
"""

import argparse

from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.activation_maps import map_image
from mutualnet_mm.analysis.classes import chosen_class
from mutualnet_mm.analysis.map_figures import (
    class_name,
    draw_maps,
    output_names,
    save_figure,
    save_maps,
)
from mutualnet_mm.analysis.pixels import input_pixels
from mutualnet_mm.cli import one_line_errors, trained_parser
from mutualnet_mm.config import load_config
from mutualnet_mm.files import make_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = trained_parser(__doc__, '1.0x-224 0.75x-128')
    parser.add_argument('image', nargs='+', help='image files')
    parser.add_argument('--out', required=True, help='folder to write to')
    parser.add_argument(
        '--class',
        dest='label',
        metavar='NAME_OR_INDEX',
        help='class to map, default: the one that each subnet predicts, or '
        'all that a detector finds',
    )
    return parser.parse_intermixed_args()


def draw(args: argparse.Namespace) -> None:
    """Write the picture and the maps of each image."""
    stems = output_names(args.image)
    cfg = load_config(args.config, args.cfg_options)
    network = TrainedNetwork(
        cfg, args.checkpoint, args.subnet, device=args.device
    )
    names, label = chosen_class(network, args.checkpoint, args.label)
    folder = make_folder(args.out)
    nets = [network.static(subnet) for subnet in network.subnets]
    for image, stem in zip(track(args.image, 'images'), stems):
        inputs, samples = network.inputs([image])
        maps = [map_image(net, inputs, samples, label) for net in nets]
        pixels = input_pixels(
            network.model, inputs[0], network.inputs.channel_order
        )
        height, width = samples[0].img_shape[:2]  # padding is beyond
        figure = draw_maps(pixels[:height, :width], maps, names)
        save_figure(figure, folder / f'{stem}.png')
        save_maps(maps, folder / f'{stem}.npz')
        for found in maps:
            shown = class_name(found.label, names)
            print(f'{image}: {found.subnet}: {shown} {found.score:.3f}')


def main() -> None:
    args = parse_args()
    with one_line_errors():
        draw(args)


if __name__ == '__main__':
    main()
