# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The static form of one subnet: stock layers of its own, narrow sizes."""

from typing import (
    Any,
    Callable,
    Dict,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Tuple,
)

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


class StaticSizes(NamedTuple):
    """What one pass tells of a subnet.

    Args:
        channels (dict): Input and output channels of the slim layers that
            ran, by name.
        folds (list): Convolutions and the batch norms that alone take their
            output, by name.
    """

    channels: Dict[str, Channels]
    folds: List[Tuple[str, str]]


def static_sizes(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
) -> StaticSizes:
    """Find by one pass on the meta device what :func:`make_static` needs.

    Args:
        module (nn.Module): As for :func:`make_static`.
        *inputs: Likewise.
        forward (Callable, optional): Likewise.
    """
    _drop_statistics(module)
    with watch_channels(module) as channels, FoldFinder(module) as finder:
        outputs = run_on_meta(module, *inputs, forward=forward)
    names = {layer: name for name, layer in module.named_modules()}
    return StaticSizes(
        {names[layer]: pair for layer, pair in channels.items()},
        [(names[c], names[norm]) for c, norm in finder.pairs(outputs)],
    )


def make_static(
    module: nn.Module,
    *inputs: Any,
    forward: Optional[Callable[..., Any]] = None,
    statistics: Optional[Statistics] = None,
    fuse_bn: bool = False,
    sizes: Optional[StaticSizes] = None,
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
        sizes (StaticSizes, optional): What :func:`static_sizes` has found of
            such a module. Defaults to None: it is found now.

    Raises:
        ConfigError: If statistics are given of a layer that does not exist.
        UsageError: If they lack and the running ones may not be used. Nothing
            is changed then.
    """
    statistics = statistics or {}
    check_statistics(module, statistics)
    _drop_statistics(module)
    if sizes is None:
        sizes = static_sizes(module, *inputs, forward=forward)
    else:
        _check_sizes(module, sizes)
    channels, layers = sizes.channels, dict(module.named_modules())
    _check_running(module, channels, statistics)
    for name, layer in layers.items():
        if isinstance(layer, SlimLayer):
            _shrink(layer, channels.get(name), statistics.get(name))
            restore(layer)
        elif isinstance(layer, SlimHeads):
            layer.settle()
        elif isinstance(layer, SlimVectors):
            vectors = layer.narrowed()
            restore(layer)
            _set_narrow(layer, vectors)
    if fuse_bn:
        pairs = [(layers[c], layers[norm]) for c, norm in sizes.folds]
        folded = [norm for conv, norm in pairs if _fold(conv, norm)]
        for parent in [*module.modules()]:
            for name, child in [*parent._modules.items()]:
                if child in folded:
                    identity = nn.Identity().train(child.training)
                    setattr(parent, name, identity)


def _drop_statistics(module: nn.Module) -> None:
    for layer in module.modules():
        layer.__dict__.pop('subnet_stats', None)  # of what was active last


def _check_sizes(module: nn.Module, sizes: StaticSizes) -> None:
    """Refuse sizes that are not those of the active subnet."""
    layers: Dict[str, Any] = dict(module.named_modules())
    for name, (inputs, outputs) in sizes.channels.items():
        layer = layers.get(name)
        if (
            not isinstance(layer, SlimLayer)
            or not layer.makes(inputs) == outputs > 0
        ):
            raise UsageError(
                f'layer {name!r} does not make {outputs} channels of {inputs} '
                f'at width {layers[""].slim_state.width:g}: the sizes are of '
                'another subnet or network'
            )
    for name in {name for pair in sizes.folds for name in pair}:
        if name not in sizes.channels:
            raise UsageError(f'layer {name!r} to fold has no sizes')


def _check_running(
    module: nn.Module,
    channels: Mapping[str, Channels],
    statistics: Statistics,
) -> None:
    """Refuse running statistics where they may not be used."""
    for name, layer in slim_batch_norms(module):
        if name not in channels or layer.running_mean is None:
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
