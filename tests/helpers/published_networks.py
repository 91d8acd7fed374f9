"""The networks of the published code in plain PyTorch, with its names.

Written from its description: a layer has a base number of channels and keeps,
at width ``w``, ``round(base * w / ratio) * ratio`` leading ones; batch norms
share weight and bias, and hold statistics for each listed width. Nothing of
the package is used here.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Width:
    """The active width of a network, and what it is built for."""

    def __init__(self, listed, top, divisor):
        self.now = self.top = top
        self.listed, self.divisor = list(listed), divisor

    def channels(self, base, ratio, width=None):
        value = base * (self.now if width is None else width) / ratio
        result = int(value + self.divisor / 2) // self.divisor * self.divisor
        result = max(1, result)
        if result < 0.9 * value:
            result += self.divisor
        return int(result * ratio)


class Conv(nn.Conv2d):
    """Keeps leading channels of the sides that follow the width."""

    def __init__(
        self,
        width,
        inputs,
        outputs,
        kernel,
        stride=1,
        depthwise=False,
        follows=(True, True),
        ratios=(1, 1),
    ):
        self.sides = list(zip((inputs, outputs), follows, ratios))
        top = [
            width.channels(base, ratio, width.top) if follow else base
            for base, follow, ratio in self.sides
        ]
        groups = top[0] if depthwise else 1
        super().__init__(
            *top, kernel, stride, kernel // 2, groups=groups, bias=False
        )
        self.width, self.depthwise = width, depthwise

    def forward(self, x):
        inputs, outputs = (
            self.width.channels(base, ratio) if follow else base
            for base, follow, ratio in self.sides
        )
        weight = self.weight[:outputs, :inputs]
        groups = inputs if self.depthwise else 1
        return F.conv2d(x, weight, None, self.stride, self.padding, 1, groups)


class Norm(nn.BatchNorm2d):
    """Statistics by listed width; elsewhere those of the batch."""

    def __init__(self, width, base, ratio=1):
        top = width.channels(base, ratio, width.top)
        super().__init__(top, track_running_stats=False)
        self.width, self.base, self.ratio = width, base, ratio
        self.bn = nn.ModuleList(
            nn.BatchNorm2d(width.channels(base, ratio, w), affine=False)
            for w in width.listed
        )

    def forward(self, x):
        kept, now = self.width.channels(self.base, self.ratio), self.width.now
        mean = var = None
        if now in self.width.listed:
            own = self.bn[self.width.listed.index(now)]
            mean, var = own.running_mean[:kept], own.running_var[:kept]
        return F.batch_norm(
            x,
            mean,
            var,
            self.weight[:kept],
            self.bias[:kept],
            self.training or mean is None,
            self.momentum,
            self.eps,
        )


class Linear(nn.Linear):
    """Keeps leading inputs."""

    def __init__(self, width, inputs, classes):
        super().__init__(width.channels(inputs, 1, width.top), classes)
        self.width, self.base = width, inputs

    def forward(self, x):
        kept = self.width.channels(self.base, 1)
        return F.linear(x, self.weight[:, :kept], self.bias)


class Residual(nn.Module):
    """``body`` beside the input or a ``shortcut``."""

    def __init__(self, body, identity=False, shortcut=None, act=False):
        super().__init__()
        self.body, self.identity, self.act = body, identity, act
        if shortcut is not None:
            self.shortcut = shortcut

    def forward(self, x):
        out = self.body(x)
        if hasattr(self, 'shortcut'):
            out = out + self.shortcut(x)
        elif self.identity:
            out = out + x
        return F.relu(out) if self.act else out


class Network(nn.Module):
    """Layers, global pooling and a classifier.

    Args:
        listed: Widths that the batch norms keep statistics of.
        top: Width that is built.
        classes: Number of classes.
        divisor: Of the channels.
        **options: Of the kind of network.
    """

    def __init__(
        self, listed=(0.25, 1.0), top=1.0, classes=10, divisor=8, **options
    ):
        super().__init__()
        self.width = Width(listed, top, divisor)
        layers, classifier = self.build(classes, **options)
        layers.append(nn.AdaptiveAvgPool2d(1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(classifier)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))

    def at(self, width):
        self.width.now = width
        return self

    def unit(self, inputs, outputs, kernel, act, ratio=1, **settings):
        return [
            Conv(self.width, inputs, outputs, kernel, **settings),
            Norm(self.width, outputs, ratio),
            *([act()] if act else []),
        ]


class MobileNetV1(Network):
    def build(self, classes, act=nn.ReLU6):
        stem = self.unit(3, 32, 3, act, stride=2, follows=(False, True))
        layers, inputs = [nn.Sequential(*stem)], 32
        table = [(64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2)]
        for outputs, number, stride in [*table, (1024, 2, 2)]:
            for i in range(number):
                step = stride if i == 0 else 1
                body = self.unit(
                    inputs, inputs, 3, act, stride=step, depthwise=True
                )
                body += self.unit(inputs, outputs, 1, act)
                layers.append(Residual(nn.Sequential(*body)))
                inputs = outputs
        return layers, Linear(self.width, inputs, classes)


class MobileNetV2(Network):
    def build(self, classes, act=nn.ReLU6):
        stem = self.unit(3, 32, 3, act, stride=2, follows=(False, True))
        layers, inputs = [nn.Sequential(*stem)], 32
        table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
        table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
        for t, outputs, number, stride in table:
            for i in range(number):
                step, hidden, body = stride if i == 0 else 1, t * inputs, []
                if t > 1:
                    body += self.unit(
                        inputs, hidden, 1, act, ratio=t, ratios=(1, t)
                    )
                body += self.unit(
                    *(hidden, hidden, 3, act),
                    ratio=t,
                    ratios=(t, t),
                    stride=step,
                    depthwise=True,
                )
                body += self.unit(hidden, outputs, 1, None, ratios=(t, 1))
                keeps = step == 1 and inputs == outputs
                layers.append(Residual(nn.Sequential(*body), keeps))
                inputs = outputs
        last = Conv(self.width, inputs, 1280, 1, follows=(True, False))
        layers.append(nn.Sequential(last, nn.BatchNorm2d(1280), act()))
        return layers, nn.Linear(1280, classes)


class ResNet(Network):
    def build(self, classes, blocks=(3, 4, 6, 3), act=nn.ReLU):
        stem = self.unit(
            *(3, 64, 7, act, 0.25),
            stride=2,
            follows=(False, True),
            ratios=(1, 0.25),
        )
        layers = [nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))]
        inputs, first = 64, 0.25
        for stage, number in enumerate(blocks):
            outputs = 256 * 2**stage
            for i in range(number):
                stride = 2 if i == 0 and stage > 0 else 1
                mid = outputs // 4
                body = self.unit(
                    *(inputs, mid, 1, act, 0.25), ratios=(first, 0.25)
                )
                body += self.unit(
                    *(mid, mid, 3, act, 0.25),
                    ratios=(0.25, 0.25),
                    stride=stride,
                )
                body += self.unit(mid, outputs, 1, None, ratios=(0.25, 1))
                shortcut = None
                if i == 0:
                    shortcut = nn.Sequential(
                        *self.unit(
                            *(inputs, outputs, 1, None),
                            ratios=(first, 1),
                            stride=stride,
                        )
                    )
                layers.append(
                    Residual(nn.Sequential(*body), True, shortcut, act=True)
                )
                inputs, first = outputs, 1
        return layers, Linear(self.width, inputs, classes)


class PreActivated(nn.Module):
    """Two convolutions, each after batch norm and ReLU."""

    def __init__(self, width, inputs, outputs, stride):
        super().__init__()
        self.bn1 = Norm(width, inputs)
        self.conv1 = Conv(width, inputs, outputs, 3, stride)
        self.bn2 = Norm(width, outputs)
        self.conv2 = Conv(width, outputs, outputs, 3)
        if inputs != outputs:
            self.convShortcut = Conv(width, inputs, outputs, 1, stride)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        if hasattr(self, 'convShortcut'):
            x = self.convShortcut(out)
        return x + self.conv2(F.relu(self.bn2(self.conv1(out))))


class Group(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-depth-widen."""

    def __init__(
        self, listed=(0.9, 1.0), classes=10, depth=10, widen=2, divisor=8
    ):
        super().__init__()
        self.width = Width(listed, 1.0, divisor)
        self.conv1 = Conv(self.width, 3, 16, 3, follows=(False, True))
        inputs = 16
        for i in range(3):
            blocks, outputs = [], 16 * 2**i * widen
            for j in range((depth - 4) // 6):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    PreActivated(self.width, inputs, outputs, stride)
                )
                inputs = outputs
            self.add_module(f'block{i + 1}', Group(*blocks))
        self.bn1 = Norm(self.width, inputs)
        self.fc = Linear(self.width, inputs, classes)

    at = Network.at

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.adaptive_avg_pool2d(F.relu(self.bn1(x)), 1)
        return self.fc(x.flatten(1))


def randomise(net, seed=0):
    """Weights and statistics that differ from channel to channel."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.normal_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, std=0.3)
            if layer.track_running_stats:
                nn.init.normal_(layer.running_mean, std=0.3)
                nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return net.eval()


def reset_statistics(net, kept=()):
    """As the published code leaves those of all widths but the last."""
    for layer in net.modules():
        if isinstance(layer, Norm):
            for width, own in zip(layer.width.listed, layer.bn):
                if width not in kept:
                    own.reset_running_stats()


def save(net, path, prefix='module.', **more):
    """Write a file as the published training script does."""
    weights = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save(dict(model=weights, **more) if more else weights, path)
