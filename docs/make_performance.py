#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write the tables of docs/results/performance.md from what was measured.

python docs/make_performance.py
"""

import json
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / 'results/performance.md'
FOLDER = DOCS / 'results/performance'
_TABLE = re.compile(r'(<!-- (\w[\w.]*) -->\n).*?(<!-- end -->)', re.DOTALL)


def rows(name: str) -> str:
    """The ratios of a measurement and what they come from.

    Args:
        name (str): Of the file, without ``.json``.
    """
    found = json.loads((FOLDER / f'{name}.json').read_text(encoding='utf-8'))
    lines = ['| what | ratio | 95 % interval | goal |', '|---|---|---|---|']
    for one in found['ratios']:
        goal = '' if one['goal'] is None else f'{one["goal"]:.3g}'
        missed = goal and one['value'] > one['goal']
        interval = f'{one["low"]:.3f} to {one["high"]:.3f}'
        if one['low'] == one['high']:
            interval = 'one round' if found['rounds'] == 1 else 'exact'
        lines.append(
            f'| {one["what"]} | {one["value"]:.3f} | {interval} | '
            f'{goal}{", missed" if missed else ""} |'
        )
    times = ', '.join(
        f'{what} {value:,.1f}' for what, value in found['milliseconds'].items()
    )
    number = f'{found["rounds"]} round{"s" * (found["rounds"] > 1)}'
    lines += ['', f'Milliseconds ({number}, {found["clock"]} time): {times}.']
    sizes = found['settings'].get('mebibytes', {}).items()
    if sizes:
        told = ', '.join(f'{what} {value:,.1f}' for what, value in sizes)
        lines += ['', f'MiB: {told}.']
    return '\n'.join(lines)


def write_page() -> str:
    """Return the text of the page with its tables as they should be."""
    return _TABLE.sub(
        lambda m: f'{m[1]}\n{rows(m[2])}\n\n{m[3]}',
        PAGE.read_text(encoding='utf-8'),
    )


if __name__ == '__main__':
    PAGE.write_text(write_page(), encoding='utf-8')
