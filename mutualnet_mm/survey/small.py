# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Stock pipelines at a fraction of their size."""

from typing import Any

from mmengine.config import Config

# What steps and batch augmentations call sizes in pixels.
_SIZES = (
    *('scale', 'scales', 'img_scale', 'size', 'crop_size', 'input_size'),
    'random_size_range',
)
_OFFSETS = ('border',)  # half of a size, exactly
_STRIDE = 32  # what was a multiple of it stays one
_FEW = 16  # numbers up to it are no sizes


def make_small(cfg: Config, divisor: int) -> None:
    """Divide all sizes of the pipelines, and of batch augmentations.

    Only what is a number of pixels changes: which steps there are, and the
    network, stay. Multiples of the preprocessor's divisor stay multiples.

    Args:
        cfg (Config): It is changed.
        divisor (int): 1 changes nothing.
    """
    if divisor == 1:
        return
    preprocessor = cfg.model.get('data_preprocessor') or {}
    stride = preprocessor.get('pad_size_divisor') or 1
    stride = max(stride, _STRIDE)
    for stage in ('train', 'val', 'test'):
        _divide(cfg.get(f'{stage}_dataloader'), divisor, stride)
    _divide(preprocessor.get('batch_augments'), divisor, stride)


def _divide(node: Any, divisor: int, stride: int) -> None:
    if isinstance(node, (list, tuple)):
        for item in node:
            _divide(item, divisor, stride)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in _SIZES:
            node[key] = divided(value, divisor, stride)
        elif key in _OFFSETS:
            node[key] = divided(value, divisor, 1)
        else:
            _divide(value, divisor, stride)


def divided(value: Any, divisor: int, stride: int) -> Any:
    """Divide the sizes in a setting; others, and parts of 1, stay.

    Args:
        value: A number, or lists of them.
        divisor (int): What they are divided by.
        stride (int): Multiples of it stay multiples.

    Example:
        >>> divided([(1333, 800), (0.5, 1)], 4, 32)
        [(333, 192), (0.5, 1)]
    """
    if isinstance(value, (list, tuple)):
        return type(value)(divided(item, divisor, stride) for item in value)
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    if abs(value) <= _FEW:
        return value
    if value > 0 and value % stride == 0:
        return max(1, round(value / divisor / stride)) * stride
    return int(value / divisor)
