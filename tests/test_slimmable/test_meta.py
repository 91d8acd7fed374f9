import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mutualnet_mm.slimmable.meta import (
    materialize,
    run_on_meta,
    weights_on_meta,
)


class Net(nn.Module):
    """Tells what it was run with; a buffer that no state_dict holds."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout()
        self.register_buffer('scale', torch.rand(1), persistent=False)
        self.seen = []

    def forward(self, x, factor=1):
        x = self.drop(self.bn(self.conv(x))) * self.scale
        self.seen.append(
            (
                x.device.type,
                self.conv.weight.device.type,
                self.training or self.bn.training or self.drop.training,
                torch.is_grad_enabled(),
                factor,
            )
        )
        return x


class Failing(Net):
    def forward(self, x):
        super().forward(x)
        raise ZeroDivisionError


def snapshot(net):
    """Every tensor itself, its numbers, and every mode."""
    tensors = dict([*net.named_parameters(), *net.named_buffers()])
    numbers = {name: tensor.clone() for name, tensor in tensors.items()}
    return tensors, numbers, [module.training for module in net.modules()]


def assert_unchanged(net, before):
    tensors, numbers, modes = before
    found = dict([*net.named_parameters(), *net.named_buffers()])
    assert found.keys() == tensors.keys()
    for name, tensor in found.items():
        assert tensor is tensors[name], name
        assert tensor.device.type == 'cpu'
        assert torch.equal(tensor, numbers[name]), name
    assert [module.training for module in net.modules()] == modes


def mixed_modes(net):
    net.train()
    net.bn.eval()
    return net


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_shapes_alone(device):
    net = mixed_modes(Net())
    before = snapshot(net)
    out = run_on_meta(net, torch.empty(2, 3, 5, 7, device=device), 3)
    assert (out.shape, out.device.type) == ((2, 8, 5, 7), 'meta')
    assert net.seen == [('meta', 'meta', False, False, 3)]
    assert torch.is_grad_enabled()
    assert_unchanged(net, before)


def test_any_function_of_the_module():
    net = mixed_modes(Net())
    before = snapshot(net)
    out, text = run_on_meta(
        net,
        torch.zeros(1, 3, 4, 4),
        'text',
        forward=lambda net, x, text: (net.conv(x), text),
    )
    assert (out.shape, out.device.type) == ((1, 8, 4, 4), 'meta')
    assert text == 'text'
    assert net.seen == []
    assert_unchanged(net, before)


@pytest.mark.parametrize('training', [True, False])
def test_nothing_is_left_behind_by_an_error(training):
    net = mixed_modes(Failing())
    net.train(training)
    before = snapshot(net)
    with pytest.raises(ZeroDivisionError):
        run_on_meta(net, torch.zeros(1, 3, 4, 4))
    assert net.seen[0][:2] == ('meta', 'meta')
    assert torch.is_grad_enabled()
    assert_unchanged(net, before)


def test_tied_weights_stay_tied():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    before = snapshot(net)
    assert run_on_meta(net, torch.zeros(2, 4)).device.type == 'meta'
    assert net[1].weight is net[0].weight
    assert_unchanged(net, before)


def test_a_layer_of_two_names():
    """As mmdet's heads share their convolutions over the levels."""
    layer = nn.Conv2d(3, 3, 1)
    net = nn.ModuleList([nn.Sequential(layer), nn.Sequential(layer)])
    before = snapshot(net)
    run_on_meta(
        net, torch.zeros(1, 3, 4, 4), forward=lambda net, x: net[1](net[0](x))
    )
    assert_unchanged(net, before)


class Scaled(Net):
    """Has a parameter and a plain tensor that the constructor computes."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((8,), 0.5))
        self.anchors = torch.arange(4)
        self.tied = nn.Conv2d(8, 3, 3)
        self.tied.weight = self.conv.weight
        self.conv.bias.requires_grad = False


def test_weights_take_no_memory_until_they_are_made():
    with weights_on_meta():
        net = Scaled()
    devices = {name: p.device.type for name, p in net.named_parameters()}
    assert devices.pop('gamma') == 'cpu'
    assert set(devices.values()) == {'meta'}
    assert all(b.device.type == 'cpu' for b in net.buffers())
    assert net.gamma.eq(0.5).all() and net.anchors.tolist() == [0, 1, 2, 3]

    materialize(net)
    assert not any(p.is_meta for p in net.parameters())
    assert net.tied.weight is net.conv.weight
    assert net.gamma.eq(0.5).all()
    assert [n for n, p in net.named_parameters() if not p.requires_grad] == [
        'conv.bias'
    ]


def test_initial_values_are_those_of_pytorch():
    with weights_on_meta():
        net = Net()
    torch.manual_seed(0)
    materialize(net)
    torch.manual_seed(0)
    expected = Net()
    for name, value in expected.named_parameters():
        assert torch.equal(net.get_parameter(name), value), name


def test_initialisers_leave_out_what_has_no_values(monkeypatch):
    """They run through PyTorch's Python code there, for nothing."""
    filled = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if str(func).partition('_.')[0] in {
                *('aten.normal', 'aten.uniform', 'aten.fill', 'aten.zero'),
            }:
                filled.append((str(func), args[0].device.type))
            return func(*args, **(kwargs or {}))

    class Initialised(Net):
        def __init__(self):
            super().__init__()
            nn.init.kaiming_normal_(self.conv.weight)
            nn.init.constant_(tensor=self.conv.bias, val=3)
            nn.init.trunc_normal_(self.conv.weight)
            self.gain = nn.Parameter(nn.init.uniform_(torch.empty(4), 2, 3))

    before = torch.get_rng_state()
    with Watched():
        plain = Initialised()
    kinds = {kind for _, kind in filled}
    assert kinds == {'cpu'} and len(filled) > 5
    del filled[:]
    torch.set_rng_state(before)
    with Watched(), weights_on_meta():
        net = Initialised()
    assert 'meta' not in {kind for _, kind in filled}
    # What has values is filled as ever.
    assert (net.gain >= 2).all() and (net.gain <= 3).all()
    assert net.conv.weight.shape == plain.conv.weight.shape
    assert net.conv.weight.is_meta and not net.gain.is_meta


def test_only_what_this_thread_builds():
    built = []
    with pytest.raises(ZeroDivisionError), weights_on_meta():
        thread = threading.Thread(target=lambda: built.append(Net()))
        thread.start()
        thread.join()
        raise ZeroDivisionError
    built.append(Net())  # after the block, though it raised
    for net in built:
        assert all(p.device.type == 'cpu' for p in net.parameters())


def test_layers_of_unknown_size():
    """Their parameters wait for an input, and are of a class of their own."""
    with weights_on_meta():
        net = nn.LazyLinear(4)
    materialize(net)
    assert net(torch.zeros(2, 3)).shape == (2, 4)


class Positions(nn.Module):
    """Makes its buffer anew for each size, as rotary positions do."""

    def __init__(self):
        super().__init__()
        self.size = 4
        self.register_buffer('table', torch.arange(4.0))

    def forward(self, x):
        if x.shape[-1] != self.size:
            self.size = x.shape[-1]
            self.register_buffer('table', torch.arange(float(self.size)))
        return x + self.table.to(x.device)


def test_sizes_that_a_forward_notes_are_put_back():
    """Beside the buffers that were made for them."""
    net, x = Positions(), torch.zeros(1, 6)
    assert run_on_meta(net, x).shape == (1, 6)
    assert net.size == 4 and len(net.table) == 4
    assert torch.equal(net(x), torch.arange(6.0)[None])
