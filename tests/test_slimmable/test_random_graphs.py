"""Random small networks: right at every width, or refused.

A reference runs the same graph by hand: each convolution and batch norm with
the leading part of its tensors, of as many channels as the published rule
says, and with the columns of the channels that come in. Nothing of the
package's layers is used there.
"""

from random import Random

import pytest
import torch
import torch.nn.functional as F
from plain_networks import rounded
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    verify_slicing,
)


class Graph(nn.Module):
    """Nodes are ``(operation, numbers of the nodes it reads, channels)``.

    Node 0 is the image; the last one is the output.
    """

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        self.convs, self.norms = nn.ModuleDict(), nn.ModuleDict()
        for i, (operation, sources, channels) in enumerate(nodes):
            if operation not in ('conv', 'depthwise', 'head'):
                continue
            inputs = nodes[sources[0]][2]
            groups = inputs if operation == 'depthwise' else 1
            self.convs[str(i)] = nn.Conv2d(
                inputs, channels, 3, padding=1, groups=groups
            )
            if operation != 'head':
                norm = nn.BatchNorm2d(channels)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias)
                nn.init.normal_(norm.running_mean)
                nn.init.uniform_(norm.running_var, 0.5, 1.5)
                self.norms[str(i)] = norm

    def forward(self, image):
        return run(self.nodes, image, self.layer)

    def layer(self, number, x):
        x = self.convs[number](x)
        return F.relu(self.norms[number](x)) if number in self.norms else x


def run(nodes, image, layer):
    values = []
    for i, (operation, sources, _) in enumerate(nodes):
        inputs = [values[source] for source in sources]
        if operation == 'image':
            value = image
        elif operation == 'add':
            value = inputs[0] + inputs[1]
        elif operation == 'pool':
            value = F.max_pool2d(inputs[0], 3, 1, 1)
        elif operation == 'concat':
            value = torch.cat(inputs, 1)
        elif operation == 'roll':
            value = inputs[0].roll(3, 1)
        else:
            value = layer(str(i), inputs[0])
        values.append(value)
    return values[-1]


class ByHand:
    """A value, and which channels of the full network's it has."""

    def __init__(self, value, channels):
        self.value, self.channels = value, channels

    def __add__(self, other):
        assert self.channels == other.channels
        return ByHand(self.value + other.value, self.channels)


def narrow_by_hand(net, image, width):
    def layer(number, x):
        conv = net.convs[number]
        operation, _, full = net.nodes[int(number)]
        if operation == 'depthwise':
            kept = x.channels
            weight = conv.weight[kept]
        else:
            out = full if operation == 'head' else rounded(full * width)
            kept = list(range(out))
            weight = conv.weight[kept][:, x.channels]
        groups = len(kept) if operation == 'depthwise' else 1
        value = F.conv2d(
            x.value, weight, conv.bias[kept], padding=1, groups=groups
        )
        if operation != 'head':
            norm = net.norms[number]
            value = F.relu(
                F.batch_norm(
                    value,
                    norm.running_mean[kept],
                    norm.running_var[kept],
                    norm.weight[kept],
                    norm.bias[kept],
                    eps=norm.eps,
                )
            )
        return ByHand(value, kept)

    values = []
    for i, (operation, sources, _) in enumerate(net.nodes):
        inputs = [values[source] for source in sources]
        if operation == 'image':
            value = ByHand(image, list(range(image.shape[1])))
        elif operation == 'add':
            value = inputs[0] + inputs[1]
        elif operation == 'pool':
            pooled = F.max_pool2d(inputs[0].value, 3, 1, 1)
            value = ByHand(pooled, inputs[0].channels)
        elif operation == 'concat':
            first = net.nodes[sources[0]][2]
            value = ByHand(
                torch.cat([part.value for part in inputs], 1),
                inputs[0].channels + [first + c for c in inputs[1].channels],
            )
        else:
            value = layer(str(i), inputs[0])
        values.append(value)
    return values[-1].value


def random_nodes(seed, mixing=None):
    """A graph all of whose nodes are needed, with one that mixes channels."""
    random = Random(seed)
    nodes = [('image', (), 3), ('conv', (0,), 32)]
    at = random.randint(2, 6) if mixing else None
    joined = set()  # what a concatenation and a convolution make differs
    while len(nodes) < 8:
        last = len(nodes) - 1
        channels = nodes[last][2]
        if len(nodes) == at:
            if mixing == 'concat':
                other = random.randint(1, last)
                channels += nodes[other][2]
                nodes.append(('concat', (last, other), channels))
                joined.add(len(nodes) - 1)
            else:
                nodes.append(('roll', (last,), channels))
            continue
        operation = random.choice(['conv', 'depthwise', 'pool', 'add'])
        same = [
            i
            for i in range(1, last)
            if nodes[i][2] == channels and (i in joined) == (last in joined)
        ]
        if operation == 'add' and same:
            nodes.append(('add', (last, random.choice(same)), channels))
            joined |= {last + 1} if last in joined else set()
        elif operation in ('depthwise', 'pool'):
            nodes.append((operation, (last,), channels))
            joined |= {last + 1} if last in joined else set()
        else:
            nodes.append(('conv', (last,), random.choice([16, 32, 48])))
    if random.random() < 0.5:  # a head of as many outputs at any width
        nodes.append(('head', (len(nodes) - 1,), 5))
    return nodes


def slim_graph(nodes):
    net = Graph(nodes).double().eval()
    last = str(len(nodes) - 1)
    head = nodes[-1][0] == 'head'
    rules = {f'convs.{last}': LayerRule(fixed=True)} if head else None
    convert(net, SlimState(), rules)
    return net


@pytest.mark.parametrize('mixing', [None, 'concat'])
@pytest.mark.parametrize('seed', range(12))
def test_right_at_every_width(seed, mixing):
    net = slim_graph(random_nodes(seed, mixing))
    verify_slicing(net)
    image = torch.randn(2, 3, 9, 7, dtype=torch.double)
    for width in (1.0, 0.77, 0.5, 0.2):
        with torch.no_grad(), active_width(net, width):
            found = net(image)
        with torch.no_grad():
            expected = narrow_by_hand(net, image, width)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('seed', range(6))
def test_mixed_channels_are_refused(seed):
    with pytest.raises(ConfigError, match='Graph cannot be slimmed'):
        verify_slicing(slim_graph(random_nodes(seed, 'roll')))
