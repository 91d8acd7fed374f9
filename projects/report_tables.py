# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Numbers of several seeds in tables of Markdown."""

import re
import statistics
from pathlib import Path
from typing import List, Mapping, Optional, Sequence

from scipy.stats import t

from mutualnet_mm.errors import UsageError

_PLACE = re.compile(r'(<!-- (\S+) -->\n).*?(<!-- end -->)', re.DOTALL)


def spread(values: Sequence[float]) -> float:
    """Standard deviation of the sample, 0 for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def mean_std(values: Optional[Sequence[float]]) -> str:
    """``mean ± standard deviation``, and the seeds where they are no three."""
    if not values:
        return '-'
    if len(values) == 1:
        return f'{values[0]:.1f} (n=1)'
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


def fill_page(page: Path, tables: Mapping[str, str]) -> None:
    """Write tables into a page of Markdown.

    Args:
        page (Path): Each table goes between ``<!-- NAME -->`` and ``<!-- end
            -->``. A page that does not exist is made, with all tables.
        tables (dict[str, str]): By their names.

    Raises:
        UsageError: If the page has a place for a table that there is not; it
            stays as it is.
    """
    if not page.exists():
        marks = (f'<!-- {name} -->\n<!-- end -->\n' for name in tables)
        page.write_text('\n'.join(marks), encoding='utf-8')
    text = page.read_text(encoding='utf-8')
    missing = {name for _, name, _ in _PLACE.findall(text)} - set(tables)
    if missing:
        raise UsageError(
            f'{str(page)!r} has places for tables that are not made here: '
            f'{", ".join(sorted(missing))}; give the data of all, or another '
            'page'
        )
    text = _PLACE.sub(lambda m: f'{m[1]}\n{tables[m[2]]}\n\n{m[3]}', text)
    page.write_text(text, encoding='utf-8')
