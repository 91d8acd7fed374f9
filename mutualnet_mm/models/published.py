# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The networks of the published code, MutualNet's own and US-Net's.

Both number the layers of a network, ``features.3.body.0``, and hold the
statistics of a batch norm by width, ``features.3.body.1.bn.0.running_mean``,
in the order of a list that the file does not have.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import count
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from torch import Tensor, nn

from ..errors import ConfigError, UsageError
from ..registry import ClassTable
from ..slimmable import Statistics
from .published_formula import PublishedNetwork

Names = Iterator[Tuple[str, str]]
"""Published and own name of each layer, in the order of the pass."""

_STATISTIC = re.compile(
    r'(?:bn\.(\d+)\.)?(running_mean|running_var|num_batches_tracked)'
)


def _blocks(backbone: nn.Module) -> Iterator[Tuple[str, nn.Module]]:
    """Names and blocks of all stages, in order."""
    for stage in count(1):
        blocks = getattr(backbone, f'layer{stage}', None)
        if blocks is None:
            return
        for number, block in enumerate(blocks):
            yield f'layer{stage}.{number}', block


def _pair(place: str, index: int, convolution: str, norm: str) -> Names:
    """A convolution, and the batch norm that follows it."""
    yield f'{place}.{index}', convolution
    yield f'{place}.{index + 1}', norm


def _mobilenet_v1(backbone: nn.Module) -> Names:
    yield from _pair('features.0', 0, 'conv1.conv', 'conv1.bn')
    for number, (name, _) in enumerate(_blocks(backbone), 1):
        for index, part in ((0, 'depthwise_conv'), (3, 'pointwise_conv')):
            unit = f'{name}.{part}'
            yield from _pair(
                f'features.{number}.body', index, f'{unit}.conv', f'{unit}.bn'
            )


def _mobilenet_v2(backbone: nn.Module) -> Names:
    yield from _pair('features.0', 0, 'conv1.conv', 'conv1.bn')
    number = 0
    for number, (name, block) in enumerate(_blocks(backbone), 1):
        for index in range(len(getattr(block, 'conv', ()))):
            unit = f'{name}.conv.{index}'
            yield from _pair(
                f'features.{number}.body',
                3 * index,
                f'{unit}.conv',
                f'{unit}.bn',
            )
    yield from _pair(f'features.{number + 1}', 0, 'conv2.conv', 'conv2.bn')


def _resnet(backbone: nn.Module) -> Names:
    yield from _pair('features.0', 0, 'conv1', 'bn1')
    for number, (name, block) in enumerate(_blocks(backbone), 1):
        place = f'features.{number}'
        for i in (1, 2, 3):
            yield from _pair(
                f'{place}.body', 3 * i - 3, f'{name}.conv{i}', f'{name}.bn{i}'
            )
        if getattr(block, 'downsample', None) is not None:
            side = f'{name}.downsample'
            yield from _pair(f'{place}.shortcut', 0, f'{side}.0', f'{side}.1')


def _wide_resnet(backbone: nn.Module) -> Names:
    yield 'conv1', 'conv1'
    for name, block in _blocks(backbone):
        stage, number = name.replace('layer', '').split('.')
        place = f'block{stage}.layer.{number}'
        for part in ('bn1', 'conv1', 'bn2', 'conv2'):
            yield f'{place}.{part}', f'{name}.{part}'
        if getattr(block, 'shortcut', None) is not None:
            yield f'{place}.convShortcut', f'{name}.shortcut'
    yield 'bn1', 'norm'


class Family(NamedTuple):
    """A network of the published code.

    Args:
        name (str): What messages call it.
        names (Callable): Yields the names of the layers of a backbone.
        logits (Callable): Method of :class:`PublishedNetwork`.
        size (int): Pixels that leave a map of 1 x 1, or more.
        classifier (str): Published name of the last layer.
    """

    name: str
    names: Callable[[nn.Module], Names]
    logits: Callable[[PublishedNetwork, Tensor], Tensor]
    size: int = 32
    classifier: str = 'classifier.0'


FAMILIES: ClassTable[Family] = ClassTable()
for _family in (
    Family('MobileNetV1', _mobilenet_v1, PublishedNetwork.mobilenet_v1),
    Family('MobileNetV2', _mobilenet_v2, PublishedNetwork.mobilenet_v2),
    Family('ResNet', _resnet, PublishedNetwork.resnet),
    Family('WideResNet', _wide_resnet, PublishedNetwork.wide_resnet, 8, 'fc'),
):
    FAMILIES.register(_family.name, _family)


def family_of(model: Any) -> Family:
    """Return the published network that a classifier is.

    Raises:
        ConfigError: If it is none; names those that there are.
    """
    found = FAMILIES.find(type(model.backbone))
    fc = getattr(getattr(model, 'head', None), 'fc', None)
    if found is None or not isinstance(fc, nn.Linear):
        raise ConfigError(
            f'published weights are of classifiers: MobileNetV1, MobileNetV2, '
            f'ResNet and WideResNet under a LinearClsHead, and the config is '
            f'of a {type(model).__name__} with the backbone '
            f'{type(model.backbone).__name__}: use one such as mutualnet_mm::'
            'classification/mutual-mobilenet-v1_8xb128_in1k.py'
        )
    return found


def layer_names(model: Any) -> List[Tuple[str, str]]:
    """Published and own name of every layer of a classifier, in order."""
    family = family_of(model)
    return [
        *((a, f'backbone.{b}') for a, b in family.names(model.backbone)),
        (family.classifier, 'head.fc'),
    ]


@dataclass
class PublishedWeights:
    """What a published checkpoint gives to a model, by the model's names.

    Args:
        weights (dict): All but the statistics of batch norms.
        statistics (list[Statistics]): Those of all batch norms, for each
            width that the file keeps some of, in its order.
    """

    weights: Dict[str, Tensor]
    statistics: List[Statistics]


def is_reset(statistics: Statistics) -> bool:
    """Whether these are the initial ones, which fit no network.

    Before the published code calibrates a width it resets those of all
    widths: of the networks that it saves then, only the last one has some.
    """
    return any(
        not mean.any() and bool((var == 1).all())
        for mean, var in statistics.values()
    )


def rename(model: Any, published: Mapping[str, Tensor]) -> PublishedWeights:
    """Give published weights the names of a model.

    Args:
        model (MutualLearningMixin): Not changed.
        published (Mapping): As :func:`~.published_file.read_published`
            returns them.

    Raises:
        UsageError: If a weight of either side has no counterpart, or one of
            another shape.
    """
    own = model.state_dict()
    weights: Dict[str, Tensor] = {}
    used: Set[str] = set()
    norms: Dict[str, Dict[Optional[int], Dict[str, Tensor]]] = {}
    for theirs, ours in layer_names(model):
        for kind in ('weight', 'bias'):
            name, key = f'{ours}.{kind}', f'{theirs}.{kind}'
            if key in published:
                used.add(key)
                weights[name] = published[key]
        if f'{ours}.running_mean' in own:
            norms[ours] = _statistics_of(theirs, published, used)
    expected = set(weights).union(
        f'{norm}.{kind}'
        for norm in norms
        for kind in ('running_mean', 'running_var', 'num_batches_tracked')
    )
    _check_complete(
        family_of(model).name,
        [key for key in own if key not in expected],
        [key for key in published if key not in used]
        + [key for key in weights if key not in own],
    )
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise UsageError(
                f'{name} is {tuple(value.shape)} in the checkpoint, and '
                f'{tuple(own[name].shape)} in the network of the config: set '
                'its head.num_classes, or the width that it is built at '
                '(widen_factor, max_width and head.in_channels)'
            )
    return PublishedWeights(weights, _banks(norms))


def _check_complete(
    network: str, missing: Sequence[str], surplus: Sequence[str]
) -> None:
    """Refuse weights of either side that have no counterpart."""
    left = [
        f'{names[0]}{f" and {len(names) - 1} more" * (len(names) > 1)} {what}'
        for names, what in (
            (missing, 'of the config would stay random'),
            (surplus, 'of the checkpoint would be left over'),
        )
        if names
    ]
    if left:
        raise UsageError(
            f'the checkpoint is not of the {network} of the config: '
            f'{"; ".join(left)}'
        )


def _statistics_of(
    theirs: str, published: Mapping[str, Tensor], used: Set[str]
) -> Dict[Optional[int], Dict[str, Tensor]]:
    """What a batch norm kept: by number in a list of widths, or for all."""
    found: Dict[Optional[int], Dict[str, Tensor]] = defaultdict(dict)
    for key, value in published.items():
        if key.startswith(f'{theirs}.'):
            match = _STATISTIC.fullmatch(key[len(theirs) + 1 :])
            if match is not None:
                number, kind = match.groups()
                used.add(key)
                found[None if number is None else int(number)][kind] = value
    return found


def _banks(
    norms: Mapping[str, Mapping[Optional[int], Mapping[str, Tensor]]],
) -> List[Statistics]:
    """Statistics of all batch norms for each width, in the file's order.

    The last batch norm of MobileNetV2 has one set for all widths.
    """
    for norm, kept in norms.items():
        if None in kept and len(kept) > 1:
            raise UsageError(
                f'the checkpoint is damaged: {norm} has statistics by width, '
                'and others for all widths'
            )
    numbers = {number for kept in norms.values() for number in kept}
    if numbers == {None} and all(norms.values()):
        return [_bank(norms, None)]
    return [
        _bank(norms, n) for n in sorted(n for n in numbers if n is not None)
    ]


def _bank(
    norms: Mapping[str, Mapping[Optional[int], Mapping[str, Tensor]]],
    number: Optional[int],
) -> Statistics:
    bank: Statistics = {}
    for norm, kept in norms.items():
        values = kept.get(number, kept.get(None, {}))
        if not {'running_mean', 'running_var'} <= set(values):
            raise UsageError(
                'the checkpoint is damaged: it has statistics of batch norms, '
                f'but none of {norm} among those of width number {number}'
            )
        mean, var = values['running_mean'], values['running_var']
        shapes = [tuple(value.shape) for value in (mean, var)]
        if shapes[0] != shapes[1] or len(shapes[0]) != 1 or (var < 0).any():
            raise UsageError(
                'the checkpoint is damaged: the statistics of width number '
                f'{number} that it keeps for {norm} are of shapes {shapes[0]} '
                f'and {shapes[1]}, or have a negative variance'
            )
        bank[norm] = mean, var
    return bank
