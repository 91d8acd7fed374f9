# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a built stock model tells about the way to make it adaptive."""

import inspect
from copy import deepcopy
from functools import partial
from typing import Any, Dict, List, Optional, Tuple

from mmengine.config import Config
from torch import nn

from ..config.stock_traits import StockTraits
from ..errors import ConfigError
from ..slimmable.meta import meta_copy
from ..slimmable.trial import leading_axes, trial_error
from .tasks import find_task

# Arguments of backbones that keep parts from learning, or subnets (a backward
# pass of the network's own), and what undoes them.
_FREEZING = dict(
    no_custom_backward=True,
    norm_eval=False,
    frozen_stages=-1,
    partial_bn=False,
    bn_frozen=False,
)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def read_traits(cfg: Config, model: nn.Module) -> StockTraits:
    """Look at a stock model.

    Args:
        cfg (Config): Its config.
        model (nn.Module): As :func:`~.build.build_stock` returns it.

    Raises:
        ConfigError: If it is of no task that can be trained by mutual
            learning, or has no backbone; names it.
    """
    place, part = _with_backbone(cfg, model)
    task = find_task(type(part)).for_model(part)
    of_segments = any(
        base.__name__ == 'Recognizer2D' for base in type(part).__mro__
    )
    norms = [m for m in model.modules() if isinstance(m, _BATCH_NORM)]
    preprocessor = getattr(part, 'data_preprocessor', None)
    return StockTraits(
        place=place,
        task=task.name,
        of_clips=task.takes_frames,
        of_segments=of_segments,
        of_one_length=of_segments and _has_one_length(part),
        segments=_segments(part) if of_segments else {},
        divisor=getattr(preprocessor, 'pad_size_divisor', None) or 1,
        frozen=_freezing(cfg, place, part.backbone),
        batch_norms=bool(norms),
        synchronised=bool(norms)
        and all(isinstance(m, nn.SyncBatchNorm) for m in norms),
        takes=partial(_takes, part.backbone),
    )


def _takes(
    backbone: nn.Module, side: int, frames: Optional[int] = None
) -> bool:
    """Whether a backbone runs on a square image, or a clip of that length."""
    # A copy, since some keep what they compute for evaluation (TinyViT).
    net = meta_copy(backbone)
    usual = getattr(backbone, 'num_frames', 8)
    leads = leading_axes(backbone, frames or usual)
    if frames is not None:
        leads = [lead for lead in leads if lead[2:] == (frames,)]
    return any(trial_error(net, (*lead, side, side)) is None for lead in leads)


def _has_one_length(recognizer: nn.Module) -> bool:
    from .segments import takes_one_number  # which imports mmaction2

    return takes_one_number(recognizer)


def _segments(recognizer: nn.Module) -> Dict[str, int]:
    numbers = {
        name: getattr(child, 'num_segments', None)
        for name, child in recognizer.named_children()
    }
    return {n: s for n, s in numbers.items() if isinstance(s, int)}


def _with_backbone(cfg: Config, model: nn.Module) -> Tuple[str, nn.Module]:
    """The part that has the backbone: the model, or what it wraps."""
    if cfg.model.get('backbone') is not None:
        return 'model', model
    inside = cfg.model.get('detector')
    if isinstance(inside, dict) and inside.get('backbone') is not None:
        # Semi-supervised wrappers build a student and a teacher of it.
        for name in ('detector', 'student'):
            part = getattr(model, name, None)
            if isinstance(part, nn.Module):
                return 'model.detector', part
    raise ConfigError(
        f'{type(model).__name__} has no model.backbone, which is what gets '
        'slimmed: give a config of a classifier, a detector or a recognizer'
    )


def frozen_parameters(backbone: nn.Module) -> List[str]:
    """Names of the parameters that do not learn.

    Args:
        backbone (nn.Module): It is put in training mode, in which some
            backbones freeze their parts.
    """
    backbone.train()
    named = backbone.named_parameters()
    return [name for name, value in named if not value.requires_grad]


def _freezing(cfg: Config, place: str, backbone: nn.Module) -> Dict[str, Any]:
    """Arguments that the backbone takes and that freeze it as it is set."""
    settings: Any = cfg
    for key in (*place.split('.'), 'backbone'):
        settings = settings[key]
    found = {}
    for name, off in _FREEZING.items():
        takes, default = _argument(type(backbone), name)
        if not takes:
            continue
        if name == 'frozen_stages' and default == 0:
            off = _no_stages(settings, backbone)
        if settings.get(name, default) != off:
            found[name] = off
    return found


def _no_stages(settings: dict, backbone: nn.Module) -> int:
    """``frozen_stages`` of no stage, where the default is 0.

    Most of those families count from 1, and some refuse less; of the others 0
    freezes what comes before the stages.
    """
    settings = {k: v for k, v in settings.items() if k != 'type'}
    found = {}
    for value in (0, -1):
        built = backbone
        if settings.get('frozen_stages', 0) != value:
            try:
                built = type(backbone)(
                    **deepcopy(dict(settings, frozen_stages=value))
                )
            except Exception:  # whatever it may say of -1
                continue
        found[value] = len(frozen_parameters(built))
        if not found[value]:
            break
    return min(found, key=found.__getitem__)


def _argument(cls: type, name: str) -> Tuple[bool, Any]:
    """Whether a class's constructor takes an argument, and its default."""
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(vars(base)['__init__']).parameters
        if name in parameters:
            return True, parameters[name].default
        kinds = [parameter.kind for parameter in parameters.values()]
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break  # it passes on nothing that it does not name
    return False, None
