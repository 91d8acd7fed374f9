"""Sliced networks do what the evaluation loops do, and copy nothing."""

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import build_model
from mutualnet_mm.deploy.sliced import SlicedNetwork
from mutualnet_mm.slimmable import slim_batch_norms


def run(sliced, batch):
    inputs, samples = batch
    samples = [sample.new() for sample in samples]
    return nets.outputs(sliced(inputs, samples, mode='predict'))


@pytest.mark.parametrize('kind', sorted(nets.KINDS))
def test_as_the_loops_and_back_again(kind, request):
    origin, bank = nets.network(kind, request)
    before = {k: v.clone() for k, v in origin.state_dict().items()}
    sliced, batch = SlicedNetwork(origin), nets.full_batch(origin)
    subnets = nets.KINDS[kind][1]
    assert sliced.subnet == origin.space.full
    full = run(sliced, batch)
    assert nets.same(full, nets.loop_outputs(origin, subnets[0], None, *batch))
    found = {subnets[0]: full}
    for name in [*subnets[1:], *subnets[::-1], subnets[1]]:
        subnet = Subnet.parse(name)
        sliced.switch(subnet, bank.get(name))
        assert sliced.subnet == subnet
        result = run(sliced, batch)
        if name not in found:
            found[name] = result
            expected = nets.loop_outputs(origin, name, bank[name], *batch)
            assert nets.same(result, expected)
            assert not nets.same(result, full)
        assert nets.same(result, found[name])
    # The network that lends its weights is left alone.
    assert origin.slim_state.width == origin.space.max_width
    assert all(n.subnet_stats is None for _, n in slim_batch_norms(origin))
    after = origin.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_nothing_is_copied(request):
    origin, bank = nets.network('slowfast', request)
    sliced = SlicedNetwork(origin)
    statistics = bank['0.63x-25-3']
    with nets.CountOperations() as counted:
        sliced.switch(Subnet(0.63, 25, 3), statistics)
        sliced.switch(Subnet(1.0, 32, 4), None)
        sliced.switch(Subnet(0.63, 25, 3), statistics)
    assert counted.names == []
    with counted:
        torch.zeros(1).clone()
    assert len(counted.names) == 2  # or else nothing is counted
    ours, theirs = (
        {name: (tensor.data_ptr(), tensor._version) for name, tensor in net}
        for net in (
            sliced.model.state_dict().items(),
            origin.state_dict().items(),
        )
    )
    assert ours == theirs
    layers = dict(slim_batch_norms(sliced.model))
    assert set(layers) == set(statistics)
    for name, pair in statistics.items():
        assert layers[name].subnet_stats is pair
    state = sliced.model.slim_state
    assert (state.width, state.frames) == (0.63, 3)
    assert state.scale == 25 / 32
    sliced.switch(Subnet(1.0, 32, 4), None)
    assert {layer.subnet_stats for layer in layers.values()} == {None}


def test_a_network_trained_alone_starts_as_itself(request):
    """The running statistics are this subnet's, not the widest one's."""
    cfg = nets.config('classifier', request)
    cfg.model.mutual.single_subnet = '0.5x-24'
    origin = nets.randomise(build_model(cfg)).eval()
    sliced, batch = SlicedNetwork(origin), nets.full_batch(origin)
    assert str(sliced.subnet) == '0.5x-24'
    expected = nets.loop_outputs(origin, '0.5x-24', None, *batch)
    assert nets.same(run(sliced, batch), expected)


def test_inputs_of_another_size(request):
    origin, _ = nets.network('classifier', request)
    sliced = SlicedNetwork(origin)
    inputs, samples = nets.full_batch(origin)
    with pytest.raises(UsageError, match='24 x 24 .* full resolution is 32'):
        sliced(inputs[..., :24, :24], samples, mode='predict')
    sliced(inputs, samples, mode='predict')


def test_no_gradients(request):
    origin, _ = nets.network('classifier', request)
    inputs, samples = nets.full_batch(origin)
    found = SlicedNetwork(origin)(inputs, samples, mode='predict')
    assert not found[0].pred_score.requires_grad
    assert origin.head.fc.weight.requires_grad
