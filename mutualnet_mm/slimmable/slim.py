# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Make any network of PyTorch slimmable in one call."""

from dataclasses import replace
from typing import Any, Mapping, Optional, Sequence, Set

import torch
from torch import nn

from ..errors import ConfigError
from .channel_trace import traced
from .channels import LayerRule
from .convert import convert, restore, stock_name
from .meta import meta_copy
from .slim_layer import SlimLayer
from .state import SlimState
from .trial import trial_shapes
from .vectors import SlimVectors
from .verify import verify_slicing


def slim(
    module: nn.Module,
    input_shape: Optional[Sequence[int]] = None,
    keep_outputs: bool = True,
    rules: Optional[Mapping[str, LayerRule]] = None,
    max_width: float = 1.0,
    rounding: str = 'paper',
) -> nn.Module:
    """Convert a network in place, find its joints and prove that it narrows.

    For networks of plain PyTorch, torchvision or timm. Parameters and their
    names stay as they are; at full width the network runs as before.
    Afterwards :func:`~.state.set_width` or :func:`~.state.active_width`
    switch the width, :class:`~.statistics.BatchNormCollector` finds its
    batch-norm statistics, without which a narrow network is not evaluated, and
    :func:`~.static.make_static` cuts one width out.

    Args:
        module (nn.Module): A whole network, with one tensor for input.
        input_shape (Sequence[int], optional): Shape of an input that it
            takes, with the batch. Defaults to None: one is found by trying.
        keep_outputs (bool): Whether the layers that make the outputs keep all
            channels, as a classifier has to. Feature maps may narrow, too.
            Defaults to True.
        rules (Mapping[str, LayerRule], optional): How single layers narrow,
            by name. Defaults to None.
        max_width (float): Width that the network was built at, relative to
            the base network. Defaults to 1.0.
        rounding (str): Rounding policy. Defaults to ``'paper'``.

    Returns:
        nn.Module: ``module`` itself.

    Raises:
        ConfigError: If the network cannot be slimmed; names the layer. It is
            as before then.

    Example:
        >>> net = slim(torchvision.models.vgg11())  # without batch norms
        >>> with active_width(net, 0.5):
        ...     scores = net(images)
    """
    before = {layer: type(layer) for layer in module.modules()}
    for path, layer in module.named_modules():
        if isinstance(layer, (SlimLayer, SlimVectors)):
            raise ConfigError(
                f'{stock_name(module)}: layer "{path}" is slim already; slim '
                'the whole network in one call, as it was built'
            )
    state = SlimState(max_width, rounding)
    convert(module, state, rules)
    if not any(isinstance(layer, SlimLayer) for layer in module.modules()):
        raise ConfigError(
            f'{stock_name(module)} has no layer that can narrow, such as a '
            'convolution, a linear layer or a norm'
        )
    try:
        if keep_outputs:
            _keep_outputs(module, input_shape)
        verify_slicing(module, input_shape=input_shape)
    except Exception:
        for layer, stock in before.items():
            restore(layer, stock)
        raise
    state.running_stats = False
    return module


def _keep_outputs(
    module: nn.Module, input_shape: Optional[Sequence[int]]
) -> None:
    """Fix the layers that the channels of the outputs come from."""
    name, net = stock_name(module), meta_copy(module)
    shape = trial_shapes(name, net, input_shape=input_shape)[0]
    like = next(net.parameters())
    x = torch.empty(shape, dtype=like.dtype, device='meta')
    try:
        trace, outputs = traced(net, x)
    except ConfigError as error:
        raise ConfigError(f'{name} cannot be slimmed: {error}') from error
    roots: Set[int] = set()
    for i, out in enumerate(outputs):
        channels = trace.all_channels(out)  # heads put some on other axes
        if not channels and trace.unknown:
            raise ConfigError(
                f'{name} cannot be slimmed: which layers make the channels of '
                f'output {i} is not known behind {", ".join(trace.unknown)}; '
                'name those that have to keep theirs, as in '
                "rules={'fc': LayerRule(fixed=True)}, and say "
                'keep_outputs=False'
            )
        roots.update(map(trace.sets.root, channels))
    modules = dict(module.named_modules())
    for name, made in trace.made.items():
        layer: Any = modules.get(name) if name else None
        # Channels are also the input's own, and those that vectors lie along.
        if isinstance(layer, SlimLayer) and not roots.isdisjoint(
            map(trace.sets.root, made)
        ):
            layer.slim_rule = replace(layer.slim_rule, fixed=True)
