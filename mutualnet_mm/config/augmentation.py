# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A config that tests augmented images: test-time augmentation (TTA)."""

from copy import deepcopy
from itertools import product
from typing import Any, Dict, List, Sequence

from mmengine.config import Config, ConfigDict

from ..errors import ConfigError
from .checks import check_clips
from .pipelines import Step, pipeline_steps, stage_datasets
from .sizes import check_resolution

# What the tools of a project merge predictions by, where a config says
# nothing.
_MODELS: Dict[str, dict] = dict(
    mmdet=dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    mmpretrain=dict(type='mmpretrain.AverageClsScoreTTA'),
)


def augment_tests(cfg: Config) -> None:
    """Predict from several augmented forms of each input: ``--tta``.

    By ``tta_model`` and ``tta_pipeline`` of the config. Where it has none,
    mmdet and mmpretrain get those of their tools: each image and its mirror
    image.

    Args:
        cfg (Config): Its model and test pipelines are changed in place.

    Raises:
        ConfigError: If nothing says how predictions are merged, if no input
            comes at the full resolution, or if boxes found in mirror images
            could not be brought back.
    """
    scope = str(cfg.get('default_scope'))
    model = cfg.get('tta_model') or _MODELS.get(scope)
    if model is None:
        raise ConfigError(
            '--tta: the config does not say how predictions for augmented '
            'inputs are merged, set tta_model and tta_pipeline, or leave it '
            "out (mmaction2's test pipelines take several views of a video by "
            'themselves)'
        )
    for _, dataset in stage_datasets(cfg, ('test',)):
        if not dataset.get('pipeline'):
            continue  # a wrapper
        steps = cfg.get('tta_pipeline')
        if steps is None:
            steps = _mirrored(dataset['pipeline'], scope)
        _check_views(cfg, steps, scope)
        dataset['pipeline'] = deepcopy(steps)
    cfg.model = ConfigDict(**deepcopy(model), module=cfg.model)


def _mirrored(steps: List[dict], scope: str) -> List[dict]:
    """A test pipeline that packs each image as it is, and mirrored.

    As it is comes first: metrics may take the ground truth from that sample.
    """
    *steps, packing = steps
    if scope == 'mmdet':
        packing = _told(packing)
        _check_mirroring(steps)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [packing]])]


def _check_mirroring(steps: List[dict]) -> None:
    """Refuse steps that move an image, whose boxes are mirrored back."""
    for step in pipeline_steps('', dict(pipeline=steps)):
        if 'Pad' in step.kind or 'Crop' in step.kind:
            raise ConfigError(
                f'--tta: boxes in images that are mirrored after {step.kind} '
                'cannot be brought back, set tta_model and a tta_pipeline '
                f'with RandomFlip before {step.kind}'
            )


def _told(packing: Dict[str, Any]) -> Dict[str, Any]:
    """The packing step, which passes on whether an image is mirrored."""
    told = dict(packing)
    if 'meta_keys' in told:
        keys = [*told['meta_keys'], 'flip', 'flip_direction']
        told['meta_keys'] = tuple(dict.fromkeys(keys))
    if 'transforms' in told:  # MultiResolution packs at the end of these
        told['transforms'] = [*map(_told, told['transforms'])]
    return told


def _check_views(cfg: Config, steps: List[dict], scope: str) -> None:
    """Refuse augmented inputs of which none is of the full resolution.

    Of several sizes, a subnet tests each by its own factor.
    """
    choices: List[Sequence[dict]] = []
    for step in steps:
        is_split = Step('', step).kind == 'TestTimeAug'
        choices += step['transforms'] if is_split else [[step]]
    if all(Step('', step).kind != 'TestTimeAug' for step in steps):
        raise ConfigError(
            '--tta: tta_pipeline has no TestTimeAug, the step that makes '
            'several inputs of one'
        )
    refusals = [_refusal(cfg, [*view], scope) for view in product(*choices)]
    if all(refusals):
        raise ConfigError(f'--tta: {refusals[0]}')


def _refusal(cfg: Config, view: List[dict], scope: str) -> str:
    """What is wrong with the steps of a view; empty if nothing is."""
    one = Config(
        dict(
            model=cfg.model,
            default_scope=scope,
            test_dataloader=dict(dataset=dict(pipeline=view)),
        )
    )
    try:
        check_resolution(one, ('test',))
        check_clips(one, ('test',))
    except ConfigError as error:
        return str(error).replace(
            'test_dataloader.dataset.pipeline', 'tta_pipeline'
        )
    return ''
