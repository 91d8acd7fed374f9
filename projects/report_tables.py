# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Numbers of several seeds in tables of Markdown."""

import statistics
from typing import List, Optional, Sequence

from scipy.stats import t


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_std(values: Optional[Sequence[float]]) -> str:
    """``mean ± standard deviation``, and the seeds where they are no three."""
    if not values:
        return '-'
    seeds = '' if len(values) == 3 else f' (n={len(values)})'
    return f'{statistics.mean(values):.1f} ± {spread(values):.1f}{seeds}'


def interval(values: Sequence[float]) -> str:
    """Mean with half of the 95 percent interval of Student's t."""
    if not values:
        return '-'
    mean, number = statistics.mean(values), len(values)
    if number == 1:
        return f'{mean:+.1f} (n=1)'
    half = t.ppf(0.975, number - 1) * spread(values) / number**0.5
    return f'{mean:+.1f} ± {half:.1f}'


def markdown_table(lines: List[List[str]]) -> str:
    """Format rows of cells, the head first."""
    rows = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([rows[0], '|---' * len(lines[0]) + '|', *rows[1:]])
