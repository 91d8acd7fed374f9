"""Networks in plain PyTorch, and a training step of the paper with them.

Nothing of the package is used here. Layers bear the stock names, so that
tensors can be copied and gradients compared by name.
"""

from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def rounded(value):
    """The published rule: to a multiple of 8, not below 90 %."""
    result = max(8, int(value + 4) // 8 * 8)
    return result + 8 if result < 0.9 * value else result


class Stages(nn.Sequential):
    """Returns what every child gives, not the last one's alone."""

    def forward(self, x):
        outputs = []
        for layer in self:
            x = layer(x)
            outputs.append(x)
        return outputs


def unit(inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU6, eps=1e-5):
    """Convolution, batch norm and activation, as mmcv's ConvModule."""
    conv = nn.Conv2d(
        inputs, outputs, kernel, stride, kernel // 2, 1, groups, bias=False
    )
    layers = OrderedDict(conv=conv, bn=nn.BatchNorm2d(outputs, eps=eps))
    if act is not None:
        layers['activate'] = act()
    return nn.Sequential(layers)


def mobilenet_v1(narrow, depth=1.0):
    """Table 1 of Howard et al. (2017); ``narrow`` maps its channels."""
    channels = narrow(32)
    stages = OrderedDict(conv1=unit(3, channels, 3, 2))
    table = [(64, 1), (128, 2), (256, 2), (512, 6), (1024, 2)]
    for i, (base, number) in enumerate(table):
        blocks = []
        for j in range(int(np.ceil(number * depth))):
            stride = 2 if i > 0 and j == 0 else 1
            parts = OrderedDict(
                depthwise_conv=unit(channels, channels, 3, stride, channels),
                pointwise_conv=unit(channels, narrow(base), 1),
            )
            blocks.append(nn.Sequential(parts))
            channels = narrow(base)
        stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
    return Stages(stages)


class Inverted(nn.Module):
    """Bottleneck of MobileNetV2: expand, depthwise, project."""

    def __init__(self, inputs, hidden, outputs, stride, residual, expand):
        super().__init__()
        parts = [unit(inputs, hidden, 1)] if expand else []
        self.conv = nn.Sequential(
            *parts,
            unit(hidden, hidden, 3, stride, hidden),
            unit(hidden, outputs, 1, act=None),
        )
        self.residual = residual

    def forward(self, x):
        return self.conv(x) + x if self.residual else self.conv(x)


def mobilenet_v2(narrow, hidden=None):
    """Table 2 of Sandler et al. (2018).

    ``hidden`` maps a block's input channels, as in the table, to the inner
    ones: 6 times the rounded input. The last layer stays whole. Whether a
    block is residual is decided by the table: two widths that round to the
    same number make no new shortcut.
    """
    hidden = hidden or (lambda channels: 6 * narrow(channels))
    stages = OrderedDict(conv1=unit(3, narrow(32), 3, 2))
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    table += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    inputs = 32
    for i, (expand, outputs, number, stride) in enumerate(table):
        blocks = []
        for j in range(number):
            inner = narrow(inputs) if expand == 1 else hidden(inputs)
            blocks.append(
                Inverted(
                    narrow(inputs),
                    inner,
                    narrow(outputs),
                    stride if j == 0 else 1,
                    residual=j > 0,
                    expand=expand > 1,
                )
            )
            inputs = outputs
        stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
    stages['conv2'] = unit(narrow(320), 1280, 1)
    return Stages(stages)


class PreActivated(nn.Module):
    """Basic block of Zagoruyko and Komodakis (2016)."""

    def __init__(self, inputs, outputs, stride, shortcut, drop):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(drop)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if shortcut:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        out = self.bn1(x).relu()
        if self.shortcut is not None:
            x = self.shortcut(out)
        out = self.dropout(self.bn2(self.conv1(out)).relu())
        return x + self.conv2(out)


def wide_resnet(narrow, depth=10, widen=2, drop=0.0):
    """WRN-depth-widen; ``narrow`` maps the channels of its groups."""
    inputs = 16
    stages = OrderedDict(conv1=nn.Conv2d(3, narrow(16), 3, 1, 1, bias=False))
    for i in range(3):
        blocks, outputs = [], 16 * 2**i * widen
        for j in range((depth - 4) // 6):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(
                PreActivated(
                    narrow(inputs),
                    narrow(outputs),
                    stride,
                    inputs != outputs,
                    drop,
                )
            )
            inputs = outputs
        stages[f'layer{i + 1}'] = nn.Sequential(*blocks)
    stages.update(norm=nn.BatchNorm2d(narrow(inputs)), relu=nn.ReLU())
    return Stages(stages)


def slices_of(tensor):
    return tuple(slice(size) for size in tensor.shape)


def fill(narrow, state):
    """Copy the leading part of every tensor of the full network."""
    own = narrow.state_dict()
    assert own.keys() == state.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name][slices_of(tensor)])
    return narrow


def randomise(net):
    """Weights and statistics that differ from channel to channel."""
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for tensor in (layer.weight, layer.bias, layer.running_var):
                nn.init.uniform_(tensor, 0.3, 1.0)
            nn.init.normal_(layer.running_mean, std=0.3)
        elif isinstance(layer, nn.Linear):  # predictions to learn from
            nn.init.normal_(layer.weight, std=0.5)
    return net


def classifier(backbone, head):
    """Global average pooling and ``head`` behind the last map."""

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = backbone, head

        def forward(self, x):
            return self.head(self.backbone(x)[-1].mean((2, 3)))

    return Classifier()


def linear_head(inputs, classes):
    return nn.Sequential(OrderedDict(fc=nn.Linear(inputs, classes)))


def divergence(logits, teacher):
    """KL(softmax(teacher) || softmax(logits)), mean over the images."""
    target = teacher.softmax(1)
    return (target * (target.log() - logits.log_softmax(1))).sum(1).mean()


def drawn(iteration, widths, resolutions, shared=False, seed=0):
    """Subnets of a step as (width, resolution), by the documented rule."""
    rng = np.random.default_rng((seed, iteration))
    low, high = widths
    if shared:
        size = int(rng.choice(resolutions))
    chosen = dict(min=low, rand1=rng.uniform(low, high))
    chosen['rand2'] = rng.uniform(low, high)
    subnets = dict(full=(high, size if shared else resolutions[0]))
    for tag, width in chosen.items():
        subnets[tag] = (width, size if shared else rng.choice(resolutions))
    return subnets


def one_step(
    build,
    state,
    images,
    subnets,
    full_loss,
    sub_loss=divergence,
    weights=None,
    teacher=None,
    chained=False,
):
    """Losses and gradients of a step (Eq. 5), with separate networks.

    ``build(width)`` makes the narrow classifier that gets the leading slices
    of ``state``; ``full_loss(logits)`` and ``sub_loss(logits, teacher)`` are
    the losses. The narrow networks' gradients are added up where their
    weights came from, times ``weights`` by tag. The teacher is the full
    network, or given logits, or with ``chained`` the network before. Also
    returns the full network's buffers afterwards.
    """
    gradients = {name: torch.zeros_like(v) for name, v in state.items()}
    losses = {}
    for tag, (width, size) in subnets.items():
        with torch.random.fork_rng(devices=[]):  # dropout draws the same
            net = fill(build(width).to(images.dtype), state).train()
        x = images
        if size != images.shape[-1]:
            sides = (int(size), int(size))  # no integers of numpy
            x = F.interpolate(x, sides, mode='bilinear', antialias=True)
        logits = net(x)
        if tag == 'full':
            loss = full_loss(logits)
            buffers = dict(net.named_buffers())
        else:
            loss = sub_loss(logits, teacher)
        if chained or teacher is None:
            teacher = logits.detach()
        loss.backward()
        losses[tag] = loss.detach()
        for name, parameter in net.named_parameters():
            gradients[name][slices_of(parameter)] += parameter.grad * (
                weights or {}
            ).get(tag, 1)
    names = [name for name, _ in net.named_parameters()]
    return losses, {name: gradients[name] for name in names}, buffers


def unit3d(inputs, outputs, kernel, stride=1, groups=1, act=nn.ReLU):
    """Convolution, batch norm and activation, as :func:`unit`."""
    padding = tuple(k // 2 for k in kernel)
    layers = OrderedDict(
        conv=nn.Conv3d(
            inputs, outputs, kernel, stride, padding, 1, groups, bias=False
        ),
        bn=nn.BatchNorm3d(outputs),
    )
    if act is not None:
        layers['activate'] = act()
    return nn.Sequential(layers)


class Residual3d(nn.Module):
    """Two or three convolutions and, where ``project``, one beside them."""

    def __init__(self, channels, kernels, stride, project):
        super().__init__()
        self.number = len(kernels)
        for i, kernel in enumerate(kernels):
            # The 3 x 3 kernel strides: the first of two, the second of three.
            step = (1, stride, stride) if i == self.number - 2 else 1
            act = nn.ReLU if i < self.number - 1 else None
            layer = unit3d(channels[i], channels[i + 1], kernel, step, act=act)
            self.add_module(f'conv{i + 1}', layer)
        self.downsample = None
        if project:
            self.downsample = unit3d(
                channels[0],
                channels[-1],
                (1, 1, 1),
                (1, stride, stride),
                act=None,
            )

    def forward(self, x):
        out = x
        for i in range(self.number):
            out = getattr(self, f'conv{i + 1}')(out)
        return (out + (self.downsample or nn.Identity())(x)).relu()


def resnet3d(
    narrow,
    base=16,
    blocks=(2, 1, 1, 1),
    inflate=(0, 0, 1, 1),
    stem=(1, 7, 7),
    time_stride=1,
    inner_inflated=False,
    bottleneck=True,
    pool2=False,
    tails=(0, 0, 0, 0),
):
    """Slow, I3D or a branch of SlowFast.

    ``narrow`` maps channels; the stem and the inner layers of bottlenecks
    are a quarter of a rounded number. ``inflate`` says, by stage or block,
    where kernels span three frames: the first one of a bottleneck, or the
    ``inner`` one. ``tails`` are the channels that each stage gets beside
    those of the stage before.
    """
    ratio = 4 if bottleneck else 1
    channels = narrow(ratio * base) // ratio
    stages = OrderedDict(
        conv1=unit3d(3, channels, stem, (time_stride, 2, 2)),
        maxpool=nn.MaxPool3d((1, 3, 3), (time_stride, 2, 2), (0, 1, 1)),
    )
    full = base
    for i, number in enumerate(blocks):
        inflated = inflate[i]
        if isinstance(inflated, int):
            inflated = (inflated,) * number
        outer = ratio * base * 2**i
        layers = []
        for j in range(number):
            time = 3 if inflated[j] else 1
            kernels = [(time, 3, 3), (time, 3, 3)]
            inner = [narrow(outer)]
            if bottleneck:
                first, second = (1, time) if inner_inflated else (time, 1)
                kernels = [(first, 1, 1), (second, 3, 3), (1, 1, 1)]
                inner = [narrow(outer) // 4] * 2
            tail = tails[i] if j == 0 else 0
            layers.append(
                Residual3d(
                    [channels + tail, *inner, narrow(outer)],
                    kernels,
                    2 if i > 0 and j == 0 else 1,
                    j == 0 and (i > 0 or full + tail != outer),
                )
            )
            channels, full = narrow(outer), outer
        stages[f'layer{i + 1}'] = nn.Sequential(*layers)
        if i == 0 and pool2:
            stages['pool2'] = nn.MaxPool3d((2, 1, 1), (2, 1, 1))
    return Stages(stages)


class SqueezedBlock(nn.Module):
    """Block of X3D (Feichtenhofer, 2020), every second one with an SE."""

    def __init__(self, inputs, inner, outputs, squeezed, stride, project):
        super().__init__()
        step = (1, stride, stride)
        self.conv1 = unit3d(inputs, inner, (1, 1, 1))
        self.conv2 = unit3d(inner, inner, (3, 3, 3), step, inner, None)
        self.conv3 = unit3d(inner, outputs, (1, 1, 1), act=None)
        self.downsample = self.se_module = None
        if project:
            self.downsample = unit3d(inputs, outputs, (1, 1, 1), step, 1, None)
        if squeezed:
            parts = OrderedDict(
                fc1=nn.Conv3d(inner, squeezed, 1),
                relu=nn.ReLU(),
                fc2=nn.Conv3d(squeezed, inner, 1),
            )
            self.se_module = nn.Sequential(parts)

    def forward(self, x):
        out = self.conv2(self.conv1(x))
        if self.se_module is not None:
            mean = out.mean((2, 3, 4), keepdim=True)
            out = out * self.se_module(mean).sigmoid()
        out = self.conv3(out * out.sigmoid())
        return (out + (self.downsample or nn.Identity())(x)).relu()


def x3d(narrow, blocks=(1, 2, 5, 3)):
    """X3D of 24 channels and more, 2.25 times as many inside of blocks."""
    spatial = nn.Conv3d(
        3, narrow(24), (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False
    )
    stages = OrderedDict(
        conv1_s=nn.Sequential(OrderedDict(conv=spatial)),
        conv1_t=unit3d(narrow(24), narrow(24), (5, 1, 1), groups=narrow(24)),
    )
    inputs = 24
    for i, number in enumerate(blocks):
        layers, outputs, inner = [], 24 * 2**i, 54 * 2**i
        for j in range(number):
            squeezed = narrow(rounded(inner / 16)) if j % 2 == 0 else 0
            stride, project = (2, True) if j == 0 else (1, False)
            layers.append(
                SqueezedBlock(
                    narrow(inputs),
                    narrow(inner),
                    narrow(outputs),
                    squeezed,
                    stride,
                    project,
                )
            )
            inputs = outputs
        stages[f'layer{i + 1}'] = nn.Sequential(*layers)
    stages['conv5'] = unit3d(narrow(192), narrow(432), (1, 1, 1))
    return Stages(stages)


def shrink(clips, size, frames):
    """The middle frames of equal parts, each interpolated for itself."""
    total, kept = clips.shape[2], []
    for i in range(frames):
        frame = clips[:, :, (2 * i + 1) * total // (2 * frames)]
        if tuple(frame.shape[-2:]) != tuple(size):
            frame = F.interpolate(
                frame, tuple(size), mode='bilinear', antialias=True
            )
        kept.append(frame)
    return torch.stack(kept, 2)


class TwoBranches(nn.Module):
    """SlowFast with adaptive fusion, of two networks made before.

    The branches see every so many frames of a clip, as ``strides`` says; the
    Slow one then ``frames`` of those, their sides times ``scale``. Each of
    ``laterals`` has inputs, outputs and the step between slow frames.
    """

    def __init__(self, slow, fast, laterals, scale, frames, strides):
        super().__init__()
        self.slow_path, self.fast_path = slow, fast
        self.scale, self.frames, self.strides = scale, frames, strides
        self.names = ['conv1_lateral']
        self.names += [f'layer{i}_lateral' for i in range(1, len(laterals))]
        for name, (inputs, outputs, step) in zip(self.names, laterals):
            layer = nn.Conv3d(
                inputs, outputs, (5, 1, 1), (step, 1, 1), (2, 0, 0), bias=False
            )
            slow.add_module(name, nn.Sequential(OrderedDict(conv=layer)))

    def forward(self, x):
        slow, fast = self.slow_path, self.fast_path
        size = [round(side * self.scale) for side in x.shape[-2:]]
        x_slow = shrink(x[:, :, :: self.strides[0]], size, self.frames)
        x_slow = slow.maxpool(slow.conv1(x_slow))
        x_fast = fast.maxpool(fast.conv1(x[:, :, :: self.strides[1]]))
        for i, name in enumerate(self.names, 1):
            lateral = getattr(slow, name)(x_fast)
            lateral = shrink(lateral, x_slow.shape[-2:], self.frames)
            x_slow = torch.cat([x_slow, lateral], 1)
            x_slow = getattr(slow, f'layer{i}')(x_slow)
            x_fast = getattr(fast, f'layer{i}')(x_fast)
        return x_slow, x_fast


def place(full, part, tail=0):
    """Where ``part`` lies in ``full``: leading slices of every dimension.

    Of the columns, the last ``tail`` are the last ones of ``full``.
    """
    index = list(slices_of(part))
    if tail:
        end, last = part.shape[1] - tail, full.shape[1]
        index[1] = [*range(end), *range(last - tail, last)]
    return tuple(index)


def fill_fused(narrow, state, tails):
    """As :func:`fill`, with the ``tails`` of some tensors, by name."""
    own = narrow.state_dict()
    assert own.keys() == state.keys()
    with torch.no_grad():
        for name, tensor in own.items():
            index = place(state[name], tensor, tails.get(name, 0))
            tensor.copy_(state[name][index])
    return narrow
