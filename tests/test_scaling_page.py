"""docs/scaling.md holds what files and formulas say."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def made():
    return runpy.run_path(str(ROOT / 'docs/make_scaling.py'))


def test_the_page_is_up_to_date(made):
    page = made['PAGE'].read_text(encoding='utf-8')
    assert made['write_page']() == page, 'run docs/make_scaling.py'
    assert set(re.findall(r'<!-- (\w+) -->\n', page)) - {'end'} == {
        *made['TABLES']
    }
    for file in made['FOLDER'].glob('*.json'):
        assert f'docs/results/scaling/{file.name}' in page


def ring(values):
    """Reduce along a ring, chunk by chunk; count what each one sends.

    Args:
        values (ndarray): (n, n), a chunk for each of n processes.
    """
    held, number = values.copy(), len(values)
    sent = messages = 0
    for add in (True, False):
        for step in range(number - 1):
            before = held.copy()
            for rank in range(number):
                chunk = (rank - step + (not add)) % number
                there = (rank + 1) % number
                if add:
                    held[there, chunk] += before[rank, chunk]
                else:
                    held[there, chunk] = before[rank, chunk]
            sent += 1 / number
            messages += 1
    return held, sent, messages


@pytest.mark.parametrize('number', [2, 3, 4, 8])
def test_a_ring_takes_what_the_formula_says(made, number):
    values = np.random.default_rng(0).integers(0, 99, (number, number))
    held, sent, messages = ring(values)
    assert (held == values.sum(axis=0)).all()
    hop, size, rate = made['HOP'], 1e9, 5e8
    found = made['all_reduce'](number, size, 3, rate)
    assert found == pytest.approx(sent * size / rate + 3 * messages * hop)
    assert made['all_reduce'](1, size, 3, rate) == 0


def test_more_accelerators_by_hand(made):
    """One line of the table, in plain numbers."""
    job = made['JOBS'][0]
    found = made['read']('resnet50')
    size = found['settings']['bytes']['mutual']
    reductions = found['settings']['reductions']['mutual']
    assert size == 4 * 25_557_032  # of ResNet-50 on 1000 classes
    ms = found['milliseconds']
    extra = ms['processor, mutual, 1'] / ms['processor, full, 1']
    extra /= found['settings']['arithmetic']
    alone = 64 / 1200 * 2.26 * extra
    wait = 2 * 63 / 64 * size / 12.5e9 + 126 * reductions * 10e-6
    line = next(
        line
        for line in made['larger']().splitlines()
        if line.startswith('| 64 | 4,096 |')
    )
    cells = [cell.strip() for cell in line.split('|')][1:-1]
    step = alone + wait
    assert cells[3] == f'{1000 * step:,.0f} ({100 * alone / step:.0f} %)'
    minutes = 1_281_167 / 4096 * step / 60
    assert cells[5] == f'{minutes:,.1f}'
    inside = 2 * 7 / 8 * size / 100e9 + 14 * reductions * 10e-6
    assert made['waited'](job, 8, 25) == pytest.approx(inside)


def test_arithmetic_is_that_of_the_configs(made):
    from mutualnet_mm.benchmarks.subjects import NETWORKS

    for job in made['JOBS']:
        head = (ROOT / 'configs' / NETWORKS[job.network]).read_text()
        told = re.search(r'a step ([\d.]+) x the full\s+network', head)
        assert float(told[1]) == job.arithmetic
