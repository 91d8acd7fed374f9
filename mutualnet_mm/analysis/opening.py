# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the tools for maps do before they look at their files."""

from argparse import Namespace
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from torch import nn

from ..config import load_config
from .classes import chosen_class
from .map_figures import output_names
from .trained import TrainedNetwork


class Opened(NamedTuple):
    """What :func:`open_for_maps` returns.

    Attributes:
        network (TrainedNetwork): Of the config and checkpoint.
        nets (list[nn.Module]): Its subnets, as static models.
        names (list[str], optional): Of the classes, where they are known.
        label (int, optional): Class to map, where one is given.
        outputs (list[Path]): For each file, path of its outputs without
            suffix.
    """

    network: TrainedNetwork
    nets: List[nn.Module]
    names: Optional[List[str]]
    label: Optional[int]
    outputs: List[Path]


def open_for_maps(args: Namespace, tasks: Sequence[str]) -> Opened:
    """Open what a command names; what is wrong with it is said at once.

    Args:
        args (Namespace): As :func:`~.cli_analysis.maps_parser` reads them.
        tasks (Sequence[str]): As for :class:`TrainedNetwork`.

    Raises:
        ConfigError: As :class:`TrainedNetwork` does.
        UsageError: As it does; if two files have the same name, or there is
            no such class.
    """
    stems = output_names(args.file)
    cfg = load_config(args.config, args.cfg_options)
    network = TrainedNetwork(
        cfg, args.checkpoint, args.subnet, device=args.device, tasks=tasks
    )
    names, label = chosen_class(network, args.checkpoint, args.label)
    folder = Path(args.out)
    nets = [network.static(subnet) for subnet in network.subnets]
    return Opened(
        network, nets, names, label, [folder / stem for stem in stems]
    )
