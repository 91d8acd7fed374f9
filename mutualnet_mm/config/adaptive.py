# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What of a stock config has to change for mutual learning, and why."""

import copy
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from mmengine.config import Config

from ..errors import ConfigError
from ..subnet import SubnetSpace
from .full_size import clip_length, full_resolution
from .pipelines import Step
from .views import frame_stride

_OURS = 'mutualnet_mm'
CALIBRATION = dict(type=f'{_OURS}.BNCalibrationHook', num_batches=32)
# The least width by the task's first word, and whose it is in the paper.
_LEAST_WIDTHS = dict(
    classification=(0.7, "as the paper's ResNet-50"),
    action=(0.63, "as the paper's video networks"),
)
_LEAST_WIDTH = (0.25, "as the paper's detectors")
# Images of a device whose batch norms should be synchronised.
_FEW = 8
_LOOPS = dict(val='SubnetValLoop', test='SubnetTestLoop')
_STOCK_LOOPS = dict(val=('', 'ValLoop'), test=('', 'TestLoop'))


@dataclass(frozen=True)
class StockTraits:
    """What a built stock model says that its config does not.

    Args:
        place (str): Of the part that has the backbone, ``'model'`` or, in a
            wrapper, ``'model.detector'``.
        task (str): Such as ``'detection'``.
        of_clips (bool): Whether it takes videos.
        of_segments (bool): Whether it takes them as segments (TSN).
        of_one_length (bool): Whether it takes a single number of segments,
            which all subnets share (TRN).
        segments (dict): Number of segments that the backbone and the head
            count, where they do, by their names. Defaults to none.
        divisor (int): To a multiple of which images are padded; 1 if they are
            not. Defaults to 1.
        frozen (dict): Arguments of the backbone that freeze parts of it, with
            the values that do not. Defaults to none.
        batch_norms (bool): Whether there are any. Defaults to True.
        synchronised (bool): Whether they are by themselves. Defaults to
            False.
        takes (Callable): Says whether the backbone takes square images of a
            side, such as those that its positions are not learned for.
            Defaults to any.
    """

    place: str
    task: str
    of_clips: bool = False
    of_segments: bool = False
    of_one_length: bool = False
    segments: Dict[str, int] = field(default_factory=dict)
    divisor: int = 1
    frozen: Dict[str, Any] = field(default_factory=dict)
    batch_norms: bool = True
    synchronised: bool = False
    takes: Callable[[int], bool] = lambda side: True


@dataclass(frozen=True)
class Change:
    """One setting that differs from the stock config's.

    Args:
        key (str): Place of the setting, ``'model.backbone.norm_eval'``.
        value: What it is now; what is put behind a list if ``appends``.
        why (str): In a few words.
        appends (bool): Whether the stock list stays in front. Defaults to
            False.
    """

    key: str
    value: Any
    why: str
    appends: bool = False


def derive(
    cfg: Config,
    traits: StockTraits,
    width: Optional[Sequence[float]] = None,
    resolution: Optional[Sequence[int]] = None,
    frames: Optional[Sequence[int]] = None,
) -> List[Change]:
    """List the changes that make a stock config adaptive.

    Args:
        cfg (Config): Stock config. It is not changed.
        traits (StockTraits): Of its model.
        width (Sequence[float], optional): Least and largest width. Defaults
            to those of the paper's networks of this kind: from 0.7
            (classification), 0.63 (videos) or 0.25 (all others) to 1.0.
        resolution (Sequence[int], optional): The full one first. Defaults to
            the pipeline's and parts of it.
        frames (Sequence[int], optional): Of clips, the full number first.
            Defaults to the pipeline's and parts of it.

    Raises:
        ConfigError: If the config is adaptive already, if its pipelines do not
            say a size or a length, if frames are given for images, or if
            what is given is no range of subnets.
    """
    part: Any = cfg
    for key in traits.place.split('.'):
        part = part[key]
    if Step('', part).kind == 'MutualLearning' or 'wraps' in part:
        raise ConfigError(
            f'{traits.place} is of type MutualLearning already: give the '
            'stock config that it is derived from'
        )
    at = traits.place
    space = _space(cfg, traits, width, resolution, frames)
    found = SubnetSpace(**{c.key.split('.')[-1]: c.value for c in space})
    changes = [
        _imports(cfg),
        Change(f'{at}.type', f'{_OURS}.MutualLearning', 'trains all subnets'),
        Change(f'{at}.wraps', part['type'], _was(part)),
        *space,
        Change(
            f'{at}.backbone.type', f'{_OURS}.Slimmable', 'runs at any width'
        ),
        Change(
            f'{at}.backbone.wraps',
            part['backbone']['type'],
            _was(part['backbone']),
        ),
        *_counted(cfg, traits, found),
        *_unfrozen(part, traits),
        *_synchronised(cfg, traits),
        *_loops(cfg, [str(found.full), str(found.smallest)]),
    ]
    if traits.batch_norms:
        changes.append(
            Change(
                'custom_hooks',
                dict(CALIBRATION),
                "of training data, for each subnet's batch norms",
                appends=True,
            )
        )
    return changes


def apply_changes(cfg: Config, changes: Sequence[Change]) -> Config:
    """Return a copy of a config with the changes made."""
    cfg = copy.deepcopy(cfg)
    options = {c.key: c.value for c in changes if not c.appends}
    for change in changes:
        if change.appends:
            stock = list(cfg.get(change.key) or ())
            options[change.key] = [*stock, change.value]
    cfg.merge_from_dict(options)
    return cfg


def _was(part: dict) -> str:
    written = part['type']
    return f'was: type={getattr(written, "__name__", repr(written))}'


def _imports(cfg: Config) -> Change:
    stock = dict(cfg.get('custom_imports') or {})
    names = stock.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    others = [name for name in names if name != _OURS]
    settings = dict(imports=[_OURS, *others], allow_failed_imports=False)
    settings.update({k: v for k, v in stock.items() if k != 'imports'})
    return Change(
        'custom_imports',
        settings,
        'registers our types',
    )


def _space(
    cfg: Config,
    traits: StockTraits,
    width: Optional[Sequence[float]],
    resolution: Optional[Sequence[int]],
    frames: Optional[Sequence[int]],
) -> List[Change]:
    """The settings of ``mutual``."""
    at = f'{traits.place}.mutual'
    why = 'least and largest'
    if width is None:
        least, whose = _LEAST_WIDTHS.get(
            traits.task.split('_')[0], _LEAST_WIDTH
        )
        width = (least, 1.0)
        why = f'{why}, {whose}'
    changes = [Change(f'{at}.width_range', _listed(width), why)]
    if resolution is None:
        full = full_resolution(cfg, traits.of_clips)
        if full is None:
            raise ConfigError(
                'no step of the pipelines says a size, so the full resolution '
                'is not known: name the resolutions, the full one first, as '
                'in --resolution 640,512,384'
            )
        why = f'full ({full}) and parts'
        sides = default_resolutions(full.value, traits.task, traits.divisor)
        resolution = sides
        if traits.takes(sides[0]):
            resolution = [side for side in sides if traits.takes(side)]
        others = [str(side) for side in sides if side not in resolution]
        if others:
            why += f'; the backbone does not run at {", ".join(others)}'
    else:
        why = 'the full one first'
    changes.append(Change(f'{at}.resolution', _listed(resolution), why))
    if not traits.of_clips:
        if frames is not None:
            raise ConfigError(
                f'frames={_listed(frames)} are for videos, but this is a '
                f'model of {traits.task}: leave them out'
            )
        return changes
    why = 'of a clip'
    if frames is None:
        length = clip_length(cfg, traits.of_segments)
        if length is None:
            raise ConfigError(
                'no step of the pipelines says how long clips are: name the '
                'frames, the full number first, as in --frames 8,5,3'
            )
        why = f'full ({length}) and parts'
        stride = 1 if traits.of_segments else frame_stride(cfg)
        frames = default_frames(length.value // stride)
        if traits.of_one_length:
            why, frames = f'{length}, which its weights are for', frames[:1]
    changes.append(Change(f'{at}.frames', _listed(frames), why))
    return changes


def _listed(given: Any) -> Any:
    """A tuple; what is no list stays as it is, for SubnetSpace to refuse."""
    is_list = isinstance(given, Sequence) and not isinstance(given, str)
    return tuple(given) if is_list else given


def default_resolutions(
    full: int, task: str, divisor: int = 1
) -> Tuple[int, ...]:
    """Resolutions to train, in the paper's proportions.

    Args:
        full (int): The full one.
        task (str): Classifiers get 224, 192, 160 and 128 of 224; clips 224,
            178 and 142; all others the full one and 0.8, 0.6 and 0.4 of it.
        divisor (int): To a multiple of which images are padded: resolutions
            in between would cost the same. 32 where it is 1, which is the
            stride of most networks; for small images an eighth of them.
            Defaults to 1.

    Example:
        >>> default_resolutions(800, 'detection', 32)
        (800, 640, 480, 320)
    """
    parts: Sequence[float] = (0.8, 0.6, 0.4)
    if task.startswith('action'):
        parts, divisor = (178 / 224, 142 / 224), 1
    else:
        if task == 'classification':
            parts = (6 / 7, 5 / 7, 4 / 7)
        if divisor == 1:
            divisor = 32 if full >= 128 else max(1, full // 8)
    smaller = (
        max(1, int(part * full / divisor + 0.5)) * divisor for part in parts
    )
    chosen = dict.fromkeys((full, *(side for side in smaller if side < full)))
    return tuple(chosen)


def default_frames(full: int) -> Tuple[int, ...]:
    """Numbers of frames to train: the paper's 8, 5 and 3 in proportion."""
    parts = (1.0, 5 / 8, 3 / 8)
    return tuple(
        dict.fromkeys(max(1, int(full * part + 0.5)) for part in parts)
    )


def _counted(
    cfg: Config, traits: StockTraits, space: SubnetSpace
) -> List[Change]:
    """Let all parts count the segments that the pipeline delivers.

    Shifts that count others would mix videos.
    """
    full = space.full.frames
    length = clip_length(cfg, True) if traits.segments else None
    if traits.of_one_length or length is None or length.value != full:
        return []
    return [
        Change(
            f'{traits.place}.{name}.num_segments',
            full,
            'as many as the pipeline delivers',
        )
        for name, number in traits.segments.items()
        if number != full
    ]


def _unfrozen(part: dict, traits: StockTraits) -> List[Change]:
    """Switch off what freezes the backbone, or batch norms behind it."""
    at = traits.place
    why = {
        'frozen_stages': 'all stages have to learn',
        'norm_eval': 'its statistics fit the full network alone',
        'no_custom_backward': 'gradients of subnets are summed',
    }
    changes = [
        Change(
            f'{at}.backbone.{name}',
            value,
            why.get(name, 'batch norms learn, too'),
        )
        for name, value in traits.frozen.items()
    ]
    norm = part['backbone'].get('norm_cfg')
    if isinstance(norm, dict) and norm.get('requires_grad') is False:
        changes.append(
            Change(
                f'{at}.backbone.norm_cfg.requires_grad',
                True,
                'batch norms learn, too',
            )
        )
    if isinstance(norm, dict) and norm.get('eps') == 0:
        changes.append(
            Change(
                f'{at}.backbone.norm_cfg.eps',
                1e-5,
                'PyTorch trains no batch norm without one',
            )
        )
    shared = (part.get('roi_head') or {}).get('shared_head')
    if isinstance(shared, dict) and shared.get('norm_eval'):
        changes.append(
            Change(
                f'{at}.roi_head.shared_head.norm_eval',
                False,
                why['norm_eval'],
            )
        )
    return changes


def _synchronised(cfg: Config, traits: StockTraits) -> List[Change]:
    """Let devices with few images share the statistics of batch norms."""
    loader = cfg.get('train_dataloader') or {}
    size = loader.get('batch_size') if isinstance(loader, dict) else None
    if (
        not traits.batch_norms
        or traits.synchronised
        or cfg.get('sync_bn')
        or not isinstance(size, int)
        or size >= _FEW
    ):
        return []
    what = 'clip' if traits.of_clips else 'image'
    return [
        Change(
            'sync_bn',
            'torch',
            f'{size} {what}{"s" * (size > 1)} per GPU are few for batch norms',
        )
    ]


def _loops(cfg: Config, subnets: List[str]) -> List[Change]:
    """Let validation and testing run subnets, where they are stock."""
    changes = []
    for stage, loop in _LOOPS.items():
        settings = cfg.get(f'{stage}_cfg')
        if settings is None or not is_stock_loop(cfg, stage):
            continue
        changes.append(
            Change(
                f'{stage}_cfg.type',
                f'{_OURS}.{loop}',
                'of several subnets',
            )
        )
        if stage == 'test':
            changes.append(
                Change('test_cfg.subnets', subnets, 'and any in between')
            )
    return changes


def is_stock_loop(cfg: Config, stage: str) -> bool:
    """Whether a stage runs MMEngine's own loop, which ours can replace."""
    settings = cfg.get(f'{stage}_cfg') or {}
    return Step('', settings).kind in _STOCK_LOOPS[stage]
