# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The map that a backbone hands on, where torchcam can take hold of it."""

from contextlib import contextmanager
from typing import Any, Iterator, Type

from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..slimmable.convert import stock_name

_NAME = 'probed_map'


def cam_method(name: str) -> Type:
    """Return a class of torchcam.

    Args:
        name (str): ``'CAM'``, ``'GradCAM'`` or ``'LayerCAM'``.

    Raises:
        UsageError: If torchcam is not installed.
    """
    try:
        from torchcam import methods
    except ImportError as error:
        raise UsageError(
            'torchcam is missing: pip install "mutualnet_mm[analysis]" '
            '(it needs Python 3.11)'
        ) from error
    return getattr(methods, name)


@contextmanager
def probed(net: nn.Module, branch: int = -1) -> Iterator[nn.Module]:
    """Pass one map of the backbone through a layer of its own.

    Backbones return tuples, whose maps are made by layers of any name, or by
    none. The layer hands the map on unchanged, cut off from the backbone: its
    gradients are those of what follows.

    Args:
        net (nn.Module): Static model, see :meth:`TrainedNetwork.static`.
        branch (int): Which of several outputs. Defaults to -1, the last.

    Yields:
        nn.Module: The layer, as long as the block lasts.

    Raises:
        ConfigError: In a forward, if the backbone's output is no map.
    """
    probe = nn.Identity()
    backbone: Any = net.backbone

    def through(module: nn.Module, args: Any, output: Any) -> Any:
        outputs = [output] if isinstance(output, Tensor) else list(output)
        found = outputs[branch]
        if not isinstance(found, Tensor) or found.dim() < 4:
            raise ConfigError(
                f'{stock_name(module)} hands on no map of features, but '
                f'{getattr(found, "shape", type(found).__name__)}: activation '
                'maps are for backbones that keep height and width'
            )
        outputs[branch] = probe(found.detach().requires_grad_())
        if isinstance(output, Tensor):
            return outputs[0]
        return type(output)(outputs)

    net.add_module(_NAME, probe)
    handle = backbone.register_forward_hook(through)
    try:
        yield probe
    finally:
        handle.remove()
        delattr(net, _NAME)
