from itertools import combinations

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from mutualnet_mm.visualization.palette import COLOURS, MARKS, line_style

# How those see light who lack a kind of cones (Machado et al., 2009), on
# linear red, green and blue.
BLINDNESS = dict(
    none=np.eye(3),
    protanopia=[
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    deuteranopia=[
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    tritanopia=[
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
)


def seen(colour, kind):
    """A colour in CIELAB, as it is seen."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(
        rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4
    )
    linear = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
    rgb = np.where(
        linear <= 0.0031308,
        12.92 * linear,
        1.055 * linear ** (1 / 2.4) - 0.055,
    )
    return cv2.cvtColor(rgb[None, None].astype(np.float32), cv2.COLOR_RGB2LAB)[
        0, 0
    ]


@pytest.mark.parametrize('kind', BLINDNESS)
def test_colours_are_told_apart(kind):
    """A difference of 2.3 is just noticed; Matplotlib's own have less than 5.

    White is the paper, black the best subnets.
    """
    for a, b in combinations((*COLOURS, 'white', 'black'), 2):
        assert np.linalg.norm(seen(a, kind) - seen(b, kind)) > 10, (a, b)


def test_42_lines_look_different():
    styles = [line_style(i) for i in range(len(COLOURS) * len(MARKS))]
    assert len({(s['color'], s['marker']) for s in styles}) == 42
