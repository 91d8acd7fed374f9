# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What is trained to see whether one network beats networks trained alone."""

from dataclasses import dataclass, replace
from typing import Dict, List, Tuple

from mutualnet_mm import Subnet

SIZES, WIDTHS = (16, 14, 12, 10), (0.25, 1.0)
GRID = [
    Subnet(width, size)
    for width, size in (
        *((1.0, 16), (0.75, 16), (0.75, 14), (0.5, 14)),
        *((0.5, 12), (0.35, 12), (0.25, 12), (0.25, 10)),
    )
]
"""Budgets at which one network and networks of their own are compared."""

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
FIRST_RATES = (0.03, 0.1, 0.3)
"""Tried at first; then further ones, until the best has two neighbours."""
EPOCHS = 64
TREND = (16, 32)
"""Further lengths, to see how the gap of the full network moves."""
EQUAL_COST = 1.93
"""Training MACs of a mutual step over those of a step of the full network
alone, of WRN-10-1: as many times more epochs make them equal. That of
WRN-10-2 is :data:`WIDE_COST`."""
WIDE_COST = 1.74
EQUAL_EPOCHS = round(EQUAL_COST * EPOCHS)
ALL_ALONE = 3.02
"""Likewise, of one step of each of the networks alone on :data:`GRID`."""
TOGETHER_EPOCHS = round(EQUAL_COST / ALL_ALONE * EPOCHS)
"""With so many, these cost as much together as MutualNet."""
QUARTER = EPOCHS // 4
"""Length of the search for learning rates on whole data sets, and of one more
training of networks alone where a longer one may over-fit."""
SEEDS = 3

TRAIN = 10000
"""Training images of an epoch."""


@dataclass(frozen=True)
class Data:
    """Images, and how large a network learns from them.

    Args:
        source (str): Data set.
        mean (tuple[float]): Of the training images, by channel.
        std (tuple[float]): Likewise.
        train (int): Training images. Fewer ones are seen more often: an
            epoch is always that of :data:`TRAIN`. Defaults to these.
        widen_factor (int): Of the WRN-10. Defaults to 1.
    """

    source: str
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    train: int = TRAIN
    widen_factor: int = 1

    @property
    def is_part(self) -> bool:
        """Whether it is a part of another one's images."""
        return self.train < TRAIN

    @property
    def repeats(self) -> int:
        """How often an epoch sees each image."""
        return TRAIN // self.train

    @property
    def others(self) -> Tuple[int, int]:
        """Training images that no reported run is trained on: (begin, end).

        They choose between such runs.
        """
        if self.is_part:
            return self.train, TRAIN
        return self.train, 2 * self.train

    @property
    def search_parts(self) -> Tuple[Tuple[int, int], Tuple[int, int]]:
        """Which images a search trains on, and which choose: (begin, end).

        The last fifth of the training images chooses; on a part of a data set
        the others do.
        """
        if self.is_part:
            return (0, self.train), self.others
        held_back = self.train * 4 // 5
        return (0, held_back), (held_back, self.train)


_CIFAR10 = Data('cifar10', (125.3, 123.0, 113.9), (60.0, 59.2, 62.0))
DATA = {
    'cifar10': _CIFAR10,
    'fashion-mnist': Data('fashion-mnist', (72.9,), (83.6,)),
    # That a network can over-fit on.
    'cifar10-few': replace(_CIFAR10, train=2500, widen_factor=2),
}


OPTIONS: Dict[str, dict] = dict(
    start=dict(start=0.5),
    next=dict(teacher='next', label_weight=1.0, stratified=True),
    alpha=dict(divergence='alpha'),
    weights=dict(weights='width'),
    ema=dict(teacher='ema'),
    label=dict(label_weight=1.0),
    norm=dict(norm='per-resolution'),
)
"""Settings of ``mutual`` that go beyond the paper, one by one."""
PAPER: Dict[str, dict] = dict(
    labels=dict(supervision='label'),
    wide=dict(width_range=(0.5, 1.0)),
    one=dict(num_random=1),
    three=dict(num_random=3),
)
"""Settings of ``mutual`` that the paper compares, one by one: labels in place
of the full network's predictions (Fig. 12), a higher least width (Fig. 13),
one and three random subnets (Fig. 14)."""
TAUGHT = 'mutualnet-taught'
"""Method whose subnets learn from the full network trained alone."""
COMBINED = 'mutualnet-combined'
"""Method of the options that are of use together, see
:meth:`~claim_study.ClaimStudy.combination`."""


@dataclass(frozen=True)
class Method:
    """How a network is trained.

    Args:
        mutual (dict): As in a config.
        subnets (tuple[Subnet]): At which it is tested.
        more (tuple[Subnet]): At which it is tested besides, where that chooses
            no rate. Defaults to none.
        like (str): Method whose learning rate it takes; empty for its own,
            chosen on images held back. Defaults to empty.
        is_distilled (bool): Whether it learns from the full network trained
            alone, too. Defaults to False.
        is_taught (bool): Whether that network is the teacher of its subnets.
            Defaults to False.
    """

    mutual: dict
    subnets: Tuple[Subnet, ...]
    more: Tuple[Subnet, ...] = ()
    like: str = ''
    is_distilled: bool = False
    is_taught: bool = False

    @property
    def has_teacher(self) -> bool:
        """Whether it learns from the full network trained alone."""
        return self.is_distilled or self.is_taught


def methods() -> Dict[str, Method]:
    """All methods by their names, in the order of trainings of a kind."""
    grid = tuple(GRID)
    full = GRID[0].resolution
    more = tuple(Subnet(width, full) for width in (0.5, 0.35, 0.25))
    at_full = (*(s for s in GRID if s.resolution == full), *more)
    mutual = dict(width_range=WIDTHS, resolution=SIZES)
    found = {
        'mutualnet': Method(mutual, grid, more),
        'usnet': Method(dict(width_range=WIDTHS, resolution=(full,)), at_full),
        'usnet-multiscale': Method(
            dict(mutual, resolution_mode='shared'), grid
        ),
        'mutualnet-0.9': Method(
            dict(width_range=(0.9, 1.0), resolution=SIZES), (GRID[0],)
        ),
    }
    for name, option in OPTIONS.items():
        found[f'mutualnet-{name}'] = with_options(option)
    for subnet in GRID:
        single = Method(
            dict(
                width_range=None,
                widths=(subnet.width,),
                resolution=(subnet.resolution,),
                num_random=0,
            ),
            (subnet,),
        )
        found[alone(subnet)] = single
        if subnet != GRID[0]:
            found[distilled(subnet)] = replace(
                single, like=alone(subnet), is_distilled=True
            )
    for name, option in PAPER.items():
        found[f'mutualnet-{name}'] = with_options(option)
    found[TAUGHT] = replace(with_options({}), is_taught=True)
    return found


def with_options(options: dict) -> Method:
    """MutualNet with other settings, tested where it is trained."""
    mutual = {**dict(width_range=WIDTHS, resolution=SIZES), **options}
    least = mutual['width_range'][0]
    grid = tuple(s for s in GRID if s.width >= least)
    return Method(mutual, grid, like='mutualnet')


def alone(subnet: Subnet) -> str:
    """Name of the method that trains one subnet alone."""
    return f'alone-{subnet}'


def distilled(subnet: Subnet) -> str:
    """Name of the method that trains it alone, with a teacher."""
    return f'distilled-{subnet}'


@dataclass(frozen=True)
class Run:
    """One training."""

    data: str
    method: str
    rate: float
    epochs: int
    seed: int
    use: str = ''
    """``'search'``: tested on images held back from its training;
    ``'teacher'``: its weights are; else it is reported."""

    def __str__(self) -> str:
        parts = [self.data, self.method, f'{self.epochs}e', f'lr{self.rate}']
        return '_'.join([*parts, f'seed{self.seed}', self.use]).rstrip('_')


def lengths(method: str, data: str) -> List[int]:
    """Numbers of epochs of a method, without those of :data:`TREND`.

    A network trained alone has as many as MutualNet; as many as make its cost
    that of MutualNet if it is the full one, or make that of all together; on
    a part of a data set in place of these a quarter. A distilled one has those
    of the full network's equal cost. MutualNet has as many as these, too, but
    on a part.
    """
    is_part = DATA[data].is_part
    if method.startswith('alone-'):
        early = QUARTER if is_part else TOGETHER_EPOCHS
        return [early, EPOCHS, EQUAL_EPOCHS]
    if method.startswith('distilled-'):
        return [EQUAL_EPOCHS]
    is_long = method == 'mutualnet' and not is_part
    return [EPOCHS, EQUAL_EPOCHS] if is_long else [EPOCHS]


def search_epochs(method: str, data: str) -> int:
    """Length of the search for the learning rate of a method.

    On a part the longest one that is reported, since the length decides how
    far a network over-fits.
    """
    return lengths(method, data)[-1] if DATA[data].is_part else QUARTER
