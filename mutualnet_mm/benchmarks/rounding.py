# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Narrow networks whose channels are multiples of one or another number."""

import copy
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Sequence, Union

import torch
from torch import nn

from ..cost import MacsByWidth
from ..models import static_model
from ..slimmable.channels import ROUNDING, LayerRule, make_divisible
from ..subnet import Subnet
from .subjects import build_subject, open_config, training_batch
from .turns import Call, Calls, Ratio, ratio, report, take_turns

_USUAL = 8
_SIDE = 28  # of the maps of single layers


def benchmark_rounding(
    network: str = 'mobilenet-v1',
    batch_size: int = 1,
    divisors: Sequence[int] = (1, 8, 16, 32),
    widths: Sequence[float] = (1.0, 0.75, 0.7, 0.55),
    channels: Sequence[int] = (),
    rounds: int = 15,
    device: str = 'cpu',
) -> Dict[str, Any]:
    """Time forward passes of the same widths, rounded in several ways.

    Each network has weights of its own and nothing in it is sliced. Every
    tensor's channels are a multiple of the divisor, as by
    ``rounding='hardware'``, which is the divisor 8; beside them runs
    ``rounding='paper'``.

    Args:
        network (str): One of :data:`~.subjects.NETWORKS`, or a config.
        batch_size (int): Defaults to 1.
        divisors (Sequence[int]): Defaults to (1, 8, 16, 32).
        widths (Sequence[float]): At the full resolution. Defaults to (1.0,
            0.75, 0.7, 0.55).
        channels (Sequence[int]): Time single layers of so many channels
            instead of networks: 1x1, 3x3 and 3x3 depthwise convolutions on
            maps of 28 x 28. Defaults to none.
        rounds (int): Timed passes of each. Defaults to 15.
        device (str): Defaults to ``'cpu'``.

    Returns:
        dict: See :func:`~.turns.report`; ``settings`` tells the MACs of an
        image. Ratios are times against the divisor 8, and what a MAC takes
        against the widest network or layer.
    """
    macs: Dict[str, int] = {}
    if channels:
        calls = _layers(channels, batch_size, device, macs)
    else:
        calls = _networks(network, batch_size, divisors, widths, device, macs)
    with torch.no_grad():
        times = take_turns(calls, rounds, device, warm_up=3)
    ratios: List[Ratio] = []
    for name, seconds in times.items():
        what, _, last = name.rpartition(', ')
        usual = f'{what}, {_USUAL}'
        if not channels and last != str(_USUAL) and usual in times:
            ratios.append(ratio(f'{name} / {_USUAL}', seconds, times[usual]))
    for name, seconds in times.items():
        what = name.partition(', ')[0] if channels else ''
        same = [other for other in times if other.startswith(what)]
        base = max(same, key=lambda other: macs[other])
        ratios.append(
            ratio(
                f'a MAC of {name} / of {base}',
                [t / macs[name] for t in seconds],
                [t / macs[base] for t in times[base]],
            )
        )
    return report(
        'rounding',
        times,
        ratios,
        device,
        network='' if channels else network,
        batch_size=batch_size,
        macs=macs,
    )


@contextmanager
def _policy(divisor: Union[int, str]) -> Iterator[str]:
    """Name a rounding policy, one that is there in a ``with`` block alone."""
    if isinstance(divisor, str):
        yield divisor
        return
    name = f'multiples of {divisor}'

    def rounded(channels: float, rule: LayerRule) -> int:
        own = rule.divisor if rule.divisor != LayerRule.divisor else divisor
        return make_divisible(channels, own)

    ROUNDING[name] = rounded
    try:
        yield name
    finally:
        del ROUNDING[name]


def _networks(
    network: str,
    batch_size: int,
    divisors: Sequence[int],
    widths: Sequence[float],
    device: str,
    macs: Dict[str, int],
) -> Calls:
    calls: Calls = {}
    policies: List[Union[int, str]] = ['paper', *divisors]
    for policy in policies:
        cfg = open_config(network)
        cfg.model.mutual.width_range = (min(*widths, 0.99), max(widths))
        with _policy(policy) as name:
            cfg.model.mutual.rounding = name
            model = build_subject(cfg, device).eval()
            count = MacsByWidth(model)
            full = model.space.full
            whole = model.slim_state.max_width
            batch = training_batch(model, batch_size)
            data = model.data_preprocessor(batch, False)
            for width in widths:
                if width == whole and policy != policies[0]:
                    continue  # whatever the policy, it is whole
                subnet = Subnet(width, full.resolution, full.frames)
                key = f'{width:g}x, {policy}'
                net = copy.deepcopy(static_model(model, subnet)).eval()
                macs[key] = count(subnet)
                calls[key] = _passing(net, data['inputs'])
    return calls


def _passing(net: Any, inputs: Any) -> Call:
    return lambda: net.task.forward_cost(net, inputs)


def _layers(
    channels: Sequence[int],
    batch_size: int,
    device: str,
    macs: Dict[str, int],
) -> Calls:
    calls: Calls = {}
    for number in channels:
        maps = torch.randn(batch_size, number, _SIDE, _SIDE, device=device)
        for kind, layer, each in (
            ('1x1', nn.Conv2d(number, number, 1), number),
            ('3x3', nn.Conv2d(number, number, 3, padding=1), 9 * number),
            (
                'depthwise',
                nn.Conv2d(number, number, 3, padding=1, groups=number),
                9,
            ),
        ):
            key = f'{kind}, {number}'
            macs[key] = each * number * _SIDE**2
            calls[key] = _calling(layer.to(device).eval(), maps)
    return calls


def _calling(layer: nn.Module, maps: Any) -> Call:
    return lambda: layer(maps)
