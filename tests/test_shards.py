"""Parts of about equal cost, the same in every process."""

import pytest

from mutualnet_mm import SubnetSpace, UsageError
from mutualnet_mm.shards import Shard, split


@pytest.mark.parametrize('number', [1, 2, 3, 4, 8])
def test_a_grid_is_split_evenly(number):
    """Widths squared x resolutions squared, as MACs are about."""
    space = SubnetSpace((0.25, 1.0), (224, 192, 160, 128))
    costs = [(s.width * s.resolution) ** 2 for s in space.grid(0.05)]
    assert len(costs) == 64
    parts = split(costs, number)
    assert sorted(i for part in parts for i in part) == list(range(64))
    assert {len(part) for part in parts} <= {64 // number, -(-64 // number)}
    loads = [sum(costs[i] for i in part) for part in parts]
    assert max(loads) < 1.04 * sum(costs) / number


def test_equal_costs_are_dealt_in_order():
    assert split([5, 5, 5, 5, 5], 2) == [[0, 2, 4], [1, 3]]
    assert split([1, 2, 4, 8], 2) == [[0, 3], [1, 2]]
    assert split([3, 1], 2) == [[0], [1]]


def test_more_parts_than_work():
    with pytest.raises(UsageError, match='3 parts of 2 subnets: use at most'):
        split([1, 1], 3)


def test_text():
    shard = Shard.parse('3/8')
    assert shard == (3, 8) == Shard.parse(shard) and str(shard) == '3/8'
    assert shard.folder == 'part-3-of-8'


@pytest.mark.parametrize('text', ['0/2', '3/2', '1/0', '1', 'a/b', '1/2/3'])
def test_no_part(text):
    with pytest.raises(UsageError, match=f"shard '{text}': write which"):
        Shard.parse(text)
