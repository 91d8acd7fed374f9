# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Checks that pipelines deliver sizes that the resolutions can be made of."""

from typing import Any, Iterator, List, Sequence, Tuple

from mmengine.config import Config

from ..errors import ConfigError
from .pipelines import (
    STAGES,
    Step,
    listed_steps,
    pipeline_steps,
    stage_datasets,
)
from .sized_steps import Sizing, sizings
from .views import first_of, takes_clips

# Scopes whose steps are understood here; configs of classes have none.
_SCOPES = (None, 'mmengine', 'mmpretrain', 'mmdet', 'mmaction')


def check_resolution(cfg: Config, stages: Sequence[str] = STAGES) -> None:
    """Refuse pipelines that the full resolution does not stand for.

    The last step of a pipeline that sets a size counts, by the short edge of
    a step that keeps the ratio, else by either side. The full resolution must
    be that of the test pipeline: then any training pipeline is as good, at
    several scales, say. Or it must be that of the training, if testing crops,
    or images of a classifier or clips, are larger. Sizes that depend on the
    image, and pipelines of other projects, are left alone.

    Args:
        cfg (Config): With data loaders or not.
        stages (Sequence[str]): Stages that are going to run; without any,
            nothing is checked. Defaults to all.

    Raises:
        ConfigError: Names the step, its size and the full resolution.
    """
    full = first_of(cfg, 'resolution')
    if full is None or not stages or cfg.get('default_scope') not in _SCOPES:
        return
    may_grow = takes_clips(cfg) or cfg.get('default_scope') == 'mmpretrain'
    for found in _delivered(cfg, [s for s in STAGES[1:] if s in stages]):
        is_larger = (
            max(found.sides) > full
            and found.is_exact
            and (may_grow or found.is_crop)
        )
        if not found.is_full(full) and not is_larger:
            raise _refusal(found, full)
    tests = _delivered(cfg, STAGES[1:])
    if any(found.is_full(full) for found in tests):
        return
    named = _delivered(cfg, ('train',))
    if not named and any(stage_datasets(cfg, ('train',))):
        named = tests  # of training at sizes that differ nothing is known
    if named and not any(found.is_full(full) for found in named):
        raise _refusal(named[0], full)


def check_multi_resolution(cfg: Config) -> None:
    """Refuse what undoes the sizes that ``MultiResolution`` makes.

    These are later steps, other resolutions than the model's, batch
    augmentations, and a pipeline without it that a hook switches to.

    Raises:
        ConfigError: Names the step and the remedy.
    """
    own = list(_dataset_pipelines(cfg))
    switched = list(_switched_pipelines(cfg))
    made = [
        step
        for steps in (*own, *switched)
        for step in steps
        if _is_multi(step)
    ]
    for steps in (*own, *switched):
        _check_last(steps)
    for step in made:
        sizes = list(step.settings.get('resolution', ()))
        lacking = sorted({*_listed(cfg)} - {*sizes})
        if lacking:
            raise ConfigError(
                f'{step.place} makes sizes {sizes}, but mutual.resolution '
                f'lists {lacking}, too: give both the same list'
            )
    for place, augments in _batch_augments(cfg):
        if made and augments:
            raise ConfigError(
                f'{place} would mix each of the sizes that {made[0].place}, '
                'a MultiResolution, makes anew: leave one of them out'
            )
    for steps in switched:
        if steps and any(map(_is_multi, steps)) != any(
            _is_multi(step) for others in own for step in others
        ):
            raise ConfigError(
                f'{steps[0].place.rpartition(".")[0]} and train_dataloader '
                'have MultiResolution in one pipeline and not in the other: '
                'use it in both, or in none'
            )


def _is_multi(step: Step) -> bool:
    return step.kind == 'MultiResolution'


def _check_last(steps: Sequence[Step]) -> None:
    multi = None
    for step in steps:
        if multi and not step.place.startswith(f'{multi.place}.'):
            raise ConfigError(
                f'{step.place} is a {step.kind} behind a MultiResolution, '
                'which packs all sizes and comes last: move it before that, '
                'or, if it is not random, into its transforms'
            )
        multi = step if _is_multi(step) else multi


def check_masks(cfg: Config) -> None:
    """Refuse masks beside a batch augmentation that resizes without them.

    Raises:
        ConfigError: Names both steps.
    """
    resizing = [
        place
        for place, augments in _batch_augments(cfg)
        if isinstance(augments, (list, tuple))
        for augment in augments
        if Step('', augment).kind == 'BatchSyncRandomResize'
    ]
    pipelines = *_dataset_pipelines(cfg), *_switched_pipelines(cfg)
    for step in (step for steps in pipelines for step in steps):
        loads = step.settings.get('with_mask') or step.settings.get('with_seg')
        if resizing and step.kind.startswith('Load') and loads:
            raise ConfigError(
                f'{resizing[0]} has a BatchSyncRandomResize, which resizes '
                f'images and boxes, but not the masks that {step.place} '
                'loads: leave it out, and resize in the pipeline '
                '(RandomChoiceResize)'
            )


def _listed(cfg: Config) -> Sequence[int]:
    mutual = (cfg.get('model') or {}).get('mutual') or {}
    listed = mutual.get('resolution')
    return listed if isinstance(listed, (list, tuple)) else ()


def _dataset_pipelines(cfg: Config) -> Iterator[List[Step]]:
    """Yield the steps of each training data set."""
    for found in stage_datasets(cfg, ('train',)):
        yield pipeline_steps(*found)


def _switched_pipelines(cfg: Config) -> Iterator[List[Step]]:
    """Yield the steps that hooks switch to in mid-training."""
    for place, hook in _hooks(cfg):
        name = f'{place}.switch_pipeline'
        yield listed_steps(name, hook.get('switch_pipeline'))
        for i, recipe in enumerate(hook.get('schedule') or ()):
            name = f'{place}.schedule.{i}.train_pipeline'
            yield listed_steps(name, recipe.get('train_pipeline'))


def _batch_augments(cfg: Config) -> Iterator[Tuple[str, Any]]:
    """Yield the settings that augment batches, and what they hold."""
    model = cfg.get('model') or {}
    for place, holder, name in (
        ('data_preprocessor', cfg, 'batch_augments'),
        ('model.data_preprocessor', model, 'batch_augments'),
        ('model.train_cfg', model, 'augments'),
    ):
        settings = holder.get(place.rpartition('.')[2])
        if isinstance(settings, dict):
            yield f'{place}.{name}', settings.get(name)
    for place, hook in _hooks(cfg):
        for i, recipe in enumerate(hook.get('schedule') or ()):
            name = f'{place}.schedule.{i}.batch_augments'
            yield name, recipe.get('batch_augments')


def _hooks(cfg: Config) -> Iterator[Tuple[str, dict]]:
    for i, hook in enumerate(cfg.get('custom_hooks') or ()):
        if isinstance(hook, dict):
            yield f'custom_hooks.{i}', hook


def _refusal(found: Sizing, full: int) -> ConfigError:
    return ConfigError(
        f'{found.step.place} is a {found.step.kind} of {found.written}, but '
        f'the full resolution, mutual.resolution[0], is {full}: they must '
        f'agree, set mutual.resolution[0]={min(found.sides)} (--resolution '
        f'{min(found.sides)},...) or the size of the step'
    )


def _delivered(cfg: Config, stages: Sequence[str]) -> List[Sizing]:
    """Sizes that every image of a data set of some stages gets."""
    of_clips = takes_clips(cfg)
    last = (
        sizings(pipeline_steps(*found), of_clips)[-1:]
        for found in stage_datasets(cfg, stages)
    )
    return [found for one in last for found in one if found.certain]
