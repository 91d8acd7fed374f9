#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write what it costs into the docstring of each config: its last line.

python docs/make_config_costs.py [CONFIG ...]
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / 'configs'
SOURCE = ('Paper: ', 'Not in the paper')  # the line before
COST = re.compile(r'^Cost: [^"]*?\.$', re.M)


def find_configs() -> list:
    """Find the configs that are run, which pieces in ``_base_`` are not."""
    files = sorted(CONFIGS.rglob('*.py'))
    return [file for file in files if '_base_' not in file.parts]


def cost_line(file: Path) -> str:
    """Count what a config costs, as its docstring says it.

    MACs are those of an image, or a view of a video, of the test pipeline's
    size (detectors: backbone and neck), those of a step the mean over its
    random subnets.

    Args:
        file (Path): Config.
    """
    from mutualnet_mm.apis import (
        build_model,
        count_macs,
        load_config,
        make_adaptive,
    )
    from mutualnet_mm.config import find_views
    from mutualnet_mm.cost.training_cost import expected_macs

    cfg = load_config(str(file), launcher='none', stages=())
    stock = 'mutual' not in cfg.model
    if stock:  # the full network of the adaptive one is its own
        cfg = make_adaptive(cfg, check=False).cfg
    model = build_model(cfg)
    shape = find_views(cfg, None).shape
    space, sampler = model.space, model.sampler
    ends = list(dict.fromkeys((space.full, space.smallest)))
    if stock or len(sampler.sample(0)) == 1:
        ends = [sampler.primary]
    macs = ', '.join(f'{s} {short(count_macs(model, s, shape))}' for s in ends)
    text = f'Cost: {macs} MACs'
    if len(ends) == 2:
        full = count_macs(model, space.full, shape)
        (step,) = expected_macs(model, [sampler], shape)
        text += f"; a step {step / full:.2f} x the full network's"
    return text + '.'


def short(number: int) -> str:
    """Write 568790528 as ``569 M``.

    Args:
        number (int): Multiply-accumulates.
    """
    units = ((1e9, 'G'), (1e6, 'M'), (1e3, 'K'))
    size, unit = next(pair for pair in units if number >= pair[0])
    value = number / size
    return f'{value:.{0 if value >= 100 else 1}f} {unit}'


def write_cost(file: Path) -> None:
    """Replace the line of a config, or add it to the docstring.

    Args:
        file (Path): Config.
    """
    text = file.read_text(encoding='utf-8')
    head = ast.parse(text).body[0]
    lines = text.splitlines(keepends=True)
    first, last = head.lineno - 1, head.end_lineno
    old = ''.join(lines[first:last]).rstrip()
    body = COST.sub('', old).rstrip('"').rstrip()
    line = textwrap.fill(cost_line(file), 79)
    gap = '\n' if body.splitlines()[-1].startswith(SOURCE) else '\n\n'
    new = f'{body}{gap}{line}\n"""\n'
    file.write_text(''.join(lines[:first]) + new + ''.join(lines[last:]))


if __name__ == '__main__':
    for config in map(Path, sys.argv[1:]) if sys.argv[1:] else find_configs():
        print(config, flush=True)
        write_cost(config.resolve())
