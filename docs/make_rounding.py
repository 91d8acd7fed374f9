#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write the tables of docs/rounding.md from what was measured.

python docs/make_rounding.py

The files lie in docs/results/rounding: `mutualnet benchmark rounding --json`.
"""

import json
import re
from pathlib import Path
from typing import Callable, Dict, List

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / 'rounding.md'
FOLDER = DOCS / 'results/rounding'
_TABLE = re.compile(r'(<!-- (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)


def read(name: str) -> dict:
    """What the benchmark wrote, with its ratios by name."""
    found = json.loads((FOLDER / f'{name}.json').read_text(encoding='utf-8'))
    found['by_name'] = {one['what']: one for one in found['ratios']}
    return found


def interval(one: dict) -> str:
    """A ratio with its 95 % interval."""
    return f'{one["value"]:.2f} ({one["low"]:.2f} to {one["high"]:.2f})'


def write_table(head: List[str], rows: List[list]) -> str:
    """Markdown."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def networks(name: str) -> str:
    """Widths and divisors of a network."""
    found = read(name)
    macs, named = found['settings']['macs'], found['by_name']
    whole = max(macs, key=lambda key: macs[key])
    rows = []
    # Stable: the divisors of a width stay in their order.
    for key in sorted(macs, key=lambda key: -float(key.split('x')[0])):
        width, divisor = key.split(', ')
        beside = named.get(f'{key} / 8')
        rows.append(
            [
                width,
                'any' if key == whole else divisor,
                f'{macs[key] / 1e6:,.0f}',
                f'{found["milliseconds"][key]:.1f}',
                '' if beside is None else interval(beside),
                interval(named[f'a MAC of {key} / of {whole}']),
            ]
        )
    head = ['width', 'multiples of', 'M MACs', 'ms', 'time / that of 8']
    return write_table([*head, 'time of a MAC / of the full network'], rows)


def layers(name: str) -> str:
    """Single layers by their channels."""
    found = read(name)
    times = found['milliseconds']
    kinds = list(dict.fromkeys(key.split(', ')[0] for key in times))
    numbers = list(dict.fromkeys(key.split(', ')[1] for key in times))
    rows: List[list] = []
    for number in numbers:
        row: list = [number]
        for kind in kinds:
            most = f'{kind}, {max(map(int, numbers))}'
            key = f'{kind}, {number}'
            one = found['by_name'][f'a MAC of {key} / of {most}']
            row += [f'{1000 * times[key]:,.0f}', f'{one["value"]:.2f}']
        rows.append(row)
    head = ['channels']
    for kind in kinds:
        head += [f'{kind}, us', 'of a MAC']
    return write_table(head, rows)


TABLES: Dict[str, Callable[[str], str]] = dict(
    mobilenet_v1=networks, resnet50=networks, layers=layers
)


def write_page() -> str:
    """Return the text of the page with its tables as they should be."""
    return _TABLE.sub(
        lambda m: f'{m[1]}\n{TABLES[m[2]](m[2])}\n\n{m[3]}',
        PAGE.read_text(encoding='utf-8'),
    )


if __name__ == '__main__':
    PAGE.write_text(write_page(), encoding='utf-8')
