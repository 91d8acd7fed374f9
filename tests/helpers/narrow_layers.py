"""A slim layer beside a stock one of the narrow sizes, filled by hand."""

import copy
import pickle

import torch
from torch import nn
from torch.testing import assert_close

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    count_module_macs,
    count_module_params,
    make_static,
)
from mutualnet_mm.slimmable.channels import Piece

# Of 24 channels at half the width: 8 of 16, then all 8 of another layer.
JOINT = (
    Piece(16, 16, LayerRule(), 16),
    Piece(8, 8, LayerRule(fixed=True), 8),
)
LEADING = [*range(16)]
BEHIND_JOINT = [*range(8), *range(16, 24)]


class Case:
    """A kind of layer.

    ``make(inputs, outputs)`` builds it; ``shape(channels)`` is that of its
    input; where ``follows``, its output has the input's channels, else it has
    32 at full and 16 at half the width; ``run(layer, x)`` runs it.
    """

    def __init__(self, make, shape, follows=False, run=None):
        self.make, self.shape, self.follows = make, shape, follows
        self.run = run or (lambda layer, x: layer(x))

    def full(self):
        torch.manual_seed(0)
        layer = self.make(24, 24 if self.follows else 32)
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.is_floating_point():
                nn.init.normal_(tensor)
        return layer.double()

    def narrow(self, full, inputs=LEADING):
        """The stock layer, and where its tensors lie in the full one's."""
        outputs = inputs if self.follows else LEADING
        layer = self.make(len(inputs), len(outputs)).double()
        where = {}
        for name, tensor in layer.state_dict().items():
            whole = full.state_dict()[name]
            where[name] = self.places(full, name, whole, inputs, outputs)
            tensor.copy_(part(whole, where[name]))
        return layer, where

    @staticmethod
    def places(full, name, whole, inputs, outputs):
        if name.startswith('conv_offset.'):  # offsets do not narrow
            return (None, inputs) if whole.dim() > 1 else ()
        in_groups = getattr(full, 'groups', 1) > 1
        # Of groups, and of a constant of each output, there is one axis.
        if whole.dim() == 1 or 1 in whole.shape[:2] or in_groups:
            return (outputs,)
        if isinstance(full, nn.modules.conv._ConvTransposeNd):
            return (inputs, outputs)
        return (outputs, inputs)

    def input(self, channels=16):
        return torch.randn(self.shape(channels), dtype=torch.double)

    def check_narrow(self, joint=False, tolerance=1e-9):
        """Outputs and gradients."""
        full = self.full()
        narrow, where = self.narrow(full, BEHIND_JOINT if joint else LEADING)
        net = slim(full, joint)
        x = self.input()
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        with active_width(net, 0.5):
            out, expected = self.run(net[0], ours), self.run(narrow, theirs)
            assert_close(out, expected, rtol=tolerance, atol=tolerance)
            scale = torch.randn_like(expected)
            (out * scale).sum().backward()
            (expected * scale).sum().backward()
        assert_close(ours.grad, theirs.grad, rtol=tolerance, atol=tolerance)
        for key, parameter in narrow.named_parameters():
            grad = net[0].get_parameter(key).grad
            assert_close(part(grad, where[key]), parameter.grad)
            assert grad.count_nonzero() == parameter.grad.count_nonzero(), key

    def check_full(self):
        """At full width the stock layer, bit by bit, with its keys."""
        layer = self.full()
        net = slim(layer)
        assert isinstance(net[0], type(layer))
        assert list(net[0].state_dict()) == list(layer.state_dict())
        layer.load_state_dict(net[0].state_dict())
        x = self.input(24)
        assert torch.equal(self.run(net[0], x), self.run(layer, x))

    def check_static(self):
        """Static form, parameters and multiply-accumulates."""
        layer = self.full()
        narrow, _ = self.narrow(layer)
        net, x = slim(layer), self.input()

        def forward(model, x):
            return self.run(model[0], x)

        with active_width(net, 0.5):
            params = count_module_params(net, x, forward=forward)
            macs = count_module_macs(net, x, forward=forward)
            make_static(net, x, forward=forward)
        assert params == sum(p.numel() for p in narrow.parameters())
        assert type(net[0]) is type(layer)
        # All that a stock layer says of itself, sizes among it.
        plain = (int, float, str, tuple, bool)
        said, expected = (
            {k: v for k, v in vars(m).items() if isinstance(v, plain)}
            for m in (net[0], narrow)
        )
        assert said == expected
        assert torch.equal(self.run(net[0], x), self.run(narrow, x))
        return macs, narrow

    def check_copies(self):
        net, x = slim(self.full()), self.input()
        with active_width(net, 0.5):
            expected = self.run(net[0], x)
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert type(twin[0]) is type(net[0])
            with active_width(twin, 0.5):
                assert torch.equal(self.run(twin[0], x), expected)


def slim(layer, joint=False):
    """A slim copy, alone in a network."""
    net = nn.Sequential(copy.deepcopy(layer))
    convert(net, SlimState())
    if joint:
        net[0].slim_inputs = JOINT
        for child in net[0].children():
            child.slim_inputs = JOINT
    return net


def part(tensor, where):
    """A copy of some rows, columns and so on; all where there is None."""
    for axis, index in enumerate(where):
        if index is not None:
            tensor = tensor.index_select(axis, torch.tensor(index))
    return tensor.detach().clone()


def first(*sizes):
    """Shape of a batch of two with the channels first."""
    return lambda channels: (2, channels, *sizes)


def last(*sizes):
    """Shape of a batch of two with the channels last."""
    return lambda channels: (2, *sizes, channels)
