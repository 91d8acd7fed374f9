# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checkpoints of the published code, for a config of this package."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple, Union

from mmengine.config import Config
from torch import Tensor

from ..config.checks import check_files
from ..config.pipelines import pipeline_steps, stage_datasets
from ..engine import calibrate
from ..engine.calibration import SubnetStatistics
from ..engine.hooks import calibration_recipe
from ..errors import ConfigError, UsageError
from ..files import atomic_write, check_apart
from ..models.build import build_model, without_weights
from ..models.checkpoints import check_finite, load_strictly
from ..models.published import family_of, is_reset, rename
from ..models.published_check import check_same_network, widths_of
from ..models.published_file import read_published
from ..progress_bars import track
from ..slimmable import Statistics
from ..subnet import Subnet
from ..tensor_files import save_tensors

# What the published code normalises images with: name, mean, deviation.
_COLOURS = (
    ('ImageNet', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ('CIFAR', (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
)


@dataclass(frozen=True)
class ConvertedCheckpoint:
    """What was converted.

    Args:
        network (str): The published network, such as ``'MobileNetV1'``.
        num_weights (int): Tensors without statistics, all of them used.
        statistics (list[str]): Subnets whose statistics the file holds.
        calibrated (int): Batches that the statistics of the full network come
            from; 0 if they are the published ones.
        agreed (dict): Settings of the config that have to be those of the
            published training, and their values.
    """

    network: str
    num_weights: int
    statistics: List[str]
    calibrated: int
    agreed: Dict[str, Any]


def convert_checkpoint(
    cfg: Config,
    checkpoint: str,
    out: Union[str, Path],
    device: str = 'cpu',
) -> ConvertedCheckpoint:
    """Convert a checkpoint of the published code (MutualNet, US-Net).

    The file that is written loads strictly into the model of the config, and
    into the stock class. Beside ``state_dict`` it holds ``statistics``, as
    :func:`~mutualnet_mm.engine.calibrate` returns them: those that the
    published file keeps of narrower networks, at the full resolution.

    Args:
        cfg (Config): Of a classifier. Its data counts only where the
            statistics of the full network are missing: they are then
            calibrated as its ``BNCalibrationHook`` says.
        checkpoint (str): File of the published code.
        out (str or Path): File to write.
        device (str): Where to calibrate. Defaults to ``'cpu'``.

    Raises:
        UsageError: If the checkpoint cannot be read, has a weight that finds
            no place, lacks one, or was trained at other widths.
        ConfigError: If the network of the config computes something else, or
            normalises images otherwise, or has no images to calibrate on
            where that is needed.
    """
    check_apart(out, checkpoint, 'the published checkpoint')
    published = read_published(checkpoint)
    check_finite(published, f'checkpoint {checkpoint!r}')
    model: Any = build_model(without_weights(cfg))
    found = rename(model, published)
    _check_settings(cfg, model)
    check_same_network(model, published)
    whole = {**model.state_dict(), **found.weights}
    load_strictly(model, whole, f'checkpoint {checkpoint!r}')
    bank = _statistics(model, published, found.statistics)
    full = str(model.space.full)
    own, calibrated = bank.pop(full, None), 0
    if own is None:
        own, calibrated = _calibrated(cfg, model, checkpoint, device)
    for name, (mean, var) in own.items():
        layer = model.get_submodule(name)
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
    network = family_of(model).name
    content = dict(
        meta=dict(converted_from=Path(checkpoint).name, network=network),
        state_dict=model.cpu().state_dict(),
        statistics=bank,
    )
    with atomic_write(out) as file:
        save_tensors(content, file)
    return ConvertedCheckpoint(
        network, len(found.weights), list(bank), calibrated, _agreed(model)
    )


def _check_settings(cfg: Config, model: Any) -> None:
    """Refuse what neither the weights nor the formulas show."""
    space, built = model.space, model.slim_state.max_width
    if space.max_width != built or model.sampler.primary != space.full:
        raise ConfigError(
            f'the published network is the one of width {built}, and the '
            f'config has {model.sampler.primary} as its full one: let '
            f'mutual.width_range end at {built}, without single_subnet'
        )
    images = model.data_preprocessor
    found = [_numbers(images, 'mean'), _numbers(images, 'std')]
    if found not in [list(colours[1:]) for colours in _COLOURS]:
        known = '; '.join(
            f'mean={list(mean)}, std={list(std)} ({name})'
            for name, mean, std in _COLOURS
        )
        raise ConfigError(
            f'data_preprocessor normalises by mean={list(found[0])}, '
            f'std={list(found[1])}, and the published code by one of {known}: '
            'set the one of the training'
        )
    loads = any(
        step.kind == 'LoadImageFromFile'
        for place, dataset in stage_datasets(cfg, ('test',))
        for step in pipeline_steps(place, dataset)
    )
    if loads and not images.to_rgb:
        raise ConfigError(
            'data_preprocessor.to_rgb=False, and LoadImageFromFile delivers '
            'BGR: the published networks see RGB, set to_rgb=True'
        )


def _numbers(images: Any, name: str) -> Tuple[float, ...]:
    values = getattr(images, name, None)
    values = [] if values is None else values.flatten().tolist()
    return tuple(round(value, 4) for value in values)


def _statistics(
    model: Any,
    published: Mapping[str, Tensor],
    found: Sequence[Statistics],
) -> SubnetStatistics:
    """Those that the file keeps, by subnet; it does not say which they are.

    Raises:
        UsageError: If the config begins at a width below all of them.
    """
    space = model.space
    bank: SubnetStatistics = {}
    widths = widths_of(model, published, found)
    for equal, statistics in zip(widths, found):
        names = [space.max_width] if space.max_width in equal else equal
        for width in [] if is_reset(statistics) else names:
            if space.min_width <= width:
                subnet = Subnet(width, space.full.resolution)
                bank.setdefault(str(subnet), statistics)
    least = min((equal[0] for equal in widths), default=0)
    if len(widths) > 1 and space.min_width < least:
        raise UsageError(
            f'mutual.width_range begins at {space.min_width}, and the '
            'statistics of batch norms that the checkpoint keeps at '
            f'{least}, below which it has not been trained: set '
            f'mutual.width_range=({least}, {space.max_width})'
        )
    return bank


def _calibrated(
    cfg: Config, model: Any, checkpoint: str, device: str
) -> Tuple[Statistics, int]:
    """Statistics of the full network, and the batches that they are from."""
    recipe, number = calibration_recipe(cfg), 0

    def counted() -> Iterator[Any]:
        nonlocal number
        batches = recipe.batches_of(cfg)
        for batch in track(batches, 'calibrating', recipe.num_batches):
            number += 1
            yield batch

    try:
        if recipe.dataloader is None:
            check_files(cfg, ('train',))
        full = model.space.full
        model.to(device)
        bank = calibrate(model, [full], counted(), recipe.is_tested)
    except UsageError as error:
        raise type(error)(
            f'checkpoint {checkpoint!r} has no statistics of the full '
            f'network, which are calibrated then: {error}'
        ) from error
    return bank[str(full)], number


def _agreed(model: Any) -> Dict[str, Any]:
    space = model.space
    return {
        'mutual.width_range': (space.min_width, space.max_width),
        'mutual.resolution': tuple(space.resolutions),
        'rounding': model.slim_state.rounding,
        'data_preprocessor.mean': _numbers(model.data_preprocessor, 'mean'),
        'data_preprocessor.std': _numbers(model.data_preprocessor, 'std'),
    }
