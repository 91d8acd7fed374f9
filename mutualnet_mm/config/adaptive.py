# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What of a stock config has to change for mutual learning, and why."""

from pathlib import Path
from typing import Any, List, Optional, Sequence

from mmengine.config import Config

from ..errors import ConfigError
from ..subnet import SubnetSpace
from .changes import Change
from .full_size import clip_length
from .pipelines import Step
from .stock_traits import StockTraits
from .subnet_settings import subnet_settings

_OURS = 'mutualnet_mm'
# Batches of each device to calibrate on; more, where they are small.
_BATCHES, _IMAGES = 32, 256
# Images of a device whose batch norms should be synchronised.
_FEW = 8
_LOOPS = dict(val='SubnetValLoop', test='SubnetTestLoop')
_STOCK_LOOPS = dict(val=('', 'ValLoop'), test=('', 'TestLoop'))


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
    space = subnet_settings(cfg, traits, width, resolution, frames)
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
        *_moved(cfg),
    ]
    if traits.batch_norms:
        changes.append(_calibrated(cfg))
    return changes


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
    size = _batch_size(cfg)
    if (
        not traits.batch_norms
        or traits.synchronised
        or cfg.get('sync_bn')
        or size is None
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


def _batch_size(cfg: Config) -> Optional[int]:
    """Of a device, if the config says it."""
    loader = cfg.get('train_dataloader') or {}
    size = loader.get('batch_size') if isinstance(loader, dict) else None
    return size if isinstance(size, int) and size > 0 else None


def _calibrated(cfg: Config) -> Change:
    """Calibrate subnets on no less images than one device should see."""
    size = _batch_size(cfg)
    number = _BATCHES if size is None else max(_BATCHES, -(-_IMAGES // size))
    return Change(
        'custom_hooks',
        dict(type=f'{_OURS}.BNCalibrationHook', num_batches=number),
        "of training data, for each subnet's batch norms",
        appends=True,
    )


def own_work_dir(cfg: Config) -> Optional[str]:
    """Where to train what is derived from a config that names a folder.

    Args:
        cfg (Config): Stock config.

    Returns:
        str: Not the folder itself, which may hold a training of the stock
        network. None if the config names none.
    """
    stock = cfg.get('work_dir')
    return stock and str(Path(stock) / 'mutual')


def _moved(cfg: Config) -> List[Change]:
    folder = own_work_dir(cfg)
    why = 'the checkpoints of the stock network stay'
    return [Change('work_dir', folder, why)] if folder else []


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
