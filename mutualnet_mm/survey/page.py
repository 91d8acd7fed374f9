# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The page of a survey."""

from collections import Counter
from itertools import groupby
from typing import List, Sequence

from .processes import Outcome
from .records import Record

_TITLES = {
    'works': 'works',
    'refused': 'refused',
    'stock fails': 'stock fails too',
    'not tried': 'no data to try it on',
    'too slow': 'takes too long here',
}


def coverage_page(
    project: str,
    records: Sequence[Record],
    command: str,
    unreadable: Sequence[str] = (),
) -> str:
    """Write what became of each config as Markdown.

    Args:
        project (str): Such as ``'mmdet'``.
        records (Sequence[Record]): In any order, one or more, of the same
            versions.
        command (str): That made them.
        unreadable (Sequence[str]): Names of configs that cannot be read.
            Defaults to none.
    """
    outcomes = [record.outcome for record in records]
    dates = sorted({record.date for record in records})
    made = ' to '.join(dict.fromkeys((dates[0], dates[-1])))
    counts = Counter(outcome.result for outcome in outcomes)
    run_stock = [outcome for outcome in outcomes if outcome.stock_ran]
    runs = len(run_stock)
    slow = sum(outcome.result == 'too slow' for outcome in run_stock)
    share = f' ({100 * counts["works"] / runs:.0f} %)' if runs else ''
    lines = [
        f'# Stock configs of {project} {records[0].stock}, adaptive',
        '',
        f'Written by `{command}`,',
        f'run with mutualnet_mm {records[0].ours} on {made}. It takes one',
        'config of each combination of model, backbone, neck, heads, norm',
        'layers and train pipeline, makes it adaptive as',
        '`mutualnet adapt` does, and runs it on generated data',
        'through its own pipelines: a training',
        'step of the full and the smallest subnet, calibration, and a',
        'prediction of the smallest one. The untouched stock model runs',
        'beside it. Weights are random; images are smaller where the stock',
        'model runs on those.',
        '',
        f'Of {runs} configs that run as they are, {counts["works"]}{share} '
        'run adaptive;',
        f'{counts["refused"]} are refused, which counts processes that crash, '
        f'and {slow} take too long.',
        '',
        '| result | configs |',
        '|---|---|',
        *(f'| {_TITLES[key]} | {counts[key]} |' for key in _TITLES),
        *_left_out(unreadable),
        '',
        '## Reasons',
        '',
        *_reasons(outcomes),
    ]
    ordered = sorted(outcomes, key=lambda outcome: outcome.config)
    for folder, group in groupby(ordered, key=_folder):
        lines += ['', f'## {folder}', '', '| config | result |', '|---|---|']
        lines += [f'| {_stem(o)} | {_result(o)} |' for o in group]
    return '\n'.join(lines) + '\n'


def reasons(outcomes: Sequence[Outcome], result: str) -> List[tuple]:
    """Count the reasons of a result, the most frequent one first.

    What differs from config to config, the names of layers, is left out.

    Returns:
        list[tuple]: Reason and number.
    """
    found = Counter(
        f'{o.stage}: {_general(o.reason)}'
        for o in outcomes
        if o.result == result
    )
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def _left_out(unreadable: Sequence[str]) -> List[str]:
    if not unreadable:
        return []
    names = ', '.join(f'`{name}`' for name in unreadable)
    return ['', f'Not among them, as they cannot be read: {names}.']


def _reasons(outcomes: Sequence[Outcome]) -> List[str]:
    lines = ['| configs | result | reason |', '|---|---|---|']
    for result in [*_TITLES][1:]:
        for reason, number in reasons(outcomes, result):
            title = _TITLES[result]
            lines.append(f'| {number} | {title} | {_cell(reason)} |')
    return lines


def _general(reason: str) -> str:
    return ' '.join(
        '...' if any(c.isdigit() for c in word) or '.' in word[:-1] else word
        for word in reason.split()
    )


def _folder(outcome: Outcome) -> str:
    return outcome.config.rpartition('/')[0]


def _stem(outcome: Outcome) -> str:
    return outcome.config.rpartition('/')[2][: -len('.py')]


def _result(outcome: Outcome) -> str:
    title = _TITLES[outcome.result]
    if not outcome.reason:
        return title
    return f'{title}: {outcome.stage}: {_cell(outcome.reason)}'


def _cell(text: str) -> str:
    return text.replace('|', '\\|').replace('<', '&lt;')
