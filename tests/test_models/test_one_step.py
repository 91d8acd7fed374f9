"""A training step equals Eq. 1 to 5, computed with separate networks.

The reference uses no slimmable layer: every subnet is a narrow network of
plain PyTorch that gets the leading slices of the weights, and its gradients
are added up where the weights came from.
"""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn

# More classes than 8, which a layer would keep at every width.
CLASSES, RESOLUTIONS, RATE = 20, (48, 40, 32), 0.05


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, outputs, stride, project):
        super().__init__()
        shapes = [(inputs, inner, 1, 1), (inner, inner, 3, stride)]
        shapes.append((inner, outputs, 1, 1))
        for i, (a, b, size, step) in enumerate(shapes, 1):
            conv = nn.Conv2d(a, b, size, step, size // 2, bias=False)
            self.add_module(f'conv{i}', conv)
            self.add_module(f'bn{i}', nn.BatchNorm2d(b))
        self.downsample = None
        if project:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn2(self.conv2(out)).relu()
        out = self.bn3(self.conv3(out))
        return (out + (self.downsample or nn.Identity())(x)).relu()


def resnet50(plain, width, base):
    """Inner layers, and the stem, are a quarter of a rounded number."""

    def outer(level):
        return plain.rounded(4 * base * 2**level * width)

    channels = outer(0) // 4
    stages = OrderedDict(
        conv1=nn.Conv2d(3, channels, 7, 2, 3, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
        pool=nn.MaxPool2d(3, 2, 1),
    )
    for i, number in enumerate((3, 4, 6, 3)):
        blocks = []
        for j in range(number):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(
                Bottleneck(channels, outer(i) // 4, outer(i), stride, j == 0)
            )
            channels = outer(i)
        stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
    return plain.Stages(stages)


# Backbone, features at full width, plain backbone at a width.
CASES = {
    'mobilenet-v1': (
        dict(type='SlimmableMobileNetV1', widen_factor=0.5),
        512,
        lambda plain, w: plain.mobilenet_v1(
            lambda c: plain.rounded(c // 2 * w)
        ),
    ),
    'mobilenet-v1-scaled-up': (  # widths are relative to a quarter
        dict(type='SlimmableMobileNetV1', widen_factor=0.5, max_width=2.0),
        512,
        lambda plain, w: plain.mobilenet_v1(
            lambda c: plain.rounded(c / 4 * w)
        ),
    ),
    'mobilenet-v2': (
        dict(type='SlimmableMobileNetV2'),
        1280,
        lambda plain, w: plain.mobilenet_v2(lambda c: plain.rounded(c * w)),
    ),
    'resnet-50': (
        dict(
            type='SlimmableResNet',
            depth=50,
            stem_channels=16,
            base_channels=16,
        ),
        512,
        lambda plain, w: resnet50(plain, w, 16),
    ),
    'wrn-10-2': (
        dict(type='SlimmableWideResNet', depth=10, widen_factor=2),
        128,
        lambda plain, w: plain.wide_resnet(lambda c: plain.rounded(c * w)),
    ),
}


@pytest.fixture
def setup(enter_scope, plain):
    """Return our model, and how to build the narrow ones."""

    def make(case, **mutual):
        enter_scope('mmpretrain')
        backbone, features, narrow = CASES[case]
        model = MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='ImageClassifier',
                mutual=dict(
                    dict(resolution=RESOLUTIONS),
                    **mutual,
                ),
                backbone=dict(
                    backbone, type=f'mutualnet_mm.{backbone["type"]}'
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead',
                    num_classes=CLASSES,
                    in_channels=features,
                ),
            )
        )

        def build(width):
            net = narrow(plain, width)
            inputs = [p.shape[0] for p in net.parameters()][-1]
            return plain.classifier(net, plain.linear_head(inputs, CLASSES))

        return plain.randomise(model).double().train(), build

    return make


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    # What the next batch norm undoes has no gradient but rounding errors.
    floor = 1e-12 * max(v.double().norm() for v in expected.values())
    for name, value in found.items():
        wanted = expected[name].double()
        error = (value - wanted).norm()
        assert error <= 1e-9 * wanted.norm() + floor, name


@pytest.mark.sweep(3)
@pytest.mark.parametrize(
    'case, settings',
    [
        ('mobilenet-v1', dict()),
        ('mobilenet-v2', dict()),
        ('resnet-50', dict()),
        ('wrn-10-2', dict()),
        ('wrn-10-2', dict(seed=3)),
        ('mobilenet-v1', dict(supervision='label')),
        ('wrn-10-2', dict(supervision='label')),
        ('wrn-10-2', dict(resolution_mode='shared', seed=2)),
        ('mobilenet-v1-scaled-up', dict(width_range=(1.0, 2.0))),
    ],
    ids=lambda value: value if isinstance(value, str) else '-'.join(value),
)
def test_two_steps_of_training(setup, image_batch, plain, case, settings):
    """The losses, every gradient, the weights and the statistics."""
    model, build = setup(case, **settings)
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    labels, seen = torch.arange(4), set()

    def label_loss(logits, teacher=None):
        return F.cross_entropy(logits, labels)

    for iteration in range(2):
        images, samples = image_batch(4, RESOLUTIONS[0], seed=iteration)
        images = images.double()
        subnets = plain.drawn(
            iteration,
            settings.get('width_range', (0.25, 1.0)),
            RESOLUTIONS,
            shared=settings.get('resolution_mode') == 'shared',
            seed=settings.get('seed', 0),
        )
        seen.update(size for _, size in subnets.values())
        is_kl = settings.get('supervision') != 'label'
        losses, gradients, buffers = plain.one_step(
            build,
            state,
            images,
            subnets,
            label_loss,
            plain.divergence if is_kl else label_loss,
        )
        logged = model.loss(images, samples)
        named = {f'{tag}/total': loss for tag, loss in losses.items()}
        named['full/loss'] = named.pop('full/total')
        # Eq. 5: losses are summed, and the log says of which.
        named['loss_mutual'] = sum(losses.values()) - losses['full']
        assert logged.keys() == named.keys()
        for key, value in named.items():
            assert logged[key].item() == pytest.approx(value.item(), 1e-9)
        optimizer.zero_grad()
        total, shown = model.parse_losses(logged)
        assert shown['loss'] is total  # what the log shows
        total.backward()
        assert total.item() == pytest.approx(sum(losses.values()).item(), 1e-9)
        assert_same(
            {n: p.grad for n, p in model.named_parameters()}, gradients
        )
        optimizer.step()
        for name, gradient in gradients.items():
            state[name] -= RATE * gradient
        # Statistics move by what the full network's pass alone saw.
        state.update(buffers)
        assert_same(model.state_dict(), state)
    assert len(seen) > 1  # else resizing was not tried
    assert min(losses.values()) > 1e-3  # nor the losses of the subnets
