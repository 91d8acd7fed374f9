"""Rotary positions, which their layer makes anew for each size."""

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS

from mutualnet_mm.models.sized_buffers import layers_with_buffers, same_buffers

pytest.importorskip('mmpretrain')
NAME = 'backbone.rope.freqs_cos'


@pytest.fixture
def build(enter_scope):
    enter_scope('mmpretrain')

    def make(**mutual):
        torch.manual_seed(0)
        arch = dict(
            num_layers=1,
            embed_dims=48,
            num_heads=3,
            feedforward_channels=96,
        )
        return MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='ImageClassifier',
                backbone=dict(
                    type='mutualnet_mm.Slimmable',
                    wraps='ViTEVA02',
                    arch=arch,
                    img_size=56,
                    patch_size=14,
                    sub_ln=True,
                    final_norm=False,
                    out_type='avg_featmap',
                ),
                head=dict(type='LinearClsHead', num_classes=5, in_channels=48),
                mutual=dict(
                    width_range=(0.5, 1.0),
                    resolution=(56, 42, 28),
                    num_random=1,
                    **mutual,
                ),
            )
        )

    return make


@pytest.mark.parametrize('mode', ['independent', 'shared'])
def test_checkpoints_have_those_of_the_full_size(build, mode):
    """A file of another size would not fit the network as it is built."""
    from mmpretrain.structures import DataSample

    model = build(resolution_mode=mode).train()
    before = model.state_dict()[NAME].clone()
    images = torch.randn(2, 3, 56, 56)
    samples = [DataSample().set_gt_label(i) for i in range(2)]
    average = ExponentialMovingAverage(model, momentum=0.5)
    for _ in range(3):
        total, _ = model.parse_losses(model.loss(images, samples))
        total.backward()
        assert torch.equal(model.state_dict()[NAME], before)
        average.update_parameters(model)  # MMEngine's, which compares shapes
    build().load_state_dict(model.state_dict(), strict=True)


def test_a_subnet_sees_those_of_its_size(build):
    """As a network that was built for it."""
    model = build().eval()
    images = torch.randn(1, 3, 28, 28)
    with torch.no_grad(), model.activate('1.0x-28'):
        found = model(images)
        assert len(model.state_dict()[NAME]) == 4  # 2 x 2 patches
    assert len(model.state_dict()[NAME]) == 16
    with torch.no_grad(), model.activate('1.0x-28'):
        again = model(images)
    torch.testing.assert_close(again, found)
    whole = torch.randn(1, 3, 56, 56)
    with torch.no_grad():
        model(whole)
    assert len(model.state_dict()[NAME]) == 16


class Counter(torch.nn.Module):
    """Keeps a mean of what it sees, in a new tensor each time."""

    def __init__(self):
        super().__init__()
        self.register_buffer('mean', torch.zeros(2))
        self.register_buffer('late', None)
        self.seen, self.shape = 0, (2,)

    def forward(self, x):
        self.mean = (self.mean + x.mean()) / 2
        self.seen += 1


def test_what_a_layer_learns_stays():
    """Only buffers of another size are put back, and first ones."""
    layer = Counter()
    layers = layers_with_buffers(torch.nn.Sequential(layer))
    assert layers == [layer]
    with same_buffers(layers):
        layer(torch.ones(3))
    assert layer.mean.tolist() == [0.5, 0.5] and layer.seen == 1
    with same_buffers(layers):
        layer.late = torch.zeros(3)
    assert layer.late is None
    # As many numbers, of another height and width.
    with same_buffers(layers):
        layer.mean, layer.shape = torch.zeros(2), (1, 2)
    assert layer.mean.tolist() == [0.5, 0.5] and layer.shape == (2,)
