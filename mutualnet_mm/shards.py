# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Parts of a list of work, for processes that do not talk to each other."""

import re
from typing import List, NamedTuple, Sequence, Union

from .errors import UsageError


class Shard(NamedTuple):
    """One of several parts, such as 3/8.

    Args:
        part (int): Which part, from 1 on.
        number (int): Of how many.
    """

    part: int
    number: int

    @classmethod
    def parse(cls, text: Union[str, 'Shard']) -> 'Shard':
        """Read what users write, such as ``'3/8'``.

        Raises:
            UsageError: If it is no part.
        """
        found = re.fullmatch(r'(\d+)/(\d+)', str(text))
        shard = cls(*map(int, found.groups())) if found else cls(0, 0)
        if not 1 <= shard.part <= shard.number:
            raise UsageError(
                f"shard '{text}': write which part of how many, from 1/8 to "
                '8/8'
            )
        return shard

    def __str__(self) -> str:
        return f'{self.part}/{self.number}'

    @property
    def folder(self) -> str:
        """Name of a folder of this part, such as ``'part-3-of-8'``."""
        return f'part-{self.part}-of-{self.number}'


def split(costs: Sequence[float], number: int) -> List[List[int]]:
    """Split pieces of work into parts of about equal cost and number.

    The split depends on nothing but the arguments: every process finds the
    same. In turns, from the most costly pieces to the cheapest, each part
    takes one, those with the least so far the most costly of them. So the
    numbers of pieces differ by one at most: what each of them takes beside
    its cost is balanced, too.

    Args:
        costs (Sequence[float]): Of the pieces.
        number (int): Of the parts.

    Returns:
        list[list[int]]: Indices of the pieces of each part, in order.

    Raises:
        UsageError: If there are more parts than pieces.
    """
    if number > len(costs):
        raise UsageError(
            f'{number} parts of {len(costs)} subnets: use at most '
            f'{len(costs)} parts'
        )
    order = sorted(range(len(costs)), key=lambda i: (-costs[i], i))
    parts: List[List[int]] = [[] for _ in range(number)]
    loads = [0.0] * number
    for start in range(0, len(order), number):
        takers = sorted(range(number), key=lambda part: (loads[part], part))
        for part, piece in zip(takers, order[start : start + number]):
            parts[part].append(piece)
            loads[part] += costs[piece]
    return [sorted(part) for part in parts]
