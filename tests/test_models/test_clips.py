import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mutualnet_mm import ConfigError
from mutualnet_mm.models.clips import (
    frame_indices,
    pick_frames,
    resize_space,
    scaled_size,
)


def middle_frames(available, frames):
    """Those that show the middles of equal parts of the clip's duration."""
    # Frame i lasts from i to i + 1; times are in units of 1 / (2 frames).
    ends = np.arange(1, available + 1) * 2 * frames
    middles = (2 * np.arange(frames) + 1) * available
    return (ends <= middles[:, None]).sum(1).tolist()


def test_frame_indices():
    for available in range(1, 65):
        for frames in range(1, available + 1):
            found = frame_indices(available, frames)
            assert found == middle_frames(available, frames)
            assert len(found) == frames
            assert found[0] >= 0 and found[-1] < available
            # Uniform: steps are the two whole numbers beside the exact one,
            # so no frame comes twice.
            steps = np.diff(found)
            exact = available / frames
            assert set(steps) <= {int(np.floor(exact)), int(np.ceil(exact))}
            assert (steps >= 1).all()
        assert frame_indices(available, available) == [*range(available)]


def test_frame_indices_of_the_paper():
    """Slow 8x8 and X3D-M, counted by hand."""
    assert frame_indices(8, 5) == [0, 2, 4, 5, 7]
    assert frame_indices(8, 3) == [1, 4, 6]
    assert frame_indices(4, 3) == [0, 2, 3]
    assert frame_indices(4, 2) == [1, 3]
    assert frame_indices(16, 6) == [1, 4, 6, 9, 12, 14]


@pytest.mark.parametrize('available', [1, 4, 63])
def test_too_many_frames(available):
    with pytest.raises(ConfigError) as caught:
        frame_indices(available, available + 1)
    text = str(caught.value)
    assert f'{available + 1} frames are wanted' in text
    assert f'a clip of {available}' in text
    assert 'mutual.frames' in text


@pytest.mark.parametrize('lead', [(2, 3), (2, 5, 3)], ids=['5d', '6d'])
def test_pick_frames(lead):
    clips = torch.arange(8.0)[:, None, None].expand(*lead, 8, 4, 6)
    picked = pick_frames(clips, 3)
    assert picked.shape == (*lead, 3, 4, 6)
    assert (picked.reshape(-1, 3, 24) == torch.tensor([[1.0], [4], [6]])).all()
    for frames in (8, None):
        assert pick_frames(clips, frames) is clips
    with pytest.raises(ConfigError, match='9 frames are wanted'):
        pick_frames(clips, 9)


@pytest.mark.parametrize('size', [(12, 12), (17, 9), (23, 31)])
@pytest.mark.parametrize('lead', [(2, 3), (2, 4, 3)], ids=['5d', '6d'])
def test_resize_space_frame_by_frame(lead, size):
    clips = torch.randn(*lead, 5, 23, 29)
    before = clips.clone()
    resized = resize_space(clips, size)
    assert resized.shape == (*lead, 5, *size)
    images = clips.reshape(-1, 1, 23, 29)
    for image, ours in zip(images, resized.reshape(-1, *size)):
        expected = F.interpolate(
            image[None], size, mode='bilinear', antialias=True
        )
        torch.testing.assert_close(ours, expected[0, 0], rtol=0, atol=1e-6)
    assert torch.equal(clips, before)
    assert resized.is_contiguous()  # recognizers flatten views by `view`


def smooth_clip(frames, height, width):
    """Waves, each frame its own, that survive a reduction."""
    y = np.linspace(0, 3, height)[:, None]
    x = np.linspace(0, 4, width)
    waves = [
        np.sin(y * (i + 1) + x) + np.cos(x * 2 - i) for i in range(frames)
    ]
    return np.stack(waves).astype(np.float32)


@pytest.mark.parametrize('factor', [0.5, 0.634, 0.795])
def test_resize_space_against_pillow(factor):
    """The same filter, by another library: also where it blurs noise."""
    image = pytest.importorskip('PIL.Image')
    rng = np.random.default_rng(0)
    clip = smooth_clip(3, 56, 72) + rng.normal(size=(3, 56, 72))
    clip = clip.astype(np.float32)
    clips = torch.from_numpy(clip)[None, None]
    height, width = scaled_size(clips, factor)
    resized = resize_space(clips, (height, width))[0, 0]
    for frame, ours in zip(clip, resized.numpy()):
        picture = image.fromarray(frame, mode='F')
        expected = picture.resize((width, height), image.Resampling.BILINEAR)
        np.testing.assert_allclose(ours, np.asarray(expected), atol=1e-4)


def test_resize_space_against_opencv():
    """By a whole factor waves are the means of parts, without a shift."""
    clip = smooth_clip(4, 64, 96)
    resized = resize_space(torch.from_numpy(clip)[None, None], (32, 48))
    for frame, ours in zip(clip, resized[0, 0].numpy()):
        expected = cv2.resize(frame, (48, 32), interpolation=cv2.INTER_AREA)
        inner = (slice(1, -1),) * 2
        np.testing.assert_allclose(ours[inner], expected[inner], atol=0.02)


def test_no_aliasing():
    """A checkerboard becomes grey, not another checkerboard."""
    rows = torch.arange(64)
    board = ((rows[:, None] + rows) % 2).float().expand(1, 3, 2, 64, 64)
    resized = resize_space(board, (32, 32))
    assert (resized[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.1


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_what_is_kept(dtype):
    """Type and device, and at its size already the very tensor."""
    clips = torch.randn(2, 3, 4, 12, 10, dtype=dtype)
    resized = resize_space(clips, (7, 5))
    assert resized.dtype == dtype and resized.device == clips.device
    assert pick_frames(clips, 2).dtype == dtype
    for size in ((12, 10), [12, 10], torch.Size((12, 10))):
        assert resize_space(clips, size) is clips
    meta = torch.empty(2, 2, 3, 4, 12, 10, device='meta', dtype=dtype)
    small = resize_space(pick_frames(meta, 3), (7, 5))
    assert small.device.type == 'meta' and small.dtype == dtype
    assert small.shape == (2, 2, 3, 3, 7, 5)


def test_gradients_pass():
    clips = torch.randn(1, 2, 3, 8, 8, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: resize_space(pick_frames(x, 2), (5, 6)), clips
    )


@pytest.mark.parametrize(
    'side, resolution, expected',
    [(224, 142, 142), (224, 178, 178), (256, 142, 162), (256, 178, 203)],
)
def test_scaled_size(side, resolution, expected):
    """Exact at the full size; views of 256 by the same factor."""
    assert expected == int(side * resolution / 224 + 0.5)
    clips = torch.empty(1, 3, 8, side, side, device='meta')
    assert scaled_size(clips, resolution / 224) == (expected, expected)
    wide = torch.empty(1, 3, 8, side, 2 * side, device='meta')
    height, width = scaled_size(wide, resolution / 224)
    assert height == expected and abs(width - 2 * expected) <= 1


def test_every_trained_resolution_is_exact():
    """No resolution is lost to rounding on the way through a factor."""
    for full in range(32, 321, 4):
        clips = torch.empty(1, 3, 1, full, full, device='meta')
        for resolution in range(16, full + 1):
            size = scaled_size(clips, resolution / full)
            assert size == (resolution, resolution)


def test_frames_are_picked_on_the_device():
    """No list of indices becomes a tensor, which a GPU would wait for."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten

    indices = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            indices.extend(
                leaf
                for leaf in tree_flatten((args, kwargs))[0]
                if isinstance(leaf, torch.Tensor)
                and not leaf.is_floating_point()
            )
            return func(*args, **(kwargs or {}))

    clips = torch.empty(2, 1, 3, 8, 4, 4, device='meta')
    with Recorder():
        picked = pick_frames(clips, 3)
    assert picked.shape == (2, 1, 3, 3, 4, 4) and not indices
