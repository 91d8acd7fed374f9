# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Where subnets agree and where they conflict, as text, table and picture."""

import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import numpy as np
from matplotlib.figure import Figure

from ..files import atomic_write, csv_text
from ..visualization.palette import legend_beside, line_style
from .gradients import Decomposition, LayerGradients, Pair

_NAMED = 3  # layers of the strongest agreement and conflict


def describe_gradients(found: Decomposition) -> str:
    """Say how far the sum holds, and where subnets agree and conflict.

    Layers are those with matrices: convolutions and linear ones.
    """
    ratio = found.difference / found.largest if found.largest else 0.0
    lines = [
        'gradient of the step - sum of the gradients of its subnets: at most '
        f'{found.difference:.1e}, of values up to {found.largest:.1e} '
        f'({ratio:.1e} of them)',
        'gradient of a subnet outside of its own channels: at most '
        f'{found.outside:.1e}',
    ]
    for pair, (mean, spread) in found.whole.cosines.items():
        a, b = pair
        if mean is None:
            lines.append(f'{a} and {b}: one of the gradients is zero')
            continue
        by_layer = {
            layer.name: cosine
            for layer in found.matrices
            for cosine in [layer.cosines[pair][0]]
            if cosine is not None
        }
        order = sorted(by_layer, key=lambda name: by_layer[name])
        median = found.median(pair)
        middle = '' if median is None else f', median {median:.2f}'
        against = sum(cosine < 0 for cosine in by_layer.values())
        around = '' if spread is None else f' ± {spread:.2f}'
        lines.append(
            f'{a} and {b}: cosine {mean:.2f}{around} of all layers as one'
            f'{middle}, below zero in {against} of {len(by_layer)} layers; '
            f'least in '
            f'{_listed(order[:_NAMED], by_layer)}; most in '
            f'{_listed(order[: -_NAMED - 1 : -1], by_layer)}'
        )
    return '\n'.join(lines)


def _listed(names: List[str], cosines: Dict[str, float]) -> str:
    return ', '.join(f'{name} ({cosines[name]:.2f})' for name in names)


def gradient_rows(found: Decomposition) -> List[Dict[str, Any]]:
    """Return one plain record for each layer, the last one of all.

    Norms and cosines are means over batches, on the channels that all
    subnets share; ``spread/...`` is the standard deviation of a cosine.
    """
    return [_row(layer) for layer in (*found.layers, found.whole)]


def _row(layer: LayerGradients) -> Dict[str, Any]:
    row: Dict[str, Any] = dict(
        layer=layer.name, shared=layer.shared, total=layer.total
    )
    row.update({f'norm/{name}': norm for name, norm in layer.norms.items()})
    for pair, (mean, spread) in layer.cosines.items():
        row[f'cosine/{_both(pair)}'] = mean
        row[f'spread/{_both(pair)}'] = spread
    return row


def _both(pair: Pair) -> str:
    return f'{pair[0]}|{pair[1]}'


def save_gradients(found: Decomposition, out: Union[str, Path]) -> None:
    """Write ``gradients.json``, ``.csv`` and ``.png`` into a folder.

    Args:
        found (Decomposition): What is written.
        out (str or Path): The folder.
    """
    rows, pairs = gradient_rows(found), found.whole.cosines
    content = dict(
        subnets=found.subnets,
        num_batches=found.num_batches,
        difference=found.difference,
        largest=found.largest,
        outside=found.outside,
        medians={_both(pair): found.median(pair) for pair in pairs},
        layers=rows,
    )
    text = f'{json.dumps(content, indent=2, allow_nan=False)}\n'
    for name, written in (('json', text.encode()), ('csv', csv_text(rows))):
        with atomic_write(Path(out) / f'gradients.{name}') as file:
            file.write(written)
    with atomic_write(Path(out) / 'gradients.png') as file:
        plot_gradients(found).savefig(file, dpi=110, format='png')


def plot_gradients(found: Decomposition) -> Figure:
    """Draw norms and cosines of all convolutions and linear layers.

    Above, the norm of each subnet's gradient; below, a row for each pair of
    subnets: red where they agree, blue where they conflict, grey where a
    gradient is zero.
    """
    layers = found.matrices
    pairs = list(found.whole.cosines)
    width = max(7.0, 3.5 + 0.17 * len(layers))
    figure = Figure(
        figsize=(width, 4.5 + 0.3 * len(pairs)), layout='constrained'
    )
    norms, cosines = figure.subplots(
        2, 1, sharex=True, height_ratios=(3, 0.4 + 0.35 * len(pairs))
    )
    at = np.arange(len(layers))
    for number, name in enumerate(found.subnets):
        values = [_positive(layer.norms[name]) for layer in layers]
        norms.plot(at, values, lw=1, label=name, **line_style(number))
    norms.set(
        yscale='log',
        ylabel='norm of the gradient',
        title=f'on the shared channels, {found.num_batches} batches',
    )
    norms.grid(alpha=0.3)
    legend_beside(norms)
    cells = np.array(
        [
            [_number(layer.cosines[pair][0]) for layer in layers]
            for pair in pairs
        ]
    )
    cosines.set_facecolor('0.8')
    shown = cosines.imshow(
        cells, 'RdBu_r', aspect='auto', vmin=-1, vmax=1, interpolation='none'
    )
    cosines.set_xticks(
        at, [layer.name for layer in layers], rotation=90, fontsize=6
    )
    cosines.set_yticks(
        range(len(pairs)), [f'{a} and {b}' for a, b in pairs], fontsize=7
    )
    figure.colorbar(shown, ax=cosines, label='cosine')
    return figure


def _number(value: Optional[float]) -> float:
    return float('nan') if value is None else value


def _positive(value: float) -> float:
    """What a logarithmic axis can show."""
    return value if value > 0 else float('nan')
