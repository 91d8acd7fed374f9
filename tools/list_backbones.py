#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Print docs/backbones.md: which backbones of mmpretrain can be slimmed."""

from pathlib import Path
from typing import Any, Dict

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.errors import UsageError
from mutualnet_mm.models import Slimmable
from mutualnet_mm.progress_bars import track

# Classes that no stock base config names; of BEiT one that is built quickly;
# VGG without the stock classifier, which runs at one resolution only.
_ARGUMENTS: Dict[str, dict] = dict(
    BEiTViT=dict(arch='deit-tiny'),
    CSPDarkNet=dict(depth=53),
    CSPResNet=dict(depth=50),
    CSPResNeXt=dict(depth=50),
    SparseResNet=dict(depth=50),
    VGG=dict(depth=16, norm_cfg=dict(type='BN')),
)
# An abstract base, and a wrapper of a library that is not needed here.
_NO_BACKBONES = ('CSPNet', 'TIMMBackbone')


def stock_backbones() -> Dict[str, Dict[str, Any]]:
    """Every backbone class of mmpretrain, with arguments that build one.

    Taken from the stock base configs: of several for one class, the first
    by file name.
    """
    import mmpretrain
    from mmpretrain.models import backbones

    found: Dict[str, Dict[str, Any]] = dict(_ARGUMENTS)
    folder = Path(mmpretrain.__file__).parent / '.mim/configs/_base_/models'
    for file in sorted(folder.rglob('*.py')):
        config = Config.fromfile(file).get('model', {}).get('backbone') or {}
        if isinstance(config, dict) and 'type' in config:
            arguments = {
                k: v
                for k, v in config.items()
                if k not in ('type', 'init_cfg')
            }
            found.setdefault(config['type'], arguments)
    return {
        name: found.get(name, {})
        for name in sorted(backbones.__all__)
        if name not in _NO_BACKBONES
    }


def try_backbone(name: str, arguments: Dict[str, Any]) -> nn.Module:
    """Build mmpretrain's backbone ``name``, slimmable.

    Raises:
        UsageError: If it cannot be slimmed, with the reason.
    """
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Slimmable(wraps=f'mmpretrain.{name}', **arguments)


def survey_backbones() -> Dict[str, str]:
    """Try every backbone of the installed mmpretrain.

    Returns:
        dict: By class name the reason why it cannot be slimmed, empty where
        it can: there the narrow network was proven to be the leading part
        of the full one.
    """
    reasons = {}
    found = stock_backbones()
    for name, arguments in track(found.items(), 'building', len(found)):
        try:
            try_backbone(name, arguments)
            reasons[name] = ''
        except UsageError as error:
            reasons[name] = str(error)
    return reasons


def survey_page(reasons: Dict[str, str]) -> str:
    """Write what :func:`survey_backbones` found as Markdown."""
    import mmpretrain

    works = [name for name, reason in reasons.items() if not reason]
    lines = [
        f'# Backbones of mmpretrain {mmpretrain.__version__}',
        '',
        'Written by `tools/list_backbones.py`, which builds each of them with',
        '`Slimmable(wraps=...)` and compares the narrow network with the',
        'leading part of the full one.',
        '',
        f'## Can be slimmed ({len(works)})',
        '',
        *(f'- {name}' for name in works),
        '',
        f'## Refused ({len(reasons) - len(works)})',
        '',
        '| class | reason |',
        '|---|---|',
        *(
            f'| {name} | {reasons[name]} |'
            for name in reasons
            if reasons[name]
        ),
    ]
    return '\n'.join(lines) + '\n'


def main() -> None:
    tool_parser(__doc__).parse_args()
    with one_line_errors():
        page = survey_page(survey_backbones())
    print(page, end='')


if __name__ == '__main__':
    main()
