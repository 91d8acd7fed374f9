import copy
import pickle

import pytest
import torch
from torch import nn

from mutualnet_mm.errors import ConfigError
from mutualnet_mm.slimmable import (
    SlimState,
    active_width,
    convert,
    set_width,
    slim_states,
)
from mutualnet_mm.slimmable.leaves import Leaves


def make_net(state=None):
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Conv2d(32, 64, 1)
    )
    convert(net, state or SlimState())
    return net


def channels(net):
    return net(torch.randn(2, 3, 5, 5)).shape[1]


def test_set_width_reaches_every_layer():
    net = make_net()
    assert channels(net) == 64
    set_width(net, 0.5)
    assert channels(net) == 32
    assert net[0](torch.randn(1, 3, 5, 5)).shape[1] == 16
    set_width(net, 1.0)
    assert channels(net) == 64


def test_layers_outside_with_the_same_state_follow():
    net = make_net()
    set_width(net[0], 0.25)
    assert channels(net) == 16


def test_active_width_nests():
    net = make_net()
    set_width(net, 0.75)
    with active_width(net, 0.5):
        assert channels(net) == 32
        with active_width(net, 0.25):
            assert channels(net) == 16
        assert channels(net) == 32
    assert channels(net) == 48


def test_active_width_restores_after_an_exception():
    net = make_net()
    with pytest.raises(KeyError), active_width(net, 0.5):
        raise KeyError
    assert channels(net) == 64


def test_several_trees_in_one_module():
    first, second = make_net(), make_net(SlimState(max_width=2.0))
    both = nn.ModuleList([first, second])
    assert len(slim_states(both)) == 2
    set_width(first, 0.5)
    with active_width(both, 0.25):
        assert channels(first) == 16
        assert channels(second) == 8
    assert channels(first) == 32
    assert channels(second) == 64


def test_active_width_refused_by_one_tree_changes_none():
    first, second = make_net(SlimState(max_width=2.0)), make_net()
    both = nn.ModuleList([first, second])
    with pytest.raises(ConfigError), active_width(both, 1.5):
        pass
    assert channels(first) == channels(second) == 64


def test_activate_restores_the_whole_subnet():
    state = SlimState()
    before = copy.copy(state)
    with pytest.raises(KeyError), state.activate(0.5, 0.7, 4, False):
        assert (state.width, state.scale) == (0.5, 0.7)
        assert (state.frames, state.track_stats) == (4, False)
        with state.activate(0.25):
            assert (state.width, state.scale) == (0.25, 1.0)
            assert (state.frames, state.track_stats) == (None, True)
        assert (state.width, state.frames) == (0.5, 4)
        raise KeyError
    assert state == before


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'pickle'],
)
def test_copies_share_one_state_of_their_own(duplicate):
    net = make_net()
    set_width(net, 0.5)
    other = duplicate(net)
    assert len({id(m.slim_state) for m in other}) == 1
    assert other[0].slim_state is not net[0].slim_state

    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(net(x), other(x))
    set_width(other, 0.25)
    assert (channels(net), channels(other)) == (32, 16)


@pytest.mark.parametrize('width', [0, -0.5, 1.01, float('nan')])
def test_widths_out_of_range_are_refused(width):
    net = make_net()
    set_width(net, 0.5)
    with pytest.raises(ConfigError, match=f'width {width} '):
        set_width(net, width)
    with pytest.raises(ConfigError), active_width(net, width):
        pass
    state = net[0].slim_state
    with pytest.raises(ConfigError), state.activate(width, scale=0.5):
        pass
    assert channels(net) == 32
    assert state.scale == 1.0


def test_widths_above_one_need_a_wider_base():
    net = make_net(SlimState(max_width=2.0))
    set_width(net, 1.0)
    assert channels(net) == 32
    set_width(net, 2.0)
    assert channels(net) == 64
    with pytest.raises(ConfigError, match='max_width'):
        set_width(net, 2.1)


def test_module_without_slim_layers_is_refused():
    with pytest.raises(ConfigError, match='Sequential.*convert it'):
        set_width(nn.Sequential(nn.Conv2d(3, 8, 1)), 0.5)
    with pytest.raises(ConfigError), active_width(nn.ReLU(), 0.5):
        pass


def test_a_width_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="max_width='2' is not"):
        SlimState(max_width='2')


def test_a_block_leaves_nothing_behind():
    """Not the leaves of its graph either, which are set inside."""
    state = SlimState()
    with state.activate(0.5, scale=0.75, track_stats=False):
        state.leaves = Leaves()
        assert state.is_active
    assert state.leaves is None and not state.is_active
    assert state == SlimState()
