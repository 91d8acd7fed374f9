#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Draw the figures of docs/concepts.md into docs/figures/.

python docs/make_figures.py
"""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

OUT = Path(__file__).resolve().parent / 'figures'
# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE, GREEN, PURPLE = '#0072B2', '#E69F00', '#009E73', '#CC79A7'
GREY, LIGHT, INK = '#8a8a8a', '#e4e4e4', '#222222'
SUBNETS = {  # MobileNetV1, MACs as tools/get_flops.py counts them
    '1.0x-224': (1.0, 224, '569 M', BLUE),
    '0.7x-160': (0.7, 160, '147 M', GREEN),
    '0.25x-128': (0.25, 128, '14 M', ORANGE),
}


def canvas(width: float, height: float) -> tuple:
    """Make a figure whose axes count in inches, without frame.

    Args:
        width (float): In inches.
        height (float): In inches.
    """
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis('off')
    return figure, axes


def box(axes, x, y, w, h, text='', colour=LIGHT, **style) -> None:
    """Draw a box with rounded corners and a text in its middle."""
    shape = FancyBboxPatch(
        *((x, y), w, h),
        boxstyle='round,pad=0,rounding_size=0.06',
        facecolor=colour,
        edgecolor=style.pop('edge', INK),
        linewidth=1,
    )
    axes.add_patch(shape)
    style = {'color': INK, **style}
    axes.text(x + w / 2, y + h / 2, text, ha='center', va='center', **style)


def arrow(axes, start, end, colour=INK, **style) -> None:
    """Draw an arrow between two points."""
    axes.add_patch(
        FancyArrowPatch(
            *(start, end),
            arrowstyle='-|>',
            mutation_scale=11,
            color=colour,
            linewidth=style.pop('linewidth', 1.4),
            shrinkA=0,
            shrinkB=0,
            **style,
        )
    )


def layers(axes, x, y, width, colour, sizes=(0.6, 0.9, 1.2)) -> float:
    """Draw layers with their leading channels active; return the right end."""
    for size in sizes:
        axes.add_patch(
            Rectangle((x, y - size / 2), 0.34, size, fc=LIGHT, ec=GREY, lw=0.8)
        )
        active = size * width
        top = y + size / 2  # leading channels are drawn at the top
        axes.add_patch(
            Rectangle((x, top - active), 0.34, active, fc=colour, ec=INK)
        )
        x += 0.62
    return x - 0.28


def image(axes, x, y, side, colour, text) -> None:
    """Draw a square image around (x, y)."""
    corner = (x - side / 2, y - side / 2)
    axes.add_patch(
        Rectangle(corner, side, side, fc='white', ec=colour, lw=2.2)
    )
    axes.text(x, y, text, ha='center', va='center', color=INK, fontsize=9)


def draw_slicing() -> plt.Figure:
    """Draw what a width and a resolution leave of the network."""
    figure, axes = canvas(7.2, 4.7)
    axes.text(1.3, 4.45, 'input', ha='center', weight='bold')
    axes.text(3.7, 4.45, 'leading channels', ha='center', weight='bold')
    axes.text(6.2, 4.45, 'MACs', ha='center', weight='bold')
    for i, (name, row) in enumerate(SUBNETS.items()):
        width, resolution, macs, colour = row
        y = 3.55 - i * 1.4
        axes.text(0.05, y + 0.45, name, color=INK, weight='bold', fontsize=10)
        image(axes, 1.5, y, resolution / 224, colour, f'{resolution} px')
        arrow(axes, (2.1, y), (2.6, y))
        end = layers(axes, 2.75, y, width, colour)
        arrow(axes, (end + 0.1, y), (end + 0.6, y))
        axes.text(6.2, y, macs, ha='center', va='center', fontsize=13)
    return figure


def draw_mutual_learning() -> plt.Figure:
    """Draw one training step: who sees what, and who teaches whom."""
    figure, axes = canvas(7.6, 4.6)
    rows = [
        ('full', '1.0x', 224, 1.0, BLUE),
        ('smallest', '0.25x', 160, 0.25, ORANGE),
        ('random', '0.6x', 128, 0.6, GREEN),
        ('random', '0.8x', 192, 0.8, PURPLE),
    ]
    for i, (role, name, resolution, width, colour) in enumerate(rows):
        y = 3.95 - i * 1.08
        image(axes, 0.62, y, 0.85 * resolution / 224, colour, resolution)
        arrow(axes, (1.12, y), (1.52, y))
        end = layers(axes, 1.62, y, width, colour, (0.42, 0.62, 0.82))
        axes.text(end + 0.12, y + 0.17, f'{name}', fontsize=10, weight='bold')
        axes.text(end + 0.12, y - 0.2, role, fontsize=9, color=INK)
        arrow(axes, (4.05, y), (4.4, y))
        box(axes, 4.45, y - 0.2, 1.05, 0.4, 'prediction', fontsize=9)
    y = 3.95
    box(axes, 6.45, y - 0.2, 0.95, 0.4, 'label', '#fff3cd', fontsize=10)
    arrow(axes, (6.45, y), (5.53, y), BLUE)
    axes.text(5.99, y + 0.1, 'cross entropy', ha='center', fontsize=7.5)
    axes.plot((4.97, 4.97), (3.75, 3.45), color=INK, lw=1.4)
    axes.plot((4.97, 6.1), (3.45, 3.45), color=INK, lw=1.4)
    axes.plot((6.1, 6.1), (3.45, 3.95 - 3 * 1.08), color=INK, lw=1.4)
    for i in (1, 2, 3):
        y = 3.95 - i * 1.08
        arrow(axes, (6.1, y), (5.53, y))
    axes.text(6.2, 1.8, 'KL to the full\nnetwork’s\nprediction', fontsize=9.5)
    axes.text(1.62, 0.02, 'one set of weights: gradients add up', fontsize=9.5)
    return figure


def draw_fusion() -> plt.Figure:
    """Draw how the two branches of SlowFast meet at any subnet."""
    figure, axes = canvas(7.6, 3.5)
    box(axes, 0.1, 2.3, 1.2, 0.7, 'Slow input\n4 → $t$ frames\n$r$ px')
    box(axes, 0.1, 0.5, 1.2, 0.7, 'Fast input\n32 frames\nfull size')
    for text in axes.texts:
        text.set_fontsize(8.5)
    small = dict(fontsize=8.5, color='white')
    box(
        axes,
        1.75,
        2.3,
        1.3,
        0.7,
        'Slow stage\n$w\\,C$ channels',
        BLUE,
        **small,
    )
    box(axes, 1.75, 0.5, 1.3, 0.7, 'Fast stage\nalways whole', ORANGE)
    axes.texts[-1].set_fontsize(8.5)
    box(axes, 1.75, 1.48, 1.3, 0.5, 'lateral conv\n$2bC$ channels', '#f7d58d')
    axes.texts[-1].set_fontsize(8)
    arrow(axes, (1.3, 2.65), (1.75, 2.65))
    arrow(axes, (1.3, 0.85), (1.75, 0.85))
    arrow(axes, (2.4, 1.2), (2.4, 1.48))
    box(
        axes,
        3.5,
        1.4,
        1.55,
        0.66,
        'interpolated to\nthe Slow size,\n$t$ frames',
    )
    axes.texts[-1].set_fontsize(8)
    arrow(axes, (3.05, 1.73), (3.5, 1.73))
    x, y, h = 5.55, 1.15, 1.9
    axes.add_patch(Rectangle((x, y + 0.7), 0.5, h - 0.7, fc=LIGHT, ec=GREY))
    axes.add_patch(Rectangle((x, y + 1.15), 0.5, h - 1.15, fc=BLUE, ec=INK))
    axes.add_patch(Rectangle((x, y), 0.5, 0.7, fc='#f7d58d', ec=INK))
    arrow(axes, (3.05, 2.68), (x, 2.68))
    arrow(axes, (5.05, 1.6), (x, 1.5))
    axes.text(
        x + 0.25, 3.14, 'input of the\nnext stage', ha='center', fontsize=9
    )
    axes.text(6.15, 2.68, 'the leading $w\\,C$', fontsize=9, va='center')
    axes.text(6.15, 2.08, 'inactive', fontsize=9, va='center', color='#555555')
    axes.text(6.15, 1.5, 'always the\nlast $2bC$', fontsize=9, va='center')
    arrow(axes, (3.05, 0.85), (6.6, 0.85))
    axes.text(6.68, 0.85, 'Fast stage', fontsize=9, va='center')
    return figure


def draw_calibration() -> plt.Figure:
    """Draw a channel before and after its batch norm, at three widths.

    A channel is the sum over the active inputs, ReLUs of normal noise, with
    random weights: simulated, with a fixed seed.
    """
    generator = np.random.default_rng(3)
    inputs = np.maximum(generator.normal(size=(20_000, 64)), 0)
    weights = generator.normal(0.12, 0.5, size=64)
    channel = {w: (inputs * weights)[:, : int(64 * w)].sum(1) for w in WIDTHS}
    full = channel[1.0]
    figure, panels = plt.subplots(1, 2, figsize=(7.6, 2.9), sharey=True)
    titles = (
        'with the statistics of the full network',
        'calibrated: each with its own',
    )
    bins = np.linspace(-4.2, 4.2, 49)
    for panel, title, own in zip(panels, titles, (False, True)):
        for (width, values), (colour, line) in zip(channel.items(), STYLES):
            source = values if own else full
            normed = (values - source.mean()) / source.std()
            height, _ = np.histogram(normed, bins, density=True)
            middle = (bins[1:] + bins[:-1]) / 2
            label = f'{width}x'
            panel.plot(middle, height, line, color=colour, lw=2, label=label)
        panel.set_title(title, fontsize=10.5)
        panel.set(xlim=(-4.2, 4.2), ylim=(0, None), yticks=[])
        panel.set_xlabel('what the next layer sees')
        panel.spines[['top', 'right', 'left']].set_visible(False)
    panels[0].legend(frameon=False, title='width')
    figure.tight_layout()
    return figure


WIDTHS = (1.0, 0.5, 0.25)
STYLES = ((BLUE, '-'), (GREEN, '--'), (ORANGE, ':'))


def draw_cascade() -> plt.Figure:
    """Draw a cascade of two subnets and its costs."""
    figure, axes = canvas(7.6, 2.5)
    box(axes, 0.1, 1.35, 0.95, 0.6, 'images')
    box(axes, 1.5, 1.25, 1.35, 0.8, 'subnet $a$\n0.25x-12', ORANGE)
    box(axes, 3.35, 1.25, 1.6, 0.8, 'probability\n$p_a(x) < t$ ?', 'white')
    box(axes, 5.85, 1.35, 1.1, 0.6, 'answer of $a$')
    box(
        axes, 3.47, 0.1, 1.35, 0.7, 'subnet $b$\n0.75x-16', BLUE, color='white'
    )
    box(axes, 5.85, 0.15, 1.1, 0.6, 'answer of $b$')
    arrow(axes, (1.05, 1.65), (1.5, 1.65))
    arrow(axes, (2.85, 1.65), (3.35, 1.65))
    arrow(axes, (4.95, 1.65), (5.85, 1.65))
    arrow(axes, (4.15, 1.25), (4.15, 0.8))
    arrow(axes, (4.82, 0.45), (5.85, 0.45))
    axes.text(5.4, 1.75, 'no', ha='center', fontsize=9.5)
    axes.text(4.25, 0.97, 'yes', fontsize=9.5)
    axes.text(0.1, 0.62, 'mean:  MACs(a) + P(yes) · MACs(b)', fontsize=9)
    axes.text(0.1, 0.3, 'worst:  MACs(a) + MACs(b)', fontsize=9)
    axes.text(0.1, 2.2, 'every image runs through $a$; some go on', fontsize=9)
    return figure


FIGURES = {
    'slicing': draw_slicing,
    'mutual_learning': draw_mutual_learning,
    'adaptive_fusion': draw_fusion,
    'calibration': draw_calibration,
    'cascade': draw_cascade,
}


def main() -> None:
    """Write all figures; the same version of Matplotlib writes the same."""
    OUT.mkdir(exist_ok=True)
    settings = {
        'font.family': 'DejaVu Sans',
        'font.size': 10,
        'svg.hashsalt': 'mutualnet_mm',
    }
    with plt.rc_context(settings):
        for name, draw in FIGURES.items():
            figure = draw()
            file = OUT / f'{name}.svg'
            figure.savefig(file, facecolor='white', metadata={'Date': None})
            plt.close(figure)


if __name__ == '__main__':
    main()
