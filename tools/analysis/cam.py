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

from mutualnet_mm.analysis.activation_maps import map_image
from mutualnet_mm.analysis.map_figures import (
    class_name,
    draw_maps,
    save_figure,
    save_maps,
)
from mutualnet_mm.analysis.opening import open_for_maps
from mutualnet_mm.analysis.pixels import input_pixels
from mutualnet_mm.analysis.view import image_size
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.cli_analysis import maps_parser
from mutualnet_mm.files import output_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = maps_parser(
        __doc__,
        '1.0x-224 0.75x-128',
        'image files',
        ', or all that a detector finds',
    )
    return parser.parse_intermixed_args()


def draw(args: argparse.Namespace) -> None:
    """Write the picture and the maps of each image."""
    network, nets, names, label, outputs = open_for_maps(
        args, ('classification', 'detection')
    )
    for image, out in zip(track(args.file, 'images'), outputs):
        inputs, samples = network.inputs([image])
        maps = [map_image(net, inputs, samples, label) for net in nets]
        pixels = input_pixels(
            network.model, inputs[0], network.inputs.channel_order
        )
        height, width = image_size(samples[0])  # padding is beyond
        figure = draw_maps(pixels[:height, :width], maps, names)
        save_figure(figure, f'{out}.png')
        save_maps(maps, f'{out}.npz')
        for found in maps:
            shown = class_name(found.label, names)
            print(
                f'{image}: {found.subnet}: {shown}, {found.score_name} '
                f'{found.score:.3f}'
            )


def main() -> None:
    args = parse_args()
    with one_line_errors(), output_folder(args.out):
        draw(args)


if __name__ == '__main__':
    main()
