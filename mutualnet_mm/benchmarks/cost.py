# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Costs of a grid of subnets, counted together and one by one."""

from typing import Any, Dict

from ..cost import SubnetCosts, count_heads, count_macs, count_params
from ..subnet import Subnet
from .subjects import build_subject, open_config
from .turns import ratio, report, take_turns


def benchmark_cost(
    network: str = 'mobilenet-v1', rounds: int = 3, step: float = 0.05
) -> Dict[str, Any]:
    """Compare what all subnets of a grid cost to count.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        rounds (int): Timed counts of each. Defaults to 3.
        step (float): Of the grid's widths. Defaults to 0.05.

    Returns:
        dict: See :func:`~.turns.report`.

    Raises:
        AssertionError: If both ways count differently.
    """
    model = build_subject(open_config(network)).eval()
    grid = model.space.grid(step)
    found: Dict[str, Dict[Subnet, Dict[str, Any]]] = {}

    def together() -> None:
        costs = SubnetCosts(model, None)
        found['together'] = {subnet: costs.of(subnet) for subnet in grid}

    def one_by_one() -> None:
        found['one by one'] = {}
        for subnet in grid:
            heads = count_heads(model, subnet)
            found['one by one'][subnet] = dict(
                macs=count_macs(model, subnet),
                head_macs=None if heads is None else heads.macs,
                params=count_params(model, subnet),
            )

    calls = {'together': together, 'one by one': one_by_one}
    times = take_turns(calls, rounds)
    assert found['together'] == found['one by one']
    return report(
        'cost',
        times,
        [
            ratio(
                'together / one by one',
                *(times['together'], times['one by one'], 1 / 20),
            )
        ],
        network=network,
        subnets=len(grid),
    )
