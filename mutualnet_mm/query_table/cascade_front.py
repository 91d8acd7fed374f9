# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The best subnet or cascade within a mean cost."""

from typing import Dict, List, Optional, Union

from ..errors import UsageError
from ..subnet import Subnet
from .answers import top1_metric
from .cascades import Cascade
from .front_steps import format_macs
from .lookup import best_within, pareto_front
from .table import Choice, QueryTable

_Key = Union[Subnet, Cascade]
# So many mean costs are described, evenly spread over the front.
_DESCRIBED = 6


def best_cascade(
    table: QueryTable, mean_macs: float, macs: Optional[float] = None
) -> Choice:
    """Look up what is the best within a mean cost of the images.

    A single subnet counts as a cascade that always stops.

    Args:
        table (QueryTable): With cascades.
        mean_macs (float): Maximum multiply-accumulates of an image on
            average, over images like those that the table was measured on.
        macs (float, optional): Maximum of any image, the worst case.
            Defaults to None.

    Returns:
        TableEntry or Cascade: The most accurate one; of equals, the cheapest
        on average.

    Raises:
        UsageError: If the table has no cascades, and why; if a budget is not
            a positive number or is below the least of the table.
    """
    choices = _choices(table)
    costs = {
        name: {key: getattr(c, name) for key, c in choices.items()}
        for name in ('mean_macs', 'macs')
    }
    budgets = {'mean_macs': mean_macs}
    if macs is not None:
        budgets['macs'] = macs
    return choices[best_within(_scores(table, choices), costs, budgets)]


def cascade_front(table: QueryTable) -> List[Choice]:
    """Subnets and cascades that nothing beats in mean cost and score.

    Args:
        table (QueryTable): Table whose cascades count.

    Returns:
        list: The cheapest first. Empty where there are no cascades.
    """
    if why_no_cascades(table) is not None:
        return []
    choices = _choices(table)
    means = {key: float(c.mean_macs) for key, c in choices.items()}
    return [choices[k] for k in pareto_front(_scores(table, choices), means)]


def why_no_cascades(table: QueryTable) -> Optional[str]:
    """Say what keeps a table from having cascades; None if it has them."""
    metric = top1_metric(table.metrics)
    if metric is None:
        return (
            'cascades are for the top-1 accuracy of classifiers and video '
            f'recognizers: this table ({table.task}) has '
            f'{", ".join(table.metrics)}'
        )
    if table.cascades is None:
        return (
            'the table has no cascades: build it again, which says why if '
            'there are none'
        )
    if table.metric != metric:
        return (
            f'the table is ranked by {table.metric}, its cascades by {metric}:'
            f' build it with --metric {metric}'
        )
    return None


def describe_cascades(table: QueryTable) -> str:
    """Say what cascades are worth beside single subnets of the same cost.

    Such as ``'mean 146 M: 72.1 by 0.25x-128, below 0.83 1.0x-224 (583 M in
    the worst case), 70.0 by 0.7x-160 alone'``.

    Args:
        table (QueryTable): As for :func:`cascade_front`.
    """
    why = why_no_cascades(table)
    if why is not None:
        return why
    found = [c for c in cascade_front(table) if isinstance(c, Cascade)]
    if not found:
        return 'no cascade is better than a single subnet'
    last, steps = len(found) - 1, min(len(found), _DESCRIBED) - 1
    places = {round(i * last / max(steps, 1)) for i in range(steps + 1)}
    return '; '.join(
        _described(table, found[place]) for place in sorted(places)
    )


def _described(table: QueryTable, cascade: Cascade) -> str:
    single = table.best(macs=cascade.mean_macs)
    return (
        f'mean {format_macs(cascade.mean_macs)}: {cascade.accuracy:.4g} by '
        f'{cascade} ({format_macs(cascade.macs)} in the worst case), '
        f'{table.score(single):.4g} by {single.subnet} alone'
    )


def _choices(table: QueryTable) -> Dict[_Key, Choice]:
    why = why_no_cascades(table)
    if why is not None:
        raise UsageError(why)
    found: Dict[_Key, Choice] = {e.subnet: e for e in table.entries}
    found.update((c, c) for c in table.cascades or ())
    return found


def _scores(
    table: QueryTable, choices: Dict[_Key, Choice]
) -> Dict[_Key, float]:
    scores = {key: table.score(choice) for key, choice in choices.items()}
    return {key: s for key, s in scores.items() if s is not None}
