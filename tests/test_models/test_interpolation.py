"""Images at another size, in any precision."""

import pytest
import torch
import torch.nn.functional as F

from mutualnet_mm.models.interpolation import resize_images


@pytest.mark.parametrize(
    'dtype', [torch.double, torch.float, torch.half, torch.bfloat16]
)
def test_every_precision(dtype):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 9, 12).to(dtype)
    found = resize_images(images, (5, 7))
    assert (found.dtype, found.shape) == (dtype, (2, 3, 5, 7))
    expected = F.interpolate(
        images.double(), (5, 7), mode='bilinear', antialias=True
    )
    torch.testing.assert_close(found, expected.to(dtype))
