"""Resolutions at which a network does not run are named while it is built."""

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError


@MODELS.register_module(force=True)
class PyramidOfHalves(nn.Module):
    """Adds each map to the next one, upsampled by two, as BiFPN does."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c, out_channels, 1) for c in in_channels
        )

    def forward(self, maps):
        maps = [conv(x) for conv, x in zip(self.convs, maps)]
        for i in range(len(maps) - 1, 0, -1):
            up = nn.functional.interpolate(maps[i], scale_factor=2)
            maps[i - 1] = maps[i - 1] + up
        maps.append(maps[-1][..., ::2, ::2])
        return tuple(maps)


def detector(detector_config, resolution, divisor):
    config = detector_config(dict(resolution=resolution))
    config.neck = dict(
        type='PyramidOfHalves', in_channels=[16, 32, 64, 128], out_channels=32
    )
    config.data_preprocessor.pad_size_divisor = divisor
    return config


@pytest.mark.parametrize(
    'resolution, divisor, refused',
    [
        ((64, 48), 16, 48),
        ((64, 56), 8, 56),
        ((64, 56, 40), 8, '40, 56'),
        ((128, 64, 48), 16, 48),
        ((64, 48), 32, None),
        ((64, 32), 16, None),
        ((48, 40), 16, None),  # nor does the full one: stock would fail, too
    ],
)
def test_halves_that_do_not_fit(detector_config, resolution, divisor, refused):
    config = detector(detector_config, resolution, divisor)
    if refused is None:
        MODELS.build(config)
        return
    with pytest.raises(ConfigError) as error:
        MODELS.build(config)
    message = str(error.value)
    assert f'does not run at resolution {refused} of' in message
    assert 'pad_size_divisor' in message and '\n' not in message


def test_the_divisor_mends_it(detector_config, load_batch):
    """A step at the size that was refused."""
    model = MODELS.build(detector(detector_config, (64, 48), 32)).train()
    data = model.data_preprocessor(load_batch((0, 1)), True)
    for _ in range(4):
        total, _ = model.parse_losses(model.loss(*data.values()))
        assert torch.isfinite(total)


@pytest.mark.parametrize('resolution, fails', [(40, False), (20, True)])
def test_maps_that_vanish(classifier_config, resolution, fails):
    """No map is pooled that is smaller than the kernel."""
    config = classifier_config(dict(resolution=(64, resolution)))
    config['neck'] = dict(type='Shrink')
    if not fails:
        MODELS.build(config)
        return
    with pytest.raises(ConfigError, match='at resolution 20 .*is too small'):
        MODELS.build(config)


@MODELS.register_module(force=True)
class Shrink(nn.Module):
    """Without padding, and averages what is left."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2, 1)

    def forward(self, maps):
        return tuple(self.pool(x).mean((2, 3)) for x in maps)


def test_nothing_is_left_of_the_trial(build_classifier):
    model = build_classifier()
    assert model.training and model.slim_state.width == 1.0
    assert not any('forward' in vars(m) for m in model.modules())
    assert not any(p.is_meta for p in model.parameters())
