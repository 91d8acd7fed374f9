"""Maps of two sizes of an image, compared."""

import numpy as np
import pytest
import torch
from plain_maps import STRIDES, plain_distance

from mutualnet_mm.models.feature_maps import FeatureMaps
from mutualnet_mm.models.losses import correlation_distance


def correlations(maps, aim):
    """Of each channel, by numpy."""
    pairs = zip(
        *(m.transpose(0, 1).flatten(1).double().numpy() for m in (maps, aim))
    )
    return [np.corrcoef(*pair)[0, 1] for pair in pairs]


def test_distance_is_one_minus_the_correlation():
    maps, noise = torch.randn(2, 3, 5, 4, 6)
    aim = (
        maps * 7 - 3 + noise * torch.tensor([0.0, 5, 50, 1, 9])[:, None, None]
    )
    expected = 1 - np.mean(correlations(maps, aim))
    assert correlation_distance(maps, aim).item() == pytest.approx(
        expected, rel=1e-4
    )
    halves = maps.half(), aim
    found = correlation_distance(*halves)
    assert found.dtype == torch.float
    assert found.item() == pytest.approx(expected, rel=1e-2)


def test_channels_of_one_value_have_no_correlation():
    maps, aim = torch.randn(2, 2, 4, 4, 4)
    maps[:, 0], aim[:, 1] = 5, 3
    maps.requires_grad_()
    distance = correlation_distance(maps, aim)
    distance.backward()
    assert maps.grad.isfinite().all()
    assert maps.grad[:, 1].abs().max() < 1e-6 < maps.grad[:, 2:].abs().min()
    expected = np.mean(
        [
            0.5,
            0.5,
            *(1 - np.array(correlations(maps.detach()[:, 2:], aim[:, 2:]))),
        ]
    )
    assert distance.item() == pytest.approx(expected, rel=1e-4)
    single = torch.randn(1, 3, 1, 1, requires_grad=True)
    correlation_distance(single, torch.randn(1, 3, 1, 1)).backward()
    assert not single.grad.any()


def maps_of(batch, image, strides=STRIDES, channels=1):
    """Maps of noise, as a network of these strides makes them."""
    sizes = [tuple(-(-side // s) for side in batch) for s in strides]
    levels = [torch.randn(1, channels, *size) for size in sizes]
    return FeatureMaps(levels, batch, [image])


LARGE = (800, 1344), (800, 1333)
PYRAMID = (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    'strides, batch, image, expected',
    [
        (PYRAMID, *LARGE, [(i, i) for i in range(5)]),
        (PYRAMID, (640, 1088), (640, 1066), [(i, i) for i in range(5)]),
        (PYRAMID, (480, 800), (480, 800), [(i, i + 1) for i in range(4)]),
        (PYRAMID, (320, 544), (320, 533), [(i, i + 1) for i in range(4)]),
        (PYRAMID, (224, 384), (200, 333), [(i, i + 2) for i in range(3)]),
        (
            PYRAMID[::-1],
            (416, 672),
            (400, 667),
            [(i, i - 1) for i in range(1, 5)],
        ),
        ((16,), (224, 352), (200, 333), [(0, 0)]),
        ((8, 16), (128, 192), (112, 187), []),
    ],
)
def test_levels_that_show_the_same(strides, batch, image, expected):
    own, aim = maps_of(batch, image, strides), maps_of(*LARGE, strides)
    found = own.counterparts(aim)
    assert [pair[:2] for pair in found] == expected
    for i, j, ratio in found:
        assert ratio == strides[i] / strides[j]


def test_distance_of_images_of_their_own_sizes():
    """As of a batch whose images shrink by other factors in both sides."""
    shapes = [(96, 64), (70, 90)]
    smaller = [(48, 31), (40, 33)]
    full, own = (
        FeatureMaps(
            [
                torch.randn(2, 3, side // s, side // s, dtype=torch.double)
                for s in STRIDES
            ],
            (side, side),
            images,
        )
        for side, images in ((96, shapes), (64, smaller))
    )
    expected = plain_distance(own.levels, full.levels, smaller, shapes, 1)
    found = own.distance(full)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
