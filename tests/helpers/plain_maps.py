"""Distances of the maps of two networks, in plain numpy and PyTorch."""

import numpy as np
import torch
from scipy.ndimage import map_coordinates

STRIDES = (4, 8, 16, 32)


def sample(maps, size, own_stride, stride, here, there):
    """Values of one image's maps where places of smaller ones lie."""
    rows, columns = (
        (np.arange(n) + 0.5) * own_stride * b / a / stride - 0.5
        for n, a, b in zip(size, here, there)
    )
    places = np.meshgrid(rows, columns, indexing='ij')
    values = [
        map_coordinates(m, places, order=1, mode='nearest') for m in maps
    ]
    return torch.from_numpy(np.stack(values))


def plain_distance(own, aim, images, full_images, shift):
    """Of the levels of two networks, in plain numpy and torch."""
    total = 0
    for i in range(len(STRIDES) - shift):
        maps, other = own[i], aim[i + shift].detach().double().numpy()
        target = torch.stack(
            [
                sample(
                    other[n],
                    maps.shape[2:],
                    STRIDES[i],
                    STRIDES[i + shift],
                    images[n],
                    full_images[n],
                )
                for n in range(len(images))
            ]
        )
        for channel in range(maps.shape[1]):
            pair = [x[:, channel] for x in (maps, target)]
            # Nearly 1 - r: variances have the 1e-5 of batch norms.
            a, b = (
                (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
                for x in pair
            )
            distance = ((a - b) ** 2).mean() / 2
            total = total + distance / maps.shape[1]
    return total
