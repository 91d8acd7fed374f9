# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Layers that would run narrow subnets wrong without an error."""

from torch import nn

from ..errors import ConfigError, UsageError
from ..sampler import SubnetSampler
from ..slimmable import BuiltLayers, slim_batch_norms
from ..subnet import Subnet


def check_frozen(
    model: nn.Module, sampler: SubnetSampler, source: str
) -> None:
    """Refuse batch norms that would use running statistics in training.

    A network of one full-width subnet may have them, as any stock one: they
    are its own, or those of its pretrained backbone.

    Args:
        model (nn.Module): In training mode.
        sampler (SubnetSampler): What subnets are trained.
        source (str): Which settings may have frozen them.

    Raises:
        ConfigError: Names the first one, and what to set.
    """
    frozen = [n for n, m in slim_batch_norms(model) if not m.training]
    if not frozen or sampler.trains_full_width_alone:
        return
    remedy = 'do not freeze them'
    if frozen[0].startswith('backbone.'):
        remedy = 'set norm_eval=False and frozen_stages=-1 in model.backbone'
        if getattr(model.backbone, 'partial_bn', False):
            remedy = 'set partial_bn=False in model.backbone'
    elif '.shared_head.' in frozen[0]:
        part = frozen[0].split('.shared_head.')[0]
        remedy = f'set norm_eval=False in model.{part}.shared_head'
    raise ConfigError(
        f'{len(frozen)} batch norms are frozen ({frozen[0]}, ...) by '
        f'settings {source}, but the statistics of the full network fit '
        f'no narrower one: {remedy}'
    )


def check_layers(built: BuiltLayers, subnet: Subnet, primary: Subnet) -> None:
    """Adopt layers that were replaced since the build, or refuse them.

    Args:
        built (BuiltLayers): Of the model.
        subnet (Subnet): That is to be run.
        primary (Subnet): Which runs with stock layers, too.

    Raises:
        UsageError: Names the first one that cannot be adopted.
    """
    changed = built.adopt()
    if changed and subnet != primary:
        name, new = changed[0]
        found = 'gone' if new is None else f'a {type(new).__name__}'
        raise UsageError(
            f'{len(changed)} layers were replaced after the model was '
            f'built: {name} is {found} now, which runs the full network '
            f'alone, not {subnet}. Leave out what did that '
            "(fuse_conv_bn, switch_to_deploy, sync_bn='mmcv', ...); "
            "sync_bn='torch' works, and mutualnet export folds the "
            'batch norms of a subnet'
        )


def check_trained_layers(built: BuiltLayers, sampler: SubnetSampler) -> None:
    """Refuse layers that were replaced, before any subnet is trained.

    The full network, which comes first in a step, may run with them.

    Args:
        built (BuiltLayers): Of the model.
        sampler (SubnetSampler): What subnets are trained.

    Raises:
        UsageError: As :func:`check_layers`.
    """
    for subnet in sampler.sample(0).values():
        check_layers(built, subnet, sampler.primary)
