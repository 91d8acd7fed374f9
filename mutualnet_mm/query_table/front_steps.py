# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the best subnets give up from budget to budget (Fig. 9, 18)."""

from dataclasses import dataclass
from typing import List, Tuple

from ..subnet import Subnet
from .entry import TableEntry
from .table import QueryTable

_DIMENSIONS = ('width', 'resolution', 'frames')
_UNITS = ((1e9, 'G'), (1e6, 'M'), (1e3, 'K'), (1.0, ''))


@dataclass(frozen=True)
class FrontStep:
    """Budgets between which the best subnets give up the same.

    Attributes:
        start (TableEntry): The best subnet of the larger budget.
        end (TableEntry): That of the smaller one.
        reduced (tuple[str]): Of ``'width'``, ``'resolution'``, ``'frames'``,
            what becomes less, or a width that goes from stage to stage.
        raised (tuple[str]): What becomes more in exchange.
    """

    start: TableEntry
    end: TableEntry
    reduced: Tuple[str, ...]
    raised: Tuple[str, ...]

    def __str__(self) -> str:
        """Such as ``'569 to 468 M: width 1.0x to 0.9x at 224'``."""
        before, after = self.start.subnet, self.end.subnet
        text = ' and '.join(
            f'{name} {_value(before, name)} to {_value(after, name)}'
            for name in self.reduced
        )
        changed = (*self.reduced, *self.raised)
        kept = [n for n in _DIMENSIONS if n not in changed]
        at = [
            f'{_value(before, n)} frames'
            if n == 'frames'
            else _value(before, n)
            for n in kept
            if getattr(before, n) is not None
        ]
        if at:
            text += f' at {", ".join(at)}'
        if self.raised:
            more = ' and '.join(
                f'{name} {_value(before, name)} to {_value(after, name)}'
                for name in self.raised
            )
            text += f', for more {more}'
        return f'{_macs(self.start.macs, self.end.macs)}: {text}'


def front_steps(table: QueryTable) -> List[FrontStep]:
    """Follow the best subnets from the largest budget to the least.

    Args:
        table (QueryTable): Its Pareto set by MACs counts. Of subnets of equal
            cost and score the first one does.

    Returns:
        list[FrontStep]: Neighbours in the set that give up the same are one
        step. None if there is a single best subnet.
    """
    front: List[TableEntry] = []
    for entry in table.pareto:
        if not front or entry.macs > front[-1].macs:
            front.append(entry)
    front.reverse()
    steps: List[FrontStep] = []
    for start, end in zip(front, front[1:]):
        pairs = {
            name: (getattr(start.subnet, name), getattr(end.subnet, name))
            for name in _DIMENSIONS
            if getattr(start.subnet, name) is not None
        }
        # Widths by stage may differ, and have one mean.
        reduced = tuple(
            n for n, (a, b) in pairs.items() if b < a or (a != b and not b > a)
        )
        raised = tuple(n for n, (a, b) in pairs.items() if b > a)
        last = steps[-1] if steps else None
        if last and (last.reduced, last.raised) == (reduced, raised):
            steps[-1] = FrontStep(last.start, end, reduced, raised)
        else:
            steps.append(FrontStep(start, end, reduced, raised))
    return steps


def describe_front(table: QueryTable) -> str:
    """Say which dimension the best subnet gives up at each budget.

    Such as ``'569 to 468 M: width 1.0x to 0.9x at 224; 468 to 344 M:
    resolution 224 to 192 at 0.9x'``.

    Args:
        table (QueryTable): As for :func:`front_steps`.
    """
    steps = front_steps(table)
    if not steps:
        best = table.pareto[-1]
        return f'{best.subnet} is the best at every budget'
    return '; '.join(map(str, steps))


def _value(subnet: Subnet, name: str) -> str:
    value = getattr(subnet, name)
    return f'{value}x' if name == 'width' else str(value)


def _macs(start: float, end: float) -> str:
    """Two costs, from ``569 to 468 M`` to ``1.2 G to 940 M``."""
    (first, unit), (second, other) = _scaled(start), _scaled(end)
    if unit == other:
        return f'{first} to {second} {unit}'.rstrip()
    return f'{first} {unit} to {second} {other}'.rstrip()


def format_macs(value: float) -> str:
    """Write a cost with three digits, such as ``'146 M'``."""
    return ' '.join(_scaled(value)).rstrip()


def _scaled(value: float) -> Tuple[str, str]:
    value = float(f'{value:.3g}')  # 999.6 M is 1.00 G
    size, unit = next(((s, u) for s, u in _UNITS if value >= s), (1.0, ''))
    digits = max(0, 2 - len(str(int(value / size))) + 1)
    return f'{value / size:.{digits}f}', unit
