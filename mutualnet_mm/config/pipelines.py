# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The data sets of a config, and the steps of their pipelines."""

from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from mmengine.config import Config

STAGES = ('train', 'val', 'test')


@dataclass(frozen=True)
class Step:
    """A transform as a config writes it.

    Args:
        place (str): Such as ``'train_dataloader.dataset.pipeline.0'``, which
            is what ``--cfg-options`` takes.
        settings (dict): ``type`` and arguments.
    """

    place: str
    settings: dict

    @property
    def kind(self) -> str:
        """Name of the class, without scope or module; empty without one."""
        written = self.settings.get('type') or ''
        return getattr(written, '__name__', str(written)).split('.')[-1]


def loaders_of(cfg: Config, stage: str) -> Iterator[Tuple[str, dict]]:
    """Yield the data loaders of a stage: none, one, or several taking turns.

    Args:
        cfg (Config): With data loaders or not.
        stage (str): ``'train'``, ``'val'`` or ``'test'``.

    Yields:
        tuple: Place, such as ``'val_dataloader'``, and settings.
    """
    name = f'{stage}_dataloader'
    loader = cfg.get(name)
    if isinstance(loader, dict):
        yield name, loader
    elif isinstance(loader, (list, tuple)):
        for i, one in enumerate(loader):
            yield f'{name}.{i}', one


def stage_datasets(
    cfg: Config, stages: Sequence[str]
) -> Iterator[Tuple[str, dict]]:
    """Yield the data sets of some stages, and those inside wrappers.

    Args:
        cfg (Config): With data loaders or not.
        stages (Sequence[str]): Any of ``'train'``, ``'val'`` and ``'test'``.

    Yields:
        tuple: Place, such as ``'val_dataloader.dataset'``, and settings.
    """
    for stage in stages:
        for place, loader in loaders_of(cfg, stage):
            yield from _datasets(f'{place}.dataset', loader.get('dataset'))


def _datasets(place: str, dataset: Any) -> Iterator[Tuple[str, dict]]:
    if isinstance(dataset, (list, tuple)):
        for i, item in enumerate(dataset):
            yield from _datasets(f'{place}.{i}', item)
    elif isinstance(dataset, dict):
        yield place, dataset
        for key in ('dataset', 'datasets'):
            yield from _datasets(f'{place}.{key}', dataset.get(key))


def pipeline_steps(place: str, dataset: dict) -> List[Step]:
    """List the steps of a data set's pipeline in the order that they run.

    Steps inside a wrapper that runs all of its ``transforms`` follow it; those
    that are drawn at random (``RandomApply``) are left out.

    Args:
        place (str): Place of the data set in the config.
        dataset (dict): As :func:`stage_datasets` yields it.
    """
    return listed_steps(f'{place}.pipeline', dataset.get('pipeline'))


def listed_steps(place: str, transforms: Any) -> List[Step]:
    """:func:`pipeline_steps` of a list of transforms.

    Args:
        place (str): Place of the list in the config.
        transforms: The list; anything else has no steps.
    """
    return list(_steps(place, transforms))


def _steps(place: str, transforms: Any) -> Iterator[Step]:
    if not isinstance(transforms, (list, tuple)):
        return
    for i, settings in enumerate(transforms):
        if not isinstance(settings, dict):
            continue
        step = Step(f'{place}.{i}', settings)
        yield step
        if not step.kind.startswith('Random'):
            inside = settings.get('transforms')
            yield from _steps(f'{step.place}.transforms', inside)


def both_sides(size: Any) -> Optional[Tuple[Any, Any]]:
    """Two sides of the size that a stock step takes: one number, or a pair.

    Args:
        size: What a config writes as ``scale`` or ``crop_size``.

    Returns:
        tuple or None: In the order written, a single side twice; None for
        anything else.
    """
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return size[0], size[1]
    return None
