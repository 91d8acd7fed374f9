import cv2
import numpy as np

from mutualnet_mm import Subnet
from mutualnet_mm.visualization import plot_curve


def test_every_resolution_has_a_colour(tmp_path):
    points = {
        Subnet(1.0, 128): (4e9, 0.8),
        Subnet(0.5, 128): (1e9, 0.6),
        Subnet(0.5, 96): (5e8, 0.5),
    }
    colours = []
    for chosen in (points, dict(list(points.items())[:2])):
        plot_curve(chosen, 'box AP', tmp_path / 'curve.png')
        image = cv2.imread(str(tmp_path / 'curve.png'))
        vivid = np.ptp(image.astype(int), axis=2) > 100
        hue = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[..., 0][vivid]
        colours.append(len(set((hue // 15).tolist())))
    assert colours == [2, 1]
