# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What is compared on CIFAR-10, and how much of everything."""

from dataclasses import dataclass
from typing import Dict, Tuple

LEARNING_RATES = (0.03, 0.1, 0.3)


@dataclass(frozen=True)
class Recipe:
    """How much of everything."""

    depth: int
    widen_factor: int
    sizes: Tuple[int, ...]
    train_images: int  # of each class
    test_images: int  # of each class
    batch_size: int
    epochs: int
    seeds: int
    workers: int  # that load data

    @property
    def search_epochs(self) -> int:
        """Of the runs that choose the learning rates."""
        return self.epochs // 4

    @property
    def trend_epochs(self) -> Tuple[int, ...]:
        """Further schedules, to see how the gap moves."""
        return (self.epochs // 4, self.epochs // 2, self.epochs * 2)


RECIPES = dict(
    cpu=Recipe(
        depth=10,
        widen_factor=2,
        sizes=(16, 14, 12, 10),
        train_images=250,
        test_images=500,
        batch_size=64,
        epochs=64,
        seeds=3,
        workers=0,
    ),
    full=Recipe(
        depth=16,
        widen_factor=4,
        sizes=(32, 28, 24, 20),
        train_images=5000,
        test_images=1000,
        batch_size=128,
        epochs=200,
        seeds=3,
        workers=8,
    ),
)


def methods(sizes: Tuple[int, ...]) -> Dict[str, dict]:
    """``mutual`` settings of every method compared."""
    wide, full = (0.25, 1.0), sizes[:1]
    alone = {
        f'inet-{width}x-{size}': dict(
            width_range=None, widths=(width,), resolution=(size,), num_random=0
        )
        for width, size in zip((1.0, 0.75, 0.5, 0.25), sizes)
    }
    return {
        'mutualnet': dict(width_range=wide, resolution=sizes),
        'usnet': dict(width_range=wide, resolution=full),
        'usnet-multiscale': dict(
            width_range=wide, resolution=sizes, resolution_mode='shared'
        ),
        'mutualnet-label': dict(
            width_range=wide, resolution=sizes, supervision='label'
        ),
        'mutualnet-0.9': dict(width_range=(0.9, 1.0), resolution=sizes),
        **alone,
    }


TREND = ('mutualnet', 'mutualnet-0.9', 'inet-1.0x-{full}')


@dataclass(frozen=True)
class Run:
    """One training."""

    method: str
    lr: float
    epochs: int
    seed: int
    is_search: bool = False

    def __str__(self) -> str:
        kind = 'search' if self.is_search else f'seed{self.seed}'
        return f'{self.method}_{self.epochs}e_lr{self.lr}_{kind}'
