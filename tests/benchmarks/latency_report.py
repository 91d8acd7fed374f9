"""What the latency benchmark measured, as Markdown and as a picture."""

from pathlib import Path
from typing import Iterable, List, Sequence, Tuple

import numpy as np

_MIB = 2**20


def report(found: dict) -> str:
    """Write all figures as Markdown, one table for each question."""
    parts = [
        f'{found["machine"]}, PyTorch {found["torch"]}',
        '### Switching',
        _switching(found['networks']),
        '### Against the stock class built narrow',
        _pairs(found['networks']),
        '### Latency against multiply-accumulates',
    ]
    for name, network in found['networks'].items():
        parts.append(_grid(name, network['grid'], found['batch_sizes']))
    return '\n\n'.join(parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _switching(networks: dict) -> str:
    rows: List[List[str]] = []
    for name, network in networks.items():
        row = network['switching']
        sizes = (
            f'{row["sliced_bytes"] / _MIB:.1f}, beside '
            f'{row["weights_bytes"] / _MIB:.1f} of the whole network and '
            f'{row["statistics_bytes"] / _MIB:.2f} of statistics'
        )
        rows.append([name, 'sliced', f'{row["sliced_us"]:.1f} us', sizes])
        kept = f'{row["kept_us"]:.1f} us'
        rows.append([name, 'static before', kept, 'as when made'])
        for subnet, made in row['made'].items():
            took, size = f'{made["ms"]:.0f} ms', f'{made["bytes"] / _MIB:.1f}'
            rows.append([name, f'static now, {subnet}', took, size])
    return _table(['network', 'mode', 'a switch takes', 'own MiB'], rows)


def _pairs(networks: dict) -> str:
    rows: List[List[str]] = []
    ratios: List[str] = []
    for name, network in networks.items():
        for pair in network['pairs']:
            ratios = list(pair['ratios'])
            rows.append(
                [
                    *(name, pair['subnet'], str(pair['batch_size'])),
                    *(pair['call'], f'{pair["ms"]["stock"]:.2f}'),
                    *(
                        f'{value:.3f} ({low:.3f} to {high:.3f})'
                        for value, low, high in pair['ratios'].values()
                    ),
                ]
            )
    header = ['network', 'subnet', 'batch', 'call', 'stock, ms', *ratios]
    return _table(header, rows)


def fit_line(macs: Sequence[float], ms: Sequence[float]) -> Tuple[float, ...]:
    """Fit a line by least squares: slope, offset and R squared."""
    slope, offset = np.polyfit(macs, ms, 1)
    return slope, offset, float(np.corrcoef(macs, ms)[0, 1] ** 2)


def _grid(name: str, grid: List[dict], sizes: Sequence[int]) -> str:
    header = ['subnet', 'M MACs', *(f'ms at batch {size}' for size in sizes)]
    rows = [
        [
            *(row['subnet'], f'{row["macs"] / 1e6:.1f}'),
            *(f'{row["ms"][size]:.2f}' for size in sizes),
        ]
        for row in grid
    ]
    lines = []
    macs = [row['macs'] for row in grid]
    for size in sizes:
        slope, offset, fit = fit_line(macs, [row['ms'][size] for row in grid])
        lines.append(
            f'batch {size}: {offset:.2f} ms + {slope * 1e9:.2f} ms per G '
            f'multiply-accumulates of an image, R^2 = {fit:.3f}'
        )
    return f'**{name}**\n\n{_table(header, rows)}\n\n' + '; '.join(lines) + '.'


def plot_grid(found: dict, out: Path) -> None:
    """Draw milliseconds of an image against its multiply-accumulates."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    from mutualnet_mm.visualization.palette import line_style

    networks = found['networks']
    figure = Figure(figsize=(4 * len(networks), 3.5), layout='constrained')
    for i, (name, network) in enumerate(networks.items(), 1):
        axes = figure.add_subplot(1, len(networks), i)
        grid = sorted(network['grid'], key=lambda row: row['macs'])
        macs = np.array([row['macs'] for row in grid])
        for number, size in enumerate(found['batch_sizes']):
            ms = np.array([row['ms'][size] / size for row in grid])
            slope, offset, fit = fit_line(macs, ms)
            label = f'batch {size}, $R^2$ = {fit:.3f}'
            style = line_style(number)
            axes.plot(macs, ms, label=label, **dict(style, linestyle=''))
            color = style['color']
            axes.plot(macs, offset + slope * macs, '--', lw=0.8, color=color)
        axes.set(
            title=name, xlabel='multiply-accumulates', ylabel='ms per image'
        )
        axes.xaxis.set_major_formatter(EngFormatter())
        axes.set(xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(loc='lower right')
    figure.suptitle(found['machine'])
    figure.savefig(out, dpi=150)
