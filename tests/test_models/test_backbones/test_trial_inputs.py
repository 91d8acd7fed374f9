"""Networks of mmaction2 that one image, or a clip of 8 frames, does not suit.

They are tried on what they take, and what is said of them is true.
"""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.models import Slimmable
from mutualnet_mm.slimmable import active_width
from mutualnet_mm.slimmable.trial import trial_shapes

pytest.importorskip('mmaction')


@pytest.fixture
def build(enter_scope):
    enter_scope('mmaction')

    def make(name, **settings):
        return MODELS.build(
            dict(
                type='mutualnet_mm.Slimmable',
                wraps=f'mmaction.{name}',
                **settings,
            )
        )

    return make


def test_2d_layers_over_clips(build):
    """C2D pools over time after its first stage: an image has none."""
    network = build('C2D', depth=18, norm_eval=False)
    network.eval()
    clips = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad(), active_width(network, 0.5):
        narrow = network(clips)
    assert narrow.shape[:3] == (1, 256, 2)


class OneSize(BaseModule):
    """As C3D: 16 frames of 112 x 112 pixels, since it flattens its map."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv1 = nn.Conv3d(3, 16, 3, (4, 16, 16), 1)
        self.fc6 = nn.Linear(16 * 4 * 7 * 7, 8)

    def forward(self, x):
        return self.fc6(self.conv1(x).relu().flatten(1))


def test_a_network_of_one_size():
    """Of the two that are tried, 112 and 128 pixels."""
    network = Slimmable(wraps=OneSize)
    assert network.slim_joints.input_shape == (1, 3, 16, 112, 112)
    clips = torch.randn(1, 3, 16, 112, 112)
    with torch.no_grad(), active_width(network, 0.5):
        hidden = network.conv1(clips).relu().flatten(1)
        # Half of the maps, each of which is flattened whole.
        weight = network.fc6.weight[:, : 8 * 4 * 7 * 7]
        expected = nn.functional.linear(hidden, weight, network.fc6.bias)
        torch.testing.assert_close(network(clips), expected)


def test_heads_behind_a_network_of_one_size(enter_scope):
    """They are tried at its size, and no larger clip fills the memory."""
    enter_scope('mmaction')
    sizes = []

    class Watched(OneSize):
        def forward(self, x):
            if not x.is_meta:
                sizes.append(x.shape[-1])
            return super().forward(x)[..., None, None, None]

    MODELS.module_dict['Watched'] = Watched
    try:
        model = MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='Recognizer3D',
                mutual=dict(
                    width_range=(0.5, 1.0), resolution=(112,), frames=(16,)
                ),
                backbone=dict(type='mutualnet_mm.Slimmable', wraps='Watched'),
                cls_head=dict(
                    type='I3DHead',
                    in_channels=8,
                    num_classes=4,
                    average_clips='prob',
                ),
                data_preprocessor=dict(
                    type='ActionDataPreprocessor', format_shape='NCTHW'
                ),
            )
        )
    finally:
        del MODELS.module_dict['Watched']
    assert model.space.full.resolution == 112
    assert set(sizes) <= {64, 112, 128}


class NoSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.ran = []
        self.conv = nn.Conv3d(3, 8, 1)

    def forward(self, x):
        if not x.is_meta:
            self.ran.append(x.shape[-1])
        return self.conv(x).view(3)


def test_sizes_that_do_not_run():
    """Large ones are tried on shapes alone: clips would fill the memory."""
    network = NoSize()
    with pytest.raises(ConfigError, match='does not run at full width'):
        trial_shapes('NoSize', network, size=8)
    assert set(network.ran) == {8, 16}


def test_frames_in_the_batch(build):
    """TSM takes eight of them, or several times as many."""
    network = build('ResNetTSM', depth=18, norm_eval=False)
    assert network.slim_joints.input_shape[:2] == (8, 3)
    network.eval()
    with torch.no_grad(), active_width(network, 0.5):
        assert network(torch.randn(16, 3, 32, 32)).shape[:2] == (16, 256)
