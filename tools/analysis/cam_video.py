#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Show which frames, and where in them, several video subnets look at.

For each video a picture as in Fig. 4 of the paper, VIDEO.png, with the
normalised activation of each frame and the frames with their maps, and the raw
maps, VIDEO.npz. They are of the first view that the test pipeline takes; of
SlowFast, of the Slow branch.
"""

import argparse

from mutualnet_mm.analysis.frame_activation import frame_activation
from mutualnet_mm.analysis.frame_figures import draw_frames, save_frames
from mutualnet_mm.analysis.map_figures import (
    class_name,
    save_figure,
)
from mutualnet_mm.analysis.opening import open_for_maps
from mutualnet_mm.analysis.pixels import input_pixels
from mutualnet_mm.cli import one_line_errors
from mutualnet_mm.cli_analysis import maps_parser
from mutualnet_mm.files import output_folder
from mutualnet_mm.progress_bars import track


def parse_args() -> argparse.Namespace:
    parser = maps_parser(
        __doc__,
        '1.0x-224-8 0.63x-112-3',
        'videos, or folders of frames where the config reads those',
    )
    return parser.parse_intermixed_args()


def draw(args: argparse.Namespace) -> None:
    """Write the picture and the maps of each video."""
    network, nets, names, label, outputs = open_for_maps(args, ('action',))
    for video, out in zip(track(args.file, 'videos'), outputs):
        inputs, _ = network.inputs([video])
        view = network.inputs.one_view(inputs)
        found = [frame_activation(net, view, label) for net in nets]
        clip = input_pixels(
            network.model,
            view[0, 0].transpose(0, 1),
            network.inputs.channel_order,
        )
        save_figure(draw_frames(clip, found, names), f'{out}.png')
        save_frames(found, f'{out}.npz')
        for one in found:
            shown = class_name(one.label, names)
            curve = ' '.join(
                f'{frame}:{value:.2f}'
                for frame, value in zip(one.frames, one.curve)
            )
            print(
                f'{video}: {one.subnet}: {shown}, score {one.score:.3f}, '
                f'{curve}'
            )


def main() -> None:
    args = parse_args()
    with one_line_errors(), output_folder(args.out):
        draw(args)


if __name__ == '__main__':
    main()
