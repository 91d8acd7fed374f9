# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Numbers of several seeds in tables of Markdown."""

import statistics
from typing import List, Optional, Sequence


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_std(values: Optional[Sequence[float]]) -> str:
    """``mean ± standard deviation``, and the seeds where they are no three."""
    if not values:
        return '-'
    seeds = '' if len(values) == 3 else f' (n={len(values)})'
    return f'{statistics.mean(values):.1f} ± {spread(values):.1f}{seeds}'


def markdown_table(lines: List[List[str]]) -> str:
    """Format rows of cells, the head first."""
    rows = [f'| {" | ".join(line)} |' for line in lines]
    return '\n'.join([rows[0], '|---' * len(lines[0]) + '|', *rows[1:]])
