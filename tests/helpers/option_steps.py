"""One training step with an option, against separate narrow networks.

The reference is computed with the networks of plain_networks.py and losses
of plain PyTorch, in double precision.
"""

from collections import OrderedDict

import plain_networks as plain
import pytest
import torch
import torch.nn.functional as F
from torch import nn

CLASSES, RESOLUTIONS, FEATURES = 4, (32, 24, 16), 64
LINEAR = dict(type='LinearClsHead')
TAGS = ['full', 'min', 'rand1', 'rand2']
DROPPING = dict(
    type='StackedLinearClsHead',
    mid_channels=[24],
    dropout_rate=0.5,
    act_cfg=dict(type='HSwish'),
)


def images_of(number=6, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 3, size, size, generator=generator).double()


def samples_of(number=6):
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(i % CLASSES) for i in range(number)]


def label_loss(logits):
    labels = torch.arange(len(logits)) % CLASSES
    return F.cross_entropy(logits, labels)


def drawn():
    """Subnets of the first step of seed 2, none of full resolution."""
    return plain.drawn(0, (0.25, 1.0), RESOLUTIONS, seed=2)


def narrow(width):
    """WRN-10-1 of a width."""
    net = plain.wide_resnet(lambda c: plain.rounded(c * width), widen=1)
    fc = nn.Linear(plain.rounded(FEATURES * width), CLASSES)
    head = nn.Sequential(OrderedDict(fc=fc))
    return plain.classifier(net, head)


def assert_step(model, subnets, full_loss=label_loss, make=narrow, **how):
    """Compare one step of a model with separate networks.

    ``how`` is what :func:`~plain_networks.one_step` takes.
    """
    weights = how.get('weights', {})
    images, samples = images_of(), samples_of()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)  # of dropout
    losses, gradients, buffers = plain.one_step(
        make, state, images, subnets, full_loss, **how
    )
    torch.manual_seed(1)
    logged = model.loss(images, samples)
    shown = {k[:-6] for k in logged if k.endswith('/total')}
    assert shown == set(subnets) - {'full'}
    for tag in shown:  # without their weights
        found = logged[f'{tag}/total'].item()
        assert found == pytest.approx(losses[tag].item(), rel=1e-6), tag
    total, _ = model.parse_losses(logged)
    expected = sum(v * weights.get(k, 1) for k, v in losses.items())
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    total.backward()
    # Stock losses come in single precision, whatever the network has.
    floor = 1e-9 * max(g.norm() for g in gradients.values())
    for key, parameter in model.named_parameters():
        error = (parameter.grad - gradients[key]).norm()
        assert error <= 1e-6 * gradients[key].norm() + floor, key
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[key], msg=key)
