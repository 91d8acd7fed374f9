# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Weight and bias of batch norms for each input size.

They are children of the batch norm, so that code which puts another layer in
its place (``SyncBN`` and its reversion) hands them on.
"""

from typing import Any, Dict, Iterator, MutableMapping, Tuple

import torch
from torch import Tensor, nn

_NAMES = ('weight', 'bias')


class PrivateAffine(nn.GroupNorm):
    """Weight and bias that a batch norm has for one input size.

    It is never run. It is a group norm to let optimizers know whose
    parameters these are (``norm_decay_mult``).

    Args:
        layer (nn.Module): The batch norm, whose weight and bias it starts
            with.

    Attributes:
        is_loaded (bool): Whether they come from a checkpoint.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__(1, layer.num_features, layer.eps, affine=False)
        for name in _NAMES:
            value = getattr(layer, name)
            copied = nn.Parameter(value.detach().clone(), value.requires_grad)
            setattr(self, name, copied)
        self.is_loaded = False

    @torch.no_grad()
    def start_with(self, layer: nn.Module) -> None:
        """Take the weight and bias of the batch norm, once more."""
        for name in _NAMES:
            getattr(self, name).copy_(getattr(layer, name))

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.is_loaded = f'{prefix}weight' in state_dict


def private_affines(
    module: nn.Module,
) -> Iterator[Tuple[nn.Module, PrivateAffine]]:
    """Batch norms, and what they have for an input size, of a module."""
    for layer in module.modules():
        for child in layer._modules.values():
            if isinstance(child, PrivateAffine):
                yield layer, child


def fill_private(
    module: nn.Module, weights: MutableMapping[str, Tensor], prefix: str = ''
) -> None:
    """Let weights that have none of these begin with those of all sizes.

    Such as those of stock checkpoints: what a batch norm has for one input
    size is a copy of its weight and bias then.

    Args:
        module (nn.Module): That the weights are for.
        weights (dict): A ``state_dict``, which is changed.
        prefix (str): Of the module's keys in it. Defaults to none.
    """
    for own, shared in private_names(module).items():
        if prefix + own not in weights and prefix + shared in weights:
            # A copy: loaders may take the very tensor.
            weights[prefix + own] = weights[prefix + shared].clone()


def private_names(module: nn.Module) -> Dict[str, str]:
    """Names of all private parameters, and of those that they stand for."""
    found = {}
    for path, layer in module.named_modules(remove_duplicate=False):
        if isinstance(layer, PrivateAffine):
            parent = path.rpartition('.')[0]
            for name in _NAMES:
                found[f'{path}.{name}'] = f'{parent}.{name}'.lstrip('.')
    return found
