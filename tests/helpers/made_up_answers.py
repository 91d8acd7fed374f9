"""Answers of subnets to images, as a trained network would give them."""

import math

import numpy as np


def made_up(seed, subnets=5, images=40, digits=6):
    """Answers of subnets of which larger ones are better, as lists."""
    rng = np.random.default_rng(seed)
    macs = [int(m) for m in rng.integers(50, 1000, subnets)]
    hardness = rng.normal(size=images)
    right, sure = [], []
    for cost in macs:
        margin = math.log(cost / 200) - hardness
        margin = margin + rng.normal(size=images) / 2
        right.append([bool(m > 0) for m in margin])
        chance = 1 / (1 + np.exp(-np.abs(margin)))
        sure.append([float(c) for c in np.round(chance, digits)])
    return macs, right, sure
