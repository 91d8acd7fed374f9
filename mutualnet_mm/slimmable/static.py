# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The static form of one subnet: stock layers of its own, narrow sizes."""

from typing import Any, Callable, Mapping, Optional, Tuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ..errors import UsageError
from .batch_norms import SlimBatchNorm
from .convert import restore
from .heads import SlimHeads
from .meta import run_on_meta
from .slim_layer import SlimLayer
from .statistics import Statistics, check_statistics, slim_batch_norms
from .trace import Channels, FoldFinder, watch_channels
from .vectors import SlimVectors


def make_static(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
    statistics: Optional[Statistics] = None,
    fuse_bn: bool = False,
) -> None:
    """Turn every slim layer into a stock one of the active subnet, in place.

    One pass on the meta device tells each layer's channels. Weights that
    become narrower are contiguous copies; those that stay whole, and layers
    that ``forward`` does not reach, keep their tensors. Afterwards the module
    runs this subnet alone.

    Args:
        module (nn.Module): With slim layers, at the subnet's width.
        *inputs: As for the module; shapes alone count.
        forward (Callable, optional): ``forward(module, *inputs)``, what to
            run. Defaults to calling the module.
        statistics (dict, optional): Statistics of the subnet's batch norms, by
            layer name. Defaults to the leading running ones, where the state
            allows that.
        fuse_bn (bool): Fold each batch norm that alone takes the output of a
            convolution into it, for evaluation; ``nn.Identity`` stands in its
            place. Defaults to False.

    Raises:
        ConfigError: If statistics are given of a layer that does not exist.
        UsageError: If they lack and the running ones may not be used. Nothing
            is changed then.
    """
    statistics = statistics or {}
    check_statistics(module, statistics)
    for layer in module.modules():
        layer.__dict__.pop('subnet_stats', None)  # of what was active last
    with watch_channels(module) as channels, FoldFinder(module) as finder:
        outputs = run_on_meta(module, *inputs, forward=forward)
    _check_running(module, channels, statistics)
    for name, layer in module.named_modules():
        if isinstance(layer, SlimLayer):
            _shrink(layer, channels.get(layer), statistics.get(name))
            restore(layer)
        elif isinstance(layer, SlimHeads):
            layer.settle()
        elif isinstance(layer, SlimVectors):
            vectors = layer.narrowed()
            restore(layer)
            _set_narrow(layer, vectors)
    if fuse_bn:
        pairs = finder.pairs(outputs)
        folded = [norm for conv, norm in pairs if _fold(conv, norm)]
        for parent in [*module.modules()]:
            for name, child in [*parent._modules.items()]:
                if child in folded:
                    identity = nn.Identity().train(child.training)
                    setattr(parent, name, identity)


def _check_running(
    module: nn.Module,
    channels: Mapping[nn.Module, Channels],
    statistics: Statistics,
) -> None:
    """Refuse running statistics where they may not be used."""
    for name, layer in slim_batch_norms(module):
        if layer not in channels or layer.running_mean is None:
            continue
        given = layer.slim_state.running_stats or name in statistics
        if not layer.is_widest and not given:
            raise UsageError(
                f'batch norm "{name}" has no statistics of width '
                f'{layer.slim_state.width:g}, and the running ones are the '
                "full network's: collect some by BatchNormCollector and give "
                'them as statistics'
            )


def _shrink(
    layer: Any,
    channels: Optional[Channels],
    statistics: Optional[Tuple[Tensor, Tensor]],
) -> None:
    if isinstance(layer, SlimBatchNorm):
        layer.settle_affine()
    if channels is not None:
        inputs, outputs = channels
        if isinstance(layer, _BatchNorm):
            statistics = statistics or layer.active_statistics(inputs)
            # Where a convolution is folded, a single one would be spread.
            if statistics[0] is not None and len(statistics[0]) != inputs:
                raise UsageError(
                    f'a batch norm runs at {inputs} channels with statistics '
                    f'of {len(statistics[0])}: they are of a subnet of '
                    'another width'
                )
        _set_narrow(layer, layer.narrowed(inputs))
        layer.set_channels(inputs, outputs)
    if isinstance(layer, _BatchNorm):
        _set_statistics(layer, statistics)


def _set_narrow(
    module: nn.Module, narrow: Mapping[str, Optional[Tensor]]
) -> None:
    """Put copies in place of the parameters and buffers that are wider."""
    for name, part in narrow.items():
        whole = getattr(module, name)
        if part is None or part.shape == whole.shape:
            continue
        # Cloned even if contiguous: it must not keep the whole alive.
        part = part.detach().clone()
        if name in module._parameters:
            part = nn.Parameter(part, whole.requires_grad)
        setattr(module, name, part)


def _set_statistics(
    layer: Any, statistics: Optional[Tuple[Tensor, Tensor]]
) -> None:
    own = statistics or (layer.running_mean, layer.running_var)
    if own[0] is not None:
        # Copies: training would move those of the whole network.
        layer.running_mean, layer.running_var = map(Tensor.clone, own)
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked = layer.num_batches_tracked.clone()


def _fold(convolution: Any, norm: Any) -> bool:
    """Fold ``norm`` into ``convolution``; False if it has no statistics."""
    if norm.running_mean is None:
        return False
    device = convolution.weight.device  # weights alone may be on meta
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean.to(device),
        norm.running_var.to(device),
        norm.eps,
        norm.weight,
        norm.bias,
    )
    return True
