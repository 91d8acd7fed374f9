"""Parts of parameters that passes share: never of other weights."""

import copy
import gc
import pickle
import threading

import pytest
import torch
from torch import nn
from torch_versions import needs_kept_parts

from mutualnet_mm.slimmable import (
    LayerRule,
    SlimState,
    active_width,
    convert,
    share_weights,
    slim_layer,
)
from mutualnet_mm.slimmable.channels import PLAIN, Piece

pytestmark = needs_kept_parts

IMAGE = (2, 16, 6, 6)
CASES = {
    'dense': (lambda: nn.Conv2d(16, 32, 3, padding=1), IMAGE, PLAIN),
    'no bias': (lambda: nn.Conv2d(16, 32, 1, bias=False), IMAGE, PLAIN),
    'depthwise': (lambda: nn.Conv2d(16, 16, 3, groups=16), IMAGE, PLAIN),
    'groups': (lambda: nn.Conv2d(16, 32, 3, groups=4), IMAGE, PLAIN),
    'narrow groups': (
        lambda: nn.Conv2d(32, 32, 3, groups=2),
        (2, 32, 6, 6),
        LayerRule(narrow_groups=True, parts=2),
    ),
    'reflected': (
        lambda: nn.Conv2d(16, 32, 3, 2, (2, 1), padding_mode='reflect'),
        IMAGE,
        PLAIN,
    ),
    'circular': (
        lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode='circular'),
        IMAGE,
        PLAIN,
    ),
    'same': (
        lambda: nn.Conv2d(16, 32, 4, padding='same', dilation=2),
        IMAGE,
        PLAIN,
    ),
    'fixed': (lambda: nn.Conv2d(16, 32, 1), IMAGE, LayerRule(fixed=True)),
    '1d': (lambda: nn.Conv1d(16, 32, 3, stride=2), (2, 16, 9), PLAIN),
    '3d': (lambda: nn.Conv3d(16, 32, 3), (1, 16, 4, 5, 5), PLAIN),
    'linear': (lambda: nn.Linear(16, 32), (3, 16), PLAIN),
    'norm': (lambda: nn.BatchNorm2d(16), IMAGE, PLAIN),
}


def slimmed(name, **state):
    make, shape, rule = CASES[name]
    torch.manual_seed(0)
    net = nn.Sequential(make())
    convert(net, SlimState(**state), {'0': rule})
    if name == 'norm':
        for value in net.parameters():
            nn.init.uniform_(value, 0.5, 1.5)
    return net.eval(), shape


def run(net, shape, width, plain=False):
    """Run at a width, without gradients, in a new copy or not."""
    layer = net[0]
    if plain:
        net = copy.deepcopy(net)
        layer = net[0]
        layer.slim_kept = None
        layer.kept = lambda inputs, owner=None: layer.narrowed(inputs)
    linear = isinstance(layer, nn.Linear)
    axis = -1 if linear else 1
    channels = int(shape[axis] * width)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=generator).narrow(axis, 0, channels)
    x = x.to(layer.weight.dtype)
    if isinstance(layer, nn.BatchNorm2d):
        layer.subnet_stats = (
            torch.linspace(-1, 1, channels, dtype=x.dtype),
            torch.linspace(0.5, 2, channels, dtype=x.dtype),
        )
    with active_width(net, width), torch.no_grad():
        return net(x)


def warm(net, shape):
    """Run until parts are kept."""
    for _ in range(2):
        found = run(net, shape, 0.5)
    assert any(net[0].slim_kept._found.values())
    return found


def step(net):
    """A step of an optimizer, in training."""
    net.train()
    loss = sum((p**2).sum() for p in net.parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    loss.backward()
    optimizer.step()
    net.eval()


def load(net):
    state = {k: v * 0.5 + 1 for k, v in net.state_dict().items()}
    net.load_state_dict(state)


def assign(net):
    state = {
        k: v * 0.5 + 1 if v.is_floating_point() else v
        for k, v in net.state_dict().items()
    }
    net.load_state_dict(state, assign=True)


def swap(net):
    """As averaged weights take the place of others for a while."""
    for value in net.parameters():
        value.data = value.data * 0.5 + 1


def swap_twice(net):
    before = [value.data for value in net.parameters()]
    swap(net)
    run(net, IMAGE if net[0].weight.dim() != 3 else (2, 16, 9), 0.5)
    for value, old in zip(net.parameters(), before):
        value.data = old
        value.data.mul_(2)


def write(net):
    for value in net.parameters():
        value.data.mul_(3)


def untracked(net):
    """By numpy: PyTorch counts no version."""
    for value in net.parameters():
        value.detach().numpy()[...] += 2


def replaced(net):
    for name, value in [*net[0].named_parameters()]:
        setattr(net[0], name, nn.Parameter(value.detach() * 2))


def no_bias(net):
    net[0].bias = None


def moved(net):
    net.double()


def last(net):
    if net[0].weight.dim() == 4:
        net.to(memory_format=torch.channels_last)
    write(net)


def frozen(net):
    net.requires_grad_(False)
    write(net)


def other_rounding(net):
    net[0].slim_state.rounding = 'hardware'


def other_rule(net):
    net[0].slim_rule = LayerRule(fixed=True)


def wider(net):
    net[0].slim_state.max_width = 2.0


CHANGES = [
    *(step, load, assign, swap, write, untracked, replaced, no_bias, moved),
    *(last, frozen, other_rounding, other_rule, wider),
]


@pytest.mark.parametrize(
    'name, change',
    [
        *((name, write) for name in CASES),
        *(
            (name, change)
            for name in ('dense', 'depthwise', 'linear', 'norm')
            for change in CHANGES
            if change is not write
        ),
    ],
)
def test_the_same_as_without(name, change):
    net, shape = slimmed(name)
    for width in (0.5, 0.75, 0.5, 0.75, 0.5, 0.75):
        expected = run(net, shape, width, plain=True)
        assert torch.equal(run(net, shape, width), expected)
    change(net)
    for width in (0.5, 0.75, 0.5, 0.75, 0.5, 0.75):
        expected = run(net, shape, width, plain=True)
        assert torch.equal(run(net, shape, width), expected)


def test_a_transposed_weight():
    """The same parameter, place and shape; other strides."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16))
    convert(net, SlimState(), {'0': LayerRule()})
    net.eval()
    warm(net, (2, 16))
    net[0].weight.data = net[0].weight.data.t()
    expected = run(net, (2, 16), 0.5, plain=True)
    assert torch.equal(run(net, (2, 16), 0.5), expected)


def test_averaged_weights_come_and_go():
    net, shape = slimmed('dense')
    warm(net, shape)
    swap_twice(net)
    expected = run(net, shape, 0.5, plain=True)
    assert torch.equal(run(net, shape, 0.5), expected)


def count_narrowed(net, monkeypatch):
    calls, layer = [], net[0]

    def narrowed(inputs, original=layer.narrowed):
        calls.append(inputs)
        return original(inputs)

    monkeypatch.setattr(layer, 'narrowed', narrowed, raising=False)
    return calls


@pytest.mark.parametrize('name', CASES)
def test_parts_are_taken_once_and_need_no_memory(name, monkeypatch):
    net, shape = slimmed(name)
    calls = count_narrowed(net, monkeypatch)
    for width in (0.5, 0.75, 0.5, 0.75, 0.5, 0.75):
        run(net, shape, width)
    assert calls == [
        int(16 * w) * shape[-1 if name == 'linear' else 1] // 16
        for w in (0.5, 0.75, 0.5, 0.75)  # the first passes keep nothing
    ]
    memory = {p.untyped_storage().data_ptr() for p in net.parameters()}
    for _, _, parts in net[0].slim_kept._found.values():
        for part in parts.values():
            if part is not None:
                assert part in {*net.parameters()} or not part.requires_grad
                assert part.untyped_storage().data_ptr() in memory
    with torch.inference_mode():
        run(net, shape, 0.5)
    assert len(calls) == 4


def test_only_some_are_kept():
    net, shape = slimmed('dense')
    for width in range(20, 99):
        out = run(net, shape, 0.5, plain=True)
        net[0].slim_state.width = 0.5
        with active_width(net, width / 100), torch.no_grad():
            net(torch.zeros(1, 8, 5, 5))
        assert len(net[0].slim_kept._found) <= 8
    assert torch.equal(run(net, shape, 0.5), out)


@pytest.mark.parametrize('when', ['gradients', 'tracing'])
def test_nothing_is_kept(when, monkeypatch):
    net, shape = slimmed('dense')
    warm(net, shape)
    calls = count_narrowed(net, monkeypatch)
    x = torch.randn(2, 8, 6, 6)
    with active_width(net, 0.5):
        for number in (1, 2):
            if when == 'gradients':
                net(x).sum().backward()
                grad = net[0].weight.grad
                assert grad[:16, :8].abs().min() > 0
                assert grad[16:].eq(0).all()
            else:
                with torch.no_grad():
                    torch.jit.trace(net, x, check_trace=False)
            assert len(calls) == number


def test_copies_of_parts_are_made_anew():
    """Channels that are no neighbours: what is taken is no view."""
    net, _ = slimmed('dense')
    layer, halves = net[0], LayerRule(parts=2, divisor=4)
    layer.slim_inputs = (Piece(8, 16, halves, 8),) * 2
    for _ in range(3):
        with active_width(net, 0.5), torch.no_grad():
            x = torch.ones(1, 8, 5, 5)
            found = net(x)
            weight = layer.weight[:16, [*range(4), *range(8, 12)]]
            expected = nn.functional.conv2d(
                x, weight, layer.bias[:16], padding=1
            )
        assert torch.allclose(found, expected, atol=1e-6)
        assert not any(layer.slim_kept._found.values())
        write(net)


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'pickle'],
)
def test_copies_have_weights_of_their_own(copied):
    net, shape = slimmed('dense')
    expected = warm(net, shape)
    other = copied(net)
    assert not other[0].slim_kept._found
    assert torch.equal(run(other, shape, 0.5), expected)
    write(net)
    assert torch.equal(run(other, shape, 0.5), expected)
    assert not torch.equal(run(net, shape, 0.5), expected)


def test_networks_that_share_weights_take_no_memory():
    net, shape = slimmed('dense')
    warm(net, shape)
    other = share_weights(net)
    assert not other[0].slim_kept._found
    expected = run(net, shape, 0.5)
    assert torch.equal(warm(other, shape), expected)
    whole = net[0].weight.untyped_storage().data_ptr()
    del net
    gc.collect()
    for _, _, parts in other[0].slim_kept._found.values():
        assert parts['weight'].untyped_storage().data_ptr() == whole


def test_threads_at_other_widths():
    """Each has a tree of its own over the same weights."""
    net, shape = slimmed('dense')
    widths = (0.5, 0.75, 1.0)
    expected = {w: run(net, shape, w, plain=True) for w in widths}
    wrong = []

    def work(own, width):
        for _ in range(50):
            if not torch.equal(run(own, shape, width), expected[width]):
                wrong.append(width)

    threads = [
        threading.Thread(target=work, args=(share_weights(net), w))
        for w in widths
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sizes_with_a_weight_each():
    net, shape = slimmed('norm')
    net[0].add_affines({0.5: 'half_size'})
    with torch.no_grad():
        net[0].half_size.weight.fill_(7)
    found = []
    for scale in (1.0, 0.5, 1.0, 0.5):
        net[0].slim_state.scale = scale
        found.append(run(net, shape, 0.5))
        expected = run(net, shape, 0.5, plain=True)
        assert torch.equal(found[-1], expected)
    assert not torch.equal(found[0], found[1])
    net[0].half_size = copy.deepcopy(net[0].half_size)
    with torch.no_grad():
        net[0].half_size.weight.fill_(3)
    expected = run(net, shape, 0.5, plain=True)
    assert torch.equal(run(net, shape, 0.5), expected)


def test_other_layers_that_stand_in_are_not_kept(monkeypatch):
    """A weight that is computed is no parameter of the layer."""
    net, shape = slimmed('dense')
    nn.utils.parametrizations.weight_norm(net[0])
    layer = net[0]
    assert isinstance(layer, slim_layer.SlimLayer)
    for _ in range(3):
        with active_width(net, 0.5), torch.no_grad():
            found = net(torch.ones(1, 8, 5, 5))
            weight, bias = layer.weight[:16, :8], layer.bias[:16]
            expected = nn.functional.conv2d(
                torch.ones(1, 8, 5, 5), weight.contiguous(), bias, padding=1
            )
        assert torch.allclose(found, expected, atol=1e-6)
        assert not any(layer.slim_kept._found.values())
        write(net)
