import threading

import pytest
import torch
from torch import nn

from mutualnet_mm.slimmable import (
    SlimState,
    active_width,
    convert,
    set_width,
    share_weights,
    slim_states,
    use_statistics,
)

WIDTHS = (0.25, 0.5, 0.75)


@pytest.fixture
def net():
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 64, 1),
        nn.BatchNorm2d(64, affine=False),
    )
    for norm in (net[1], net[5]):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 1.5)
    net.register_buffer('offset', torch.ones(1), persistent=False)
    convert(net, SlimState())
    return net.eval()


def tensors(net):
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


def statistics(width):
    return {
        name: (torch.randn(n), torch.rand(n) + 0.5)
        for name, n in (('1', int(32 * width)), ('5', int(64 * width)))
    }


def test_the_same_tensors_in_modules_of_its_own(net):
    copy = share_weights(net)
    assert [type(m) for m in copy.modules()] == [
        type(m) for m in net.modules()
    ]
    assert not {*copy.modules()} & {*net.modules()}
    found, expected = tensors(copy), tensors(net)
    assert found.keys() == expected.keys()
    assert len(expected) == 8 + 6 + 1
    for name, tensor in found.items():
        assert tensor.data_ptr() == expected[name].data_ptr(), name
        assert type(tensor) is type(expected[name])


@torch.no_grad()
def test_a_width_of_its_own(net):
    copy, x = share_weights(net), torch.randn(2, 3, 6, 6)
    (state,) = slim_states(copy)
    assert state is not slim_states(net)[0]
    full = net(x)
    with active_width(net, 0.25):
        narrow = net(x)
        assert torch.equal(copy(x), full)
        set_width(copy, 0.5)
        assert torch.equal(net(x), narrow)
    assert torch.equal(net(x), full)
    assert copy(x).shape[1] == 32
    # Of what is active at the time, and then apart.
    again = share_weights(copy)
    set_width(copy, 0.25)
    assert again(x).shape[1] == 32


@torch.no_grad()
def test_a_change_of_the_weights_shows_in_both(net):
    copy, x = share_weights(net), torch.randn(2, 3, 6, 6)
    before = net(x)
    copy[4].weight.mul_(2)
    copy[5].running_mean.add_(1)
    assert torch.equal(net(x), copy(x))
    assert not torch.allclose(net(x), before)


@torch.no_grad()
def test_statistics_in_use_are_shared(net):
    bank, x = statistics(0.5), torch.randn(2, 3, 6, 6)
    set_width(net, 0.5)
    with use_statistics(net, bank):
        expected = net(x)
        copy = share_weights(net)
        for name, pair in bank.items():
            found = copy.get_submodule(name).subnet_stats
            assert all(a is b for a, b in zip(found, pair)), name
    assert torch.equal(copy(x), expected)
    # The original is back at its running ones.
    assert not torch.allclose(net(x), expected)


@torch.no_grad()
def test_threads_at_different_widths(net):
    x = torch.randn(2, 3, 6, 6)
    banks = {width: statistics(width) for width in WIDTHS}

    def run(net, width):
        with active_width(net, width), use_statistics(net, banks[width]):
            return net(x)

    expected = {width: run(net, width) for width in WIDTHS}
    start, wrong = threading.Barrier(len(WIDTHS)), []

    def work(handle, width):
        start.wait()
        try:
            with torch.no_grad():
                for _ in range(40):
                    if not torch.equal(run(handle, width), expected[width]):
                        wrong.append(width)
        except Exception as error:  # shows in no other way
            wrong.append(error)

    threads = [
        threading.Thread(target=work, args=(share_weights(net), width))
        for width in WIDTHS
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
