# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Which stock configs to try: one of each combination of parts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Tuple

from mmengine.config import Config

from ..config.pipelines import Step, stage_datasets

# Of two networks of the same parts, the smaller one is tried.
_SIZES = (
    *('atto', 'femto', 'pico', 'nano', 'tiny', 'mini', 'small', 'base'),
    *('large', 'xlarge', 'huge', 'giant'),
)


@dataclass(frozen=True)
class Combination:
    """What configs are told apart by; sets of the types that they name.

    Args:
        model (str): Such as ``'MaskRCNN'``.
        backbone (frozenset[str]): The backbone, its norm layers, convolutions
            and plugins.
        neck (frozenset[str]): As ``backbone``.
        heads (frozenset[str]): Types in all settings that are called a head.
        norms (frozenset[str]): Norm layers of the whole model.
        steps (frozenset[str]): Transforms of the train pipeline, or of the
            test pipeline where nothing is trained.
    """

    model: str
    backbone: FrozenSet[str]
    neck: FrozenSet[str]
    heads: FrozenSet[str]
    norms: FrozenSet[str]
    steps: FrozenSet[str]


def combination(cfg: Config) -> Combination:
    """Say what a config combines.

    Args:
        cfg (Config): With a model.
    """
    model = cfg.model
    part = _with_backbone(model)
    heads = [v for key, v in part.items() if 'head' in key]
    return Combination(
        model=_kind(model),
        backbone=frozenset(_types(part.get('backbone'))),
        neck=frozenset(_types(part.get('neck'))),
        heads=frozenset(_types(heads)),
        norms=frozenset(_norms(model)),
        steps=_steps(cfg),
    )


def choose(
    found: Iterable[Tuple[str, Combination, Tuple]],
) -> List[str]:
    """Pick one config of each combination: the smallest network.

    Args:
        found (Iterable): Name, combination and :func:`size` of each config.

    Returns:
        list[str]: Names, sorted.
    """
    best: Dict[Combination, Tuple[Tuple, str]] = {}
    for name, combined, cost in found:
        candidate = (cost, name)
        if combined not in best or candidate < best[combined]:
            best[combined] = candidate
    return sorted(name for _, name in best.values())


def size(cfg: Config, name: str) -> Tuple[float, float, int, int]:
    """Order networks of the same parts by what their backbones say.

    Returns:
        tuple: Depth, channels and rank of the size's name, where they are
        given, and the length of the config's name.
    """
    backbone = _with_backbone(cfg.model).get('backbone') or {}
    arch = str(backbone.get('arch') or '').lower()
    ranks = [i for i, word in enumerate(_SIZES) if word in arch]
    return (
        _number(backbone.get('depth')),
        _number(backbone.get('embed_dims') or backbone.get('widen_factor')),
        max(ranks, default=0),
        len(name),
    )


def stock_configs(
    folder: Path, text: str = ''
) -> Tuple[Dict[str, Config], List[str]]:
    """Read the configs of a project that have a model.

    Args:
        folder (Path): Where they lie.
        text (str): Part of the names of those wanted. Defaults to all.

    Returns:
        tuple: Configs by name, ``'folder/file.py'``, and the names of those
        that cannot be read.
    """
    found: Dict[str, Config] = {}
    unreadable: List[str] = []
    for file in sorted(folder.rglob('*.py')):
        name = file.relative_to(folder).as_posix()
        if text not in name or '_base_' in file.parts:
            continue
        try:
            cfg = Config.fromfile(file, import_custom_modules=False)
        except Exception:  # whatever a config may do
            unreadable.append(name)
            continue
        if isinstance(cfg.get('model'), dict) and 'type' in cfg.model:
            found[name] = cfg
    return found, unreadable


def _with_backbone(model: Any) -> Any:
    """The part that has the backbone; wrappers hold it deeper."""
    inside = model.get('detector')
    return inside if isinstance(inside, dict) else model


def _kind(part: dict) -> str:
    return Step('', part).kind


def _types(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if 'type' in node:
            yield _kind(node)
        for key, value in node.items():
            if key != 'init_cfg':
                yield from _types(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _types(item)


def _norms(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'norm_cfg':
                yield from _types(value)
            else:
                yield from _norms(value)
    elif isinstance(node, (list, tuple)):
        for item in node:
            yield from _norms(item)


def _steps(cfg: Config) -> FrozenSet[str]:
    for stage in ('train', 'test'):
        loader = cfg.get(f'{stage}_dataloader')
        if not isinstance(loader, dict):
            continue
        found = [
            kind
            for _, dataset in stage_datasets(cfg, (stage,))
            for kind in _types(dataset.get('pipeline'))
        ]
        if found:
            return frozenset(found)
    return frozenset()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
