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
    with pytest.raises(ConfigError) as error:
        Slimmable(wraps=OneSize)
    message = str(error.value)
    assert 'layer "fc6"' in message and '3 x 16 x 128 x 128' in message


def test_frames_in_the_batch(build):
    """TSM takes eight of them, or several times as many."""
    network = build('ResNetTSM', depth=18, norm_eval=False)
    assert network.slim_joints.input_shape[:2] == (8, 3)
    network.eval()
    with torch.no_grad(), active_width(network, 0.5):
        assert network(torch.randn(16, 3, 32, 32)).shape[:2] == (16, 256)
