"""Sorting: the same network, important channels in front, or left alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    LayerRule,
    active_width,
    slim,
    slim_states,
    sort,
    sort_channels,
    verify_slicing,
)


class Gated(nn.Module):
    """Every kind of coupling: ``unit`` channels, and multiples of it.

    A residual sum, a convolution of each channel, a gate (SE), a
    concatenation, halves that narrow each, groups of four and of eight, and a
    classifier of pixels.
    """

    def __init__(self, unit):
        super().__init__()
        a, b = 2 * unit, 4 * unit
        self.stem, self.bn0 = nn.Conv2d(3, a, 3, padding=1), norm(a)
        self.each = nn.Conv2d(a, a, 3, padding=1, groups=a, bias=False)
        self.bn1 = norm(a)
        self.mid, self.bn2 = nn.Conv2d(a, b, 1, bias=False), norm(b)
        self.grouped = nn.Conv2d(b, b, 3, padding=1, groups=b // 4)
        self.bn3 = norm(b)
        self.squeeze = nn.Conv2d(b, unit, 1)
        self.expand = nn.Conv2d(unit, b, 1)
        self.back, self.bn4 = nn.Conv2d(b, a, 1), norm(a)
        self.wide = nn.Conv2d(a, b, 3, padding=1)
        self.in_groups = nn.GroupNorm(b // 8, b)
        self.split = nn.Conv2d(a + b, b, 1)
        self.bn5 = norm(b)
        self.second = nn.Linear(a, a)
        self.fc = nn.Linear((a + a) * 4, 5)

    def forward(self, x):
        x = F.relu(self.bn0(self.stem(x)))
        y = F.relu(self.bn1(self.each(x)))
        y = F.relu(self.bn2(self.mid(y)))
        y = F.relu(self.bn3(self.grouped(y)))
        gate = self.expand(F.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        x = F.relu(x + self.bn4(self.back(y * gate.sigmoid())))
        z = F.relu(self.in_groups(self.wide(x)))
        z = F.relu(self.bn5(self.split(torch.cat([x, z], 1))))
        first, second = F.adaptive_avg_pool2d(z, 2).chunk(2, 1)
        second = self.second(second.movedim(1, -1)).movedim(-1, 1)
        return self.fc(torch.cat([first, second], 1).flatten(1))


def norm(channels):
    return nn.BatchNorm2d(channels)


def randomise(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        for tensor in layer.parameters(recurse=False):
            scale = tensor[0].numel() ** -0.5 if tensor.dim() > 1 else 1.0
            tensor.data.normal_(0, scale, generator=generator)
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return net.double().eval()


IMAGE = (2, 3, 8, 8)


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(IMAGE, generator=generator, dtype=torch.double)


def slimmed(net, **settings):
    net = slim(net, input_shape=IMAGE, **settings)
    slim_states(net)[0].running_stats = True  # the leading ones are meant
    return net


def test_the_stock_network_computes_the_same():
    """With all that lies along the channels, and twice in any order."""
    stock = randomise(Gated(16))
    with torch.no_grad():
        before = stock(images())
    net = slimmed(copy.deepcopy(stock))
    for by in ('l1', 'bn'):
        report = sort_channels(net, by, input_shape=IMAGE)
        assert not any(found.stays for found in report)
        other = Gated(16).double().eval()
        other.load_state_dict(net.state_dict())
        with torch.no_grad():
            after = other(images())
        torch.testing.assert_close(after, before, rtol=1e-11, atol=1e-11)
        verify_slicing(net, input_shape=IMAGE)  # as narrow as before
    for name in (
        'stem',
        'mid',
        'grouped',
        'squeeze',
        'wide',
        'split',
        'second',
    ):
        old, new = (n.get_submodule(name).weight for n in (stock, net))
        assert not torch.equal(old, new), name
        assert torch.equal(*(w.flatten().sort()[0] for w in (old, new)))


def falls(values):
    return bool((values.diff() <= 1e-12).all())


def by_mean(tensor):
    return tensor.abs() / tensor.abs().mean()


def rows(weight):
    return by_mean(weight.abs().flatten(1).sum(1))


def test_importance_falls():
    """By what each measure says, added over all that is coupled."""
    net = slimmed(randomise(Gated(16)))
    sort_channels(net, 'bn', input_shape=IMAGE)
    with torch.no_grad():
        gammas = {n: by_mean(net.get_parameter(f'bn{n}.weight')) for n in '23'}
        assert falls(
            by_mean(net.bn0.weight)
            + by_mean(net.bn1.weight)
            + by_mean(net.bn4.weight)
        )
        groups = gammas['2'] + gammas['3']
        assert falls(groups.view(-1, 4).sum(1)) and not falls(groups)
        # Halves for themselves; those without a batch norm as ``l1``.
        for half in net.bn5.weight.chunk(2):
            assert falls(by_mean(half))
        assert not falls(by_mean(net.bn5.weight))
        assert falls(rows(net.squeeze.weight)) and falls(
            rows(net.second.weight)
        )
        assert falls(rows(net.wide.weight).view(-1, 8).sum(1))


def test_importance_falls_by_l1():
    net = slimmed(randomise(Gated(16)))
    sort_channels(net, 'l1', input_shape=IMAGE)
    with torch.no_grad():
        assert falls(rows(net.stem.weight) + rows(net.back.weight))
        mid = rows(net.mid.weight) + rows(net.expand.weight)
        assert falls(mid.view(-1, 4).sum(1))
        for half in net.split.weight.chunk(2):
            assert falls(rows(half))


def test_equals_stay_in_order():
    """A network whose batch norms say nothing is left as it is."""
    net = slimmed(randomise(Gated(16)))
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, 0.7)
    before = copy.deepcopy(net.state_dict())
    sort_channels(net, 'bn', input_shape=IMAGE)
    for name in ('stem', 'mid', 'grouped', 'back', 'split'):
        key = f'{name}.bias' if name != 'mid' else 'bn2.running_mean'
        assert torch.equal(net.state_dict()[key], before[key]), name


def test_a_planted_network_comes_to_the_front():
    """Of half the channels, scattered among others that do nothing."""
    small = randomise(Gated(8))
    wide = randomise(Gated(16), seed=2)
    plant(small, wide)
    x = images()
    net = slimmed(wide)
    with torch.no_grad():
        expected = small(x)
        torch.testing.assert_close(net(x), expected)
        with active_width(net, 0.5):
            before = net(x)
        difference = (before - expected).abs().max()
        assert difference > 0.05 * expected.abs().max()
        for by in ('l1', 'bn'):
            sorted_net = copy.deepcopy(net)
            sort_channels(sorted_net, by, input_shape=IMAGE)
            with active_width(sorted_net, 0.5):
                found = sorted_net(x)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def plant(small, wide):
    """Fill ``wide`` so that it computes what ``small`` does."""
    generator = torch.Generator().manual_seed(3)

    def some(number, out_of, width=1):
        order = torch.randperm(out_of // width, generator=generator)
        first = order[: number // width].sort()[0] * width
        return (first[:, None] + torch.arange(width)).flatten()

    stem, mid, hidden = some(16, 32), some(32, 64, 4), some(8, 16)
    grouped = some(32, 64, 8)
    halves = [some(16, 32), some(16, 32)]
    split = torch.cat([halves[0], 32 + halves[1]])
    second = some(16, 32)
    pixels = torch.cat([halves[0], 32 + second])
    pixels = (pixels[:, None] * 4 + torch.arange(4)).flatten()
    places = dict(
        stem=(stem, torch.arange(3)),
        each=(stem, torch.arange(1)),
        mid=(mid, stem),
        grouped=(mid, torch.arange(4)),
        squeeze=(hidden, mid),
        expand=(mid, hidden),
        back=(stem, mid),
        wide=(grouped, stem),
        split=(split, torch.cat([stem, 32 + grouped])),
        second=(second, halves[1]),
        fc=(torch.arange(5), pixels),
        bn0=stem,
        bn1=stem,
        bn2=mid,
        bn3=mid,
        bn4=stem,
        in_groups=grouped,
        bn5=split,
    )
    with torch.no_grad():
        for name, place in places.items():
            source, target = (
                small.get_submodule(name),
                wide.get_submodule(name),
            )
            for key, value in target.state_dict().items():
                if not value.is_floating_point():
                    continue
                value.zero_() if key != 'running_var' else value.fill_(1)
                given = source.state_dict()[key]
                if isinstance(place, tuple) and key == 'weight':
                    row, column = place
                    value[row[:, None], column] = given
                else:
                    row = place[0] if isinstance(place, tuple) else place
                    value[row] = given


# ---- What stays


class Tail(nn.Module):
    """Three convolutions, and something between the last two."""

    def __init__(self, between, inputs=32):
        super().__init__()
        self.a = nn.Conv2d(3, 32, 1)
        self.b = nn.Conv2d(32, 32, 1)
        self.c = nn.Conv2d(inputs, 5, 1)
        self.between = between

    def forward(self, x):
        return self.c(self.between(F.relu(self.b(F.relu(self.a(x))))))


def accumulate(x):
    return x.cumsum(1)


def accumulate_unseen(x):
    """By code that PyTorch does not see."""
    return torch.from_numpy(x.detach().numpy().cumsum(1))


def scaled(x):
    return x * torch.linspace(0, 1, 32).to(x)[: x.shape[1], None, None]


def some(x):
    """The sum of all, and some: the order of others is free."""
    return x.roll(1, 2) + x.roll(1, 3)


@pytest.mark.parametrize(
    'between, reason',
    [
        (accumulate, 'an operator that is no layer'),
        (accumulate_unseen, 'not understood'),
        (scaled, 'an operator that is no layer'),
        (some, ''),
    ],
)
def test_operators_that_see_the_order(between, reason):
    rules = dict(c=LayerRule(fixed=True))
    net = slimmed(randomise(Tail(between)), rules=rules, keep_outputs=False)
    x = images()
    with torch.no_grad():
        before = net(x)
        report = sort_channels(net, 'l1', input_shape=IMAGE)
        torch.testing.assert_close(net(x), before)
    found = {layer: item for item in report for layer in item.layers}
    assert found['a'].stays == '' and reason in found['b'].stays
    assert bool(found['b'].stays) == bool(reason)
    assert falls(rows(net.a.weight.detach()))


ACTIVATIONS = """
CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid
Mish ReLU ReLU6 SELU SiLU Sigmoid Softplus Softshrink Softsign Tanh
"""


@pytest.mark.parametrize('name', ACTIVATIONS.split())
def test_activations_let_channels_move(name):
    """In PyTorch 2.1 half of them have no tag that says so."""
    stock = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), getattr(nn, name)(), nn.Conv2d(16, 8, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )
    net = randomise(slim(stock, IMAGE))
    x, first = images(), net[0].weight.clone()
    before = net(x)
    report = sort_channels(net, 'l1', input_shape=IMAGE)
    hidden = [s for s in report if s.layers[0] in ('0', '2')]
    assert len(hidden) == 2 and not any(s.stays for s in hidden)
    assert not torch.equal(net[0].weight, first)
    torch.testing.assert_close(net(x), before)


def test_channels_that_leave_stay():
    net = Tail(nn.Identity())
    net.c = nn.Identity()
    net = slimmed(randomise(net), keep_outputs=False)
    before = copy.deepcopy(net.b.weight)
    report = sort_channels(net, 'l1', input_shape=IMAGE)
    assert [bool(found.stays) for found in report] == [False, True]
    assert 'leave the network' in report[1].stays
    with torch.no_grad():
        assert torch.equal(
            *(w.abs().sum((1, 2, 3)) for w in (before, net.b.weight))
        )


def test_fixed_layers_are_not_touched():
    """They keep all channels at every width: their order does not matter."""
    rules = dict(b=LayerRule(fixed=True))
    net = slimmed(randomise(Tail(nn.Identity())), rules=rules)
    before = copy.deepcopy(net.c.weight)
    report = sort_channels(net, 'l1', input_shape=IMAGE)
    assert [found.layers for found in report] == [('a',)]
    assert torch.equal(before, net.c.weight)


def test_tied_weights_stay():
    net = randomise(Tail(nn.Conv2d(32, 32, 1)))
    net.between.weight = net.b.weight
    net = slimmed(net)
    x = images()
    with torch.no_grad():
        before = net(x)
        report = sort_channels(net, 'l1', input_shape=IMAGE)
        torch.testing.assert_close(net(x), before)
    assert all('shares its weights' in found.stays for found in report)
    assert net.between.weight is net.b.weight


def test_a_layer_that_is_run_twice():
    """Its inputs are of one order, or stay."""

    class Twice(nn.Module):
        def __init__(self, shared):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 32, 1), nn.Conv2d(3, 32, 1)
            self.c, self.d = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 5, 1)
            self.shared = shared

        def forward(self, x):
            a, b = self.a(x), self.b(x)
            b = a + b if self.shared else b
            return self.d(F.relu(self.c(a)) + F.relu(self.c(b)))

    for shared in (True, False):
        net = slimmed(randomise(Twice(shared)))
        with torch.no_grad():
            before = net(images())
            report = sort_channels(net, 'l1', input_shape=IMAGE)
            torch.testing.assert_close(net(images()), before)
        kept = [found for found in report if found.stays]
        layers = [found.layers for found in kept]
        assert layers == ([] if shared else [('a',), ('b',)])
        assert all('is shared by other channels' in f.stays for f in kept)


def test_layers_that_do_not_run():
    """They may in training, and are named; others use weights alone."""

    class Idle(Tail):
        def __init__(self):
            super().__init__(nn.Identity())
            self.auxiliary = nn.Conv2d(32, 5, 1)
            self.used = nn.Conv2d(32, 5, 1)

        def forward(self, x):
            y = self.between(F.relu(self.b(F.relu(self.a(x)))))
            if self.training:
                return self.auxiliary(y)
            return self.c(y) + self.used.weight.sum()

    rules = {n: LayerRule(fixed=True) for n in ('c', 'auxiliary', 'used')}
    net = slimmed(randomise(Idle()), rules=rules, keep_outputs=False)
    with torch.no_grad():
        before = net(images())
        report = sort_channels(net, 'l1', input_shape=IMAGE)
        torch.testing.assert_close(net(images()), before)
    assert [found.stays for found in report[:-1]] == ['', '']
    assert report[-1].layers == ('auxiliary',)
    assert 'layers did not run' in report[-1].stays


def test_orders_that_are_right_alone_but_not_together(monkeypatch):
    """They are refused by name, and nothing has changed."""
    stock = sort._permute

    def spoil(net, plan):
        stock(net, plan)
        moved = {name for name, (_, r) in plan.items() if r != sorted(r)}
        if moved >= {'a', 'b'}:
            net.c.bias.data += 1

    monkeypatch.setattr(sort, '_permute', spoil)
    net = slimmed(randomise(Tail(nn.Identity())))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ConfigError, match='of Tail cannot .* layers a, b in'):
        sort_channels(net, 'l1', input_shape=IMAGE)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])


def test_errors():
    net = slimmed(randomise(Tail(nn.Identity())))
    with pytest.raises(ConfigError, match="sort='l2'.*'bn' or 'l1'"):
        sort_channels(net, 'l2')
    with pytest.raises(ConfigError, match='has no slimmable layer'):
        sort_channels(Tail(nn.Identity()), 'l1')
