# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The way from images to what heads take, where a model has its own."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..slimmable import SlimLayer
from ..slimmable.convert import stock_name
from ..slimmable.layer_calls import record_calls
from ..slimmable.meta import meta_copy
from ..slimmable.trial import trial_shapes
from ..slimmable.verify import proof_copy
from .wraps import Stock, mix

SIDE = 64
"""Pixels of the images that networks with a neck or head are tried on."""
_PACKAGES = ('mmdet', 'mmpretrain', 'mmaction')


def goes_its_own_way(model: Any) -> bool:
    """Whether a model of images has an ``extract_feat`` of a project's own.

    Those of the stock packages run the backbone and then the neck. Others may
    take the backbone's maps elsewhere, too, as a second branch does.

    Args:
        model (MutualLearningMixin): With its task.
    """
    method = getattr(type(model).stock_class, 'extract_feat', None)
    package = getattr(method, '__module__', _PACKAGES[0]).partition('.')[0]
    return not model.task.takes_frames and package not in _PACKAGES


def feature_path(model: Any) -> nn.Module:
    """A network that runs what of a model follows the width, as it does.

    It shares the layers of the model, by the same names. Children that do
    not run, such as heads behind proposals, are none of its modules, but can
    be asked for: ``extract_feat`` may look at them.

    Args:
        model (MutualLearningMixin): Of images, with its task.
    """
    path = copy.copy(model)
    path.__class__ = mix(FeaturePath, type(model).stock_class)
    path.with_heads = model.task.runs_heads(model)  # asked of it whole
    is_blank = any(p.is_meta for p in model.parameters())
    net: Any = meta_copy(path) if is_blank else proof_copy(path)
    like = next(net.parameters())
    (shape, *_) = trial_shapes(stock_name(model), net, SIDE)
    x = torch.zeros(shape, dtype=like.dtype, device=like.device)
    ran = {call.name.partition('.')[0] for call in record_calls(net, x)[0]}
    idle = {
        name: child
        for name, child in model._modules.items()
        if name not in ran and _has_slim(child)
    }
    path._modules = {
        name: child
        for name, child in model._modules.items()
        if name not in idle
    }
    path.__dict__.update(idle)
    return path


def _has_slim(child: nn.Module) -> bool:
    return any(isinstance(layer, SlimLayer) for layer in child.modules())


class FeaturePath(Stock):
    """Makes a model of images run what of it follows the width."""

    prefix = 'FeaturesOf'
    with_heads: bool

    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run it on images alone; with more, the stock model."""
        if args or kwargs:
            return super().forward(inputs, *args, **kwargs)
        task = self.task
        run = task.forward_sliced if self.with_heads else task.forward_cost
        return run(self, inputs)
