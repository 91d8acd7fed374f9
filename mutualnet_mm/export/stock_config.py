# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs of exported networks, with nothing of ours but what they need."""

from typing import Any, Callable, Dict, Iterator, List, Union

from mmengine.config import Config

from ..config.pipelines import stage_datasets
from ..models import MutualLearningMixin
from ..models.build import registered_name
from ..subnet import Subnet

_OURS = 'mutualnet_mm'
_HOOKS = ('BNCalibrationHook',)
_LOOPS = dict(SubnetTestLoop='TestLoop', SubnetValLoop='ValLoop')
_OF_LOOPS = ('subnets', 'group_size')
# The stock steps that do what one of ours does for the full network.
_STEPS: Dict[str, Callable[[dict], List[dict]]] = dict(
    MultiResolution=lambda s: [s['resize'], *s['transforms']],
    ReadClip=lambda s: [*s['transforms']],
)
# What makes a stock model learn mutually, and its backbone slimmable.
_OF_MODEL = ('wraps', 'mutual')
_OF_BACKBONE = ('wraps', 'max_width', 'rounding')


def stock_config(cfg: Config, model: MutualLearningMixin) -> Config:
    """Return the config of the full network, built from stock classes only.

    Its loops, hooks and transforms are stock ones, too, and it names no
    pretrained weights. If a network of our own or another class of ours
    remains, it still imports this package.

    Args:
        cfg (Config): Config of the trained network. It is not changed.
        model (MutualLearningMixin): As built from ``cfg``.
    """
    settings = _clean_config(cfg)
    scope = cfg.get('default_scope')
    network = settings['model']
    for part, wrapped, ours in (
        (network, model, _OF_MODEL),
        (network['backbone'], model.backbone, _OF_BACKBONE),
    ):
        for name in ours:
            part.pop(name, None)
        scope = part.get('_scope_') or scope  # of what it inherits
        part['type'] = registered_name(wrapped.stock_class, scope)
    return _finish(settings)


def static_config(
    cfg: Config, subnet: Union[str, Subnet], fuse_bn: bool = False
) -> Config:
    """Return the config of a subnet's static form.

    It builds :func:`~mutualnet_mm.models.static.StaticSubnet`; all else is as
    in :func:`stock_config`.

    Args:
        cfg (Config): Config of the trained network. It is not changed.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        fuse_bn (bool): Whether batch norms are folded. Defaults to False.
    """
    settings = _clean_config(cfg)
    settings['model'].update(
        type=f'{_OURS}.StaticSubnet',
        subnet=str(subnet),
        fuse_bn=fuse_bn,
        verified=True,
    )
    return _finish(settings)


def inferencer_config(
    cfg: Config, model: MutualLearningMixin, subnet: Union[str, Subnet]
) -> Config:
    """Return :func:`static_config` for the stock inferencers.

    mmaction2's inferencer takes one clip of a video if ``model.type`` is
    ``Recognizer3D``; for any other model, it takes all that the test pipeline
    samples. For a subnet of a ``Recognizer3D``, ``test_dataloader`` therefore
    samples one clip, as many as the stock model gets. ``test_pipeline``, which
    ``inference_recognizer`` reads, samples all, as for the stock model.

    Args:
        cfg (Config): As for :func:`static_config`.
        model (MutualLearningMixin): As built from ``cfg``.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
    """
    found = static_config(cfg, subnet)
    scope = found.model.get('_scope_') or found.get('default_scope')
    if registered_name(model.stock_class, scope) == 'Recognizer3D':
        for _, dataset in stage_datasets(found, ('test',)):
            for step in dataset.get('pipeline') or ():
                if step['type'] == 'SampleFrames':
                    step['num_clips'] = 1
    return found


def _clean_config(cfg: Config) -> Dict[str, Any]:
    """A copy for testing one network, without what trains and tests many."""
    settings = {
        key: _clean(value)
        for key, value in cfg.to_dict().items()
        # A variable that holds a step is used where it was inserted.
        if _kind(value) not in _STEPS and key != 'load_from'
    }
    network = _without_pretrained(settings['model'])
    if settings.get('data_preprocessor'):  # as the runner does
        network.setdefault('data_preprocessor', settings['data_preprocessor'])
    return dict(settings, model=network)


def _kind(settings: Any) -> str:
    """Name of the class of ours that ``settings`` build, else ``''``."""
    written = settings.get('type') if isinstance(settings, dict) else None
    package, _, path = str(written).partition('.')
    return path.split('.')[-1] if package == _OURS else ''


def _clean(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(new for item in value for new in _stock_steps(item))
    if not isinstance(value, dict):
        return value
    loop = _LOOPS.get(_kind(value))
    if loop is not None:
        value = {k: v for k, v in value.items() if k not in _OF_LOOPS}
        value['type'] = loop
    return {k: _clean(v) for k, v in value.items() if _kind(v) not in _HOOKS}


def _stock_steps(item: Any) -> Iterator[Any]:
    """Yield what replaces an item of a list: itself, nothing or several."""
    kind = _kind(item)
    if kind in _STEPS:
        for step in _STEPS[kind](item):
            yield from _stock_steps(step)
    elif kind not in _HOOKS:
        yield _clean(item)


def _without_pretrained(value: Any) -> Any:
    """Remove pretrained initialisation: all weights get loaded."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_without_pretrained, value))
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, content in value.items():
        if key == 'pretrained' and content:
            continue
        if key == 'init_cfg' and content:
            listed = [content] if isinstance(content, dict) else content
            rest = [c for c in listed if not _is_pretrained(c)]
            if not rest:
                continue
            content = content if len(rest) == len(listed) else rest
        kept[key] = _without_pretrained(content)
    return kept


def _is_pretrained(init_cfg: dict) -> bool:
    name = str(init_cfg.get('type')).split('.')[-1]
    return name in ('Pretrained', 'PretrainedInit')


def _finish(settings: Dict[str, Any]) -> Config:
    """Import this package where it is needed, and only there."""
    custom = settings.pop('custom_imports', None) or {}
    imports = custom.get('imports') or []
    imports = [imports] if isinstance(imports, str) else imports
    imports = [name for name in imports if name.split('.')[0] != _OURS]
    if _names_ours(settings):
        imports.append(_OURS)
        custom = dict(custom, allow_failed_imports=False)
    if imports:
        settings['custom_imports'] = dict(custom, imports=imports)
    return Config(settings)


def _names_ours(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_names_ours, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_names_ours, value))
    return isinstance(value, str) and value.startswith(f'{_OURS}.')
