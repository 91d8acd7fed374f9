import numpy as np
import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch_versions import skip_without_norm

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    BatchNormCollector,
    Moments,
    SlimState,
    active_width,
    convert,
    use_statistics,
)
from mutualnet_mm.slimmable.batch_norms import SlimBatchNorm


def make_net(dims=2):
    torch.manual_seed(0)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    net = nn.Sequential(
        conv(3, 16, 1),
        norm(16),
        nn.ReLU(),
        conv(16, 32, 3, padding=1),
        norm(32),
    )
    convert(net, SlimState())
    return net


def make_batches(dims=2, seed=0):
    rng = np.random.default_rng(seed)
    size = (3, 9, 9)[-dims:]
    shapes = [(2, 3, *size), (5, 3, *size), (3, 3, *(s - 2 for s in size))]
    return [
        torch.from_numpy(rng.normal(i, i + 1, shape)).float()
        for i, shape in enumerate(shapes)
    ]


def reference(batches):
    """Mean and biased variance of each channel over all batches."""
    rows = np.concatenate(
        [b.detach().double().transpose(0, 1).flatten(1) for b in batches], 1
    )
    return rows.mean(1), rows.var(1, ddof=0)


def first_outputs(net, batches, channels):
    """The first convolution (1x1), in numpy."""
    weight = net[0].weight.detach().numpy()[:channels].squeeze()
    bias = net[0].bias.detach().numpy()[:channels]
    return [
        torch.from_numpy(
            np.einsum('oc,nc...->no...', weight, batch.numpy())
            + bias.reshape(1, -1, *[1] * (batch.dim() - 2))
        )
        for batch in batches
    ]


def collect(net, batches, widths):
    collectors = {width: BatchNormCollector(net) for width in widths}
    for batch in batches:
        for width, collector in collectors.items():
            with active_width(net, width), collector.watch():
                net(batch)
    return {width: c.finish() for width, c in collectors.items()}


@pytest.mark.parametrize('dims', [2, 3])
@pytest.mark.parametrize('training', [False, True])
def test_statistics_are_numpys(dims, training):
    net, batches = make_net(dims).train(training), make_batches(dims)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = collect(net, batches, [1.0, 0.5])
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert net.training == net[1].training == training

    for width, channels in ((1.0, 16), (0.5, 8)):
        inputs = first_outputs(net, batches, channels)
        # What comes next was normalised with each batch's own statistics.
        convolve = F.conv2d if dims == 2 else F.conv3d
        following = [
            convolve(
                F.relu(F.batch_norm(x, None, None, training=True)),
                net[3].weight[: 2 * channels, :channels],
                net[3].bias[: 2 * channels],
                padding=1,
            )
            for x in inputs
        ]
        assert list(found[width]) == ['1', '4']
        for name, values in (('1', inputs), ('4', following)):
            mean, var = (stat.numpy() for stat in found[width][name])
            expected_mean, expected_var = reference(values)
            np.testing.assert_allclose(mean, expected_mean, 1e-4, 1e-5)
            np.testing.assert_allclose(var, expected_var, 1e-4, 1e-5)


@pytest.mark.parametrize('width', [1.0, 0.5])
@pytest.mark.parametrize('kind', ['plain', 'double', 'channels last', 'free'])
@pytest.mark.parametrize('dims', [2, 3])
def test_one_run_of_the_kernel_does_for_two(dims, kind, width, monkeypatch):
    """Maps and moments are those of separate ones, bit by bit."""
    net, batches = make_net(dims).eval(), make_batches(dims)
    for layer in (net[1], net[4]):
        nn.init.uniform_(layer.weight, 0.5, 1.5)
        nn.init.normal_(layer.bias)
        if kind == 'free':
            layer.weight = layer.bias = None
    if kind == 'double':
        net, batches = net.double(), [batch.double() for batch in batches]
    elif kind == 'channels last':
        last = (torch.channels_last, torch.channels_last_3d)[dims - 2]
        net = net.to(memory_format=last)
        batches = [batch.to(memory_format=last) for batch in batches]
    state = {name: value.clone() for name, value in net.state_dict().items()}

    def maps_and_statistics():
        collector, maps = BatchNormCollector(net), []
        with active_width(net, width), collector.watch(), torch.no_grad():
            for batch in batches:
                maps.append(net(batch))
        return maps, collector.finish()

    runs = []
    monkeypatch.setattr(
        Moments,
        'update',
        lambda self, x, original=Moments.update: (
            runs.append(x),
            original(self, x),
        ),
    )
    maps, found = maps_and_statistics()
    assert not runs
    monkeypatch.setattr(SlimBatchNorm, '_finds_moments', lambda self, x: False)
    expected_maps, expected = maps_and_statistics()
    assert len(runs) == 2 * len(batches)
    assert all(map(torch.equal, maps, expected_maps))
    assert found.keys() == expected.keys() == {'1', '4'}
    for name, pair in expected.items():
        assert all(map(torch.equal, found[name], pair)), name
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
def test_half_precision_maps_are_summed_in_single(dtype):
    skip_without_norm(dtype)
    net = nn.Sequential(nn.BatchNorm2d(2))
    convert(net, SlimState())
    net.to(dtype).eval()
    x = (torch.randn(4, 2, 16, 16) + 50).to(dtype)
    collector = BatchNormCollector(net)
    with collector.watch():
        net(x)
    moments = Moments()
    moments.update(x.float())
    assert torch.equal(collector._moments['0'].mean, moments.mean)
    assert torch.equal(collector._moments['0'].m2, moments.m2)


def test_large_offset_does_not_cancel():
    rng = np.random.default_rng(0)
    batches = [rng.normal(1e3, 1, (4, 2, 30, 30 + i)) for i in range(20)]
    moments = Moments()
    for batch in batches:
        moments.update(torch.from_numpy(batch).float())
    rows = np.concatenate(
        [b.swapaxes(0, 1).reshape(2, -1) for b in batches], 1
    )
    mean, var = moments.statistics()
    np.testing.assert_allclose(mean, rows.mean(1), rtol=1e-6)
    np.testing.assert_allclose(var, rows.var(1), rtol=1e-4)


def test_half_precision_inputs_are_pooled_exactly():
    x = torch.from_numpy(np.random.default_rng(0).normal(50, 1, (64, 2, 40)))
    x = x.to(torch.bfloat16)
    moments = Moments()
    for part in x.split(16):
        moments.update(part)
    mean, var = reference([x])
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(moments.m2 / (64 * 40), var, rtol=1e-4)


def test_empty_batches_count_for_nothing():
    """Of a head without proposals; their mean would be NaN."""
    x = torch.randn(5, 4)
    moments, parts = Moments(), Moments()
    for part in (x[:0], x[:2], x[:0], x[2:]):
        moments.update(part)
        own = Moments()
        own.update(part)
        parts.merge(own.count, own.mean, own.m2)  # as of several ranks
    for found in (moments, parts):
        assert found.count == 5
        mean, variance = found.statistics()
        assert_close(mean, x.double().mean(0))
        assert_close(variance, x.double().var(0, unbiased=False))


def test_width_change_while_collecting_is_refused():
    net = make_net().eval()
    batch = make_batches()[0]
    with BatchNormCollector(net).watch():
        net(batch)
        refused = pytest.raises(ConfigError, match='16 and then 8')
        with active_width(net, 0.5), refused:
            net(batch)
    net(batch)  # nobody watches any more


def test_layers_not_reached_have_no_statistics():
    net = make_net()
    collector = BatchNormCollector(net)
    with collector.watch():
        net[:2](make_batches()[0])
    assert list(collector.finish()) == ['1']


def test_use_statistics_swaps_and_restores():
    net, batches = make_net().eval(), make_batches()
    x = batches[0]
    own = net(x)
    found = collect(net, batches, [0.5])[0.5]
    with active_width(net, 0.5):
        running = net(x)
        with use_statistics(net, found):
            swapped = net(x)
        assert torch.equal(net(x), running)
        with use_statistics(net, None):
            assert torch.equal(net(x), running)
        with pytest.raises(KeyError), use_statistics(net, found):
            raise KeyError
        assert torch.equal(net(x), running)
    assert torch.equal(net(x), own)

    hidden = F.conv2d(x, net[0].weight[:8], net[0].bias[:8])
    hidden = F.relu(F.batch_norm(hidden, *found['1']))
    hidden = F.conv2d(
        hidden, net[3].weight[:16, :8], net[3].bias[:16], padding=1
    )
    assert_close(swapped, F.batch_norm(hidden, *found['4']))


def test_use_statistics_nests():
    net = make_net().eval()
    x = make_batches()[0]
    outer, inner = (
        {'1': (torch.full((16,), value), torch.ones(16))}
        for value in (2.0, 3.0)
    )
    with use_statistics(net, outer):
        before = net(x)
        with use_statistics(net, inner):
            assert not torch.equal(net(x), before)
        assert torch.equal(net(x), before)


def test_the_inner_block_alone_counts():
    """Its layers without statistics have running ones, not the outer's."""
    net = make_net().eval()
    x = make_batches()[0]
    running = net(x)
    pair = torch.full((16,), 2.0), torch.ones(16)
    with use_statistics(net, {'1': pair}):
        with use_statistics(net, None):
            assert torch.equal(net(x), running)
        with use_statistics(net, {'4': (torch.zeros(32), torch.ones(32))}):
            assert net[1].subnet_stats is None
        assert net[1].subnet_stats is pair


def test_use_statistics_of_some_layers_leaves_the_others():
    net = make_net().eval()
    x = make_batches()[0]
    pair = torch.full((16,), 2.0), torch.full((16,), 9.0)
    with use_statistics(net, {'1': pair}):
        out = net(x)
    hidden = F.relu((net[0](x) - 2) / 3)
    assert_close(out, net[4](net[3](hidden)), rtol=1e-4, atol=1e-4)


def test_statistics_of_an_unknown_layer_are_refused():
    net = make_net().eval()
    pair = torch.zeros(16), torch.ones(16)
    named = {'1': pair, 'layer9': pair}
    with pytest.raises(ConfigError, match='layer9'), use_statistics(
        net, named
    ):
        pass
    assert net[1].subnet_stats is None


def _pool(rank, folder):
    dist.init_process_group(
        'gloo', f'file://{folder}/sync', rank=rank, world_size=2
    )
    net = make_net()
    batches = make_batches(seed=rank)[: 3 - rank]  # not the same number
    torch.save(collect(net, batches, [0.5]), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.subprocess
def test_statistics_are_pooled_over_processes(tmp_path):
    run_forked(_pool, str(tmp_path))
    batches = [*make_batches(seed=0), *make_batches(seed=1)[:2]]
    mean, var = reference(first_outputs(make_net(), batches, 8))
    for rank in range(2):
        found = torch.load(tmp_path / f'{rank}.pth')[0.5]
        assert_close(found['1'][0].numpy(), np.float32(mean))
        assert_close(found['1'][1].numpy(), np.float32(var))
