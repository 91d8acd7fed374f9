# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Search among subnets that have costs and a score, as plain mappings.

What is said of subnets holds for cascades of them, too.
"""

from numbers import Real
from typing import (
    Any,
    Hashable,
    Iterable,
    List,
    Mapping,
    Tuple,
    TypeVar,
)

from ..errors import UsageError

Choice = TypeVar('Choice', bound=Hashable)

AT_LEAST = ('images_per_second',)
"""Costs of which more is better: a budget is the least that is enough."""

# Options of mutualnet latency without which a cost is not measured.
_OPTIONS = dict(
    energy_mj=' --energy', images_per_second=' --throughput 1 8 32'
)


def how_to_measure(names: Iterable[str]) -> str:
    """Name the command that measures these costs."""
    return 'mutualnet latency' + ''.join(
        _OPTIONS.get(name, '') for name in names
    )


def less_is_better(name: str, cost: float) -> float:
    """Return a cost as a number of which less is better."""
    return -cost if name in AT_LEAST else cost


def pareto_front(
    scores: Mapping[Choice, float], costs: Mapping[Choice, float]
) -> List[Choice]:
    """Subnets that no other one beats in cost and score, cheapest first.

    One beats another if it is no worse in either and better in one; subnets
    of equal cost and score are both in.

    Args:
        scores (Mapping): Score of each subnet; higher is better.
        costs (Mapping): Cost of each subnet; those without one are left out.
    """

    def cost_and_loss(subnet: Choice) -> Tuple[float, float]:
        return costs[subnet], -scores[subnet]

    front: List[Choice] = []
    for subnet in sorted((s for s in scores if s in costs), key=cost_and_loss):
        if (
            not front
            or scores[subnet] > scores[front[-1]]
            or cost_and_loss(subnet) == cost_and_loss(front[-1])
        ):
            front.append(subnet)
    return front


def best_within(
    scores: Mapping[Choice, float],
    costs: Mapping[str, Mapping[Choice, float]],
    budgets: Mapping[str, float],
) -> Choice:
    """Return the subnet of the highest score within all budgets.

    Among equally good subnets, the least limited cost decides, then the least
    other cost, each in the order given. Where more is better (``AT_LEAST``),
    the least is the most.

    Args:
        scores (Mapping): Score of each subnet; higher is better.
        costs (Mapping): Costs by name and subnet. Those that are not limited
            must be there for every subnet; subnets without a limited cost are
            left out.
        budgets (Mapping): Maximum costs by name, minimum ones of
            ``AT_LEAST``.

    Raises:
        UsageError: If a budget is not a positive number, or is below the
            least that there is, which the message names.
    """
    within = all_within(scores, costs, budgets)
    order = dict.fromkeys((*budgets, *costs))
    return min(
        within,
        key=lambda subnet: (
            -scores[subnet],
            *(less_is_better(name, costs[name][subnet]) for name in order),
        ),
    )


def cheapest_of(
    choices: Iterable[Choice],
    scores: Mapping[Choice, float],
    costs: Mapping[str, Mapping[Choice, float]],
    budgets: Mapping[str, float],
) -> Choice:
    """Return the subnet of the least limited cost, then of the least other.

    Args:
        choices (Iterable): At least one, within all budgets.
        scores (Mapping): As for :func:`best_within`; decides among equals.
        costs (Mapping): As there.
        budgets (Mapping): As there.
    """
    order = dict.fromkeys((*budgets, *costs))
    return min(
        choices,
        key=lambda subnet: (
            *(less_is_better(name, costs[name][subnet]) for name in order),
            -scores[subnet],
        ),
    )


def all_within(
    scores: Mapping[Choice, float],
    costs: Mapping[str, Mapping[Choice, float]],
    budgets: Mapping[str, float],
) -> List[Choice]:
    """Return all subnets within all budgets, one at least.

    Arguments and errors are those of :func:`best_within`.
    """
    for name, budget in budgets.items():
        if not _is_number(budget) or not budget > 0:
            raise UsageError(
                f'budget {name}={budget!r}: use a positive number'
            )
    within = [
        subnet
        for subnet in scores
        if all(
            subnet in costs[name]
            and _is_within(name, costs[name][subnet], budget)
            for name, budget in budgets.items()
        )
    ]
    if not within:
        raise UsageError(_why_none(costs, budgets))
    return within


def _is_within(name: str, cost: float, budget: float) -> bool:
    return less_is_better(name, cost) <= less_is_better(name, budget)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _why_none(
    costs: Mapping[str, Mapping[Any, float]], budgets: Mapping[str, float]
) -> str:
    found, each_alone = [], len(budgets) > 1
    last = ''
    for name, budget in budgets.items():
        if not costs[name]:
            return (
                f'no subnet that has a score has {name}: measure it with '
                f'{how_to_measure([name])}'
            )
        subnet, best = min(
            costs[name].items(), key=lambda item: less_is_better(name, item[1])
        )
        what = 'the most is' if name in AT_LEAST else 'the least is'
        found.append(f'{what * (what != last)} {name}={best:,} of {subnet}')
        last = what
        each_alone &= _is_within(name, best, budget)
    given = ' and '.join(f'{name}={b:,}' for name, b in budgets.items())
    told = ' and '.join(part.strip() for part in found)
    if each_alone:
        return (
            f'no subnet is within {given} together, though each alone is met: '
            f'ease one of them ({told})'
        )
    return f'no subnet is within {given}: {told}'
