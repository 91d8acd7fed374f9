#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Print docs/backbones.md: which backbones of a project can be slimmed.

Those of mmdet and mmaction2 are in docs/backbones_mmdet.md and
docs/backbones_mmaction2.md.
"""

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, NamedTuple, Tuple

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.errors import UsageError
from mutualnet_mm.models import Slimmable
from mutualnet_mm.progress_bars import track


class Project(NamedTuple):
    """Where the backbones of a project are, and how they are built.

    Args:
        package (str): What is imported, which is also the scope.
        arguments (dict): Of classes that no stock base config names, or
            names as a network that takes long to build.
        others (tuple[str]): Classes that are no backbones.
    """

    package: str
    arguments: Dict[str, dict]
    others: Tuple[str, ...]


_HRNET = {
    f'stage{number}': dict(
        num_modules=1,
        num_branches=number,
        block='BOTTLENECK' if number == 1 else 'BASIC',
        num_blocks=(2,) * number,
        num_channels=(64,) if number == 1 else (16, 32, 64, 128)[:number],
    )
    for number in (1, 2, 3, 4)
}
_SKELETON = dict(graph_cfg=dict(layout='coco', mode='spatial'))
PROJECTS = dict(
    mmpretrain=Project(
        'mmpretrain',
        dict(
            BEiTViT=dict(arch='deit-tiny'),
            CSPDarkNet=dict(depth=53),
            CSPResNet=dict(depth=50),
            CSPResNeXt=dict(depth=50),
            DaViT=dict(
                arch=dict(
                    embed_dims=48,
                    depths=[1, 1, 1, 1],
                    num_heads=[3, 6, 12, 24],
                )
            ),
            MlpMixer=dict(
                arch=dict(
                    embed_dims=64,
                    num_layers=2,
                    tokens_mlp_dims=32,
                    channels_mlp_dims=128,
                ),
                img_size=32,
            ),
            RepMLPNet=dict(
                arch=dict(
                    channels=[96, 192, 384, 768],
                    depths=[1, 1, 1, 1],
                    sharesets_nums=[1, 4, 32, 128],
                )
            ),
            # The backward pass of its own is refused.
            RevVisionTransformer=dict(no_custom_backward=True),
            SparseResNet=dict(depth=50),
            SVT=dict(
                arch=dict(
                    embed_dims=[32, 64, 96, 128],
                    depths=[1, 1, 1, 1],
                    num_heads=[1, 2, 3, 4],
                    patch_sizes=[4, 2, 2, 2],
                    strides=[4, 2, 2, 2],
                    mlp_ratios=[4, 4, 4, 4],
                    sr_ratios=[8, 4, 2, 1],
                    window_sizes=[7, 7, 7, 7],
                )
            ),
            # Without the stock classifier, which runs at one resolution only.
            VGG=dict(depth=16, norm_cfg=dict(type='BN')),
        ),
        # An abstract base, and a wrapper of a library that is not needed here.
        ('CSPNet', 'TIMMBackbone'),
    ),
    mmdet=Project(
        'mmdet',
        dict(
            DetectoRS_ResNet=dict(
                depth=50,
                num_stages=4,
                conv_cfg=dict(type='ConvAWS'),
                sac=dict(type='SAC', use_deform=True),
                stage_with_sac=(False, True, True, True),
            ),
            DetectoRS_ResNeXt=dict(
                depth=50, num_stages=4, groups=32, base_width=4
            ),
            EfficientNet=dict(arch='b0'),
            HRNet=dict(extra=_HRNET),
            RegNet=dict(arch='regnetx_400mf'),
            Res2Net=dict(depth=50),
            ResNeSt=dict(depth=50, stem_channels=64),
            ResNeXt=dict(depth=50, groups=32, base_width=4),
            ResNetV1d=dict(depth=50),
            SSDVGG=dict(depth=16, out_feature_indices=(22, 34)),
            TridentResNet=dict(
                depth=50,
                num_stages=3,
                strides=(1, 2, 2),
                dilations=(1, 1, 1),
                trident_dilations=(1, 2, 3),
                num_branch=3,
                test_branch_idx=1,
                out_indices=(2,),
            ),
        ),
        (),
    ),
    mmaction2=Project(
        'mmaction',
        dict(
            AAGCN=_SKELETON,
            ResNet3dCSN=dict(depth=50, pretrained=None, bottleneck_mode='ir'),
            STGCN=_SKELETON,
            TimeSformer=dict(num_frames=8, img_size=224, patch_size=16),
            UniFormerV2=dict(clip_pretrained=False),
            VisionTransformer=dict(img_size=224, num_frames=16),
        ),
        ('ResNet3dLayer',),  # one stage of a network
    ),
)


def stock_backbones(project: str = 'mmpretrain') -> Dict[str, Dict[str, Any]]:
    """Every backbone class of a project, with arguments that build one.

    Taken from the stock base configs: of several for one class, the first
    by file name. Nothing is downloaded.

    Args:
        project (str): One of ``PROJECTS``. Defaults to ``'mmpretrain'``.
    """
    package, arguments, others = PROJECTS[project]
    stock = import_module(package)
    backbones = import_module(f'{package}.models.backbones')
    found: Dict[str, Dict[str, Any]] = dict(arguments)
    folder = Path(stock.__file__ or '').parent / '.mim/configs/_base_/models'
    for file in sorted(folder.rglob('*.py')):
        config = Config.fromfile(file).get('model', {}).get('backbone') or {}
        if isinstance(config, dict) and 'type' in config:
            own = {
                k: v
                for k, v in config.items()
                if k not in ('type', 'init_cfg', 'pretrained')
            }
            found.setdefault(config['type'], own)
    return {
        name: found.get(name, {})
        for name in sorted(backbones.__all__)
        if name not in others
    }


def try_backbone(
    name: str, arguments: Dict[str, Any], project: str = 'mmpretrain'
) -> nn.Module:
    """Build a project's backbone ``name``, slimmable.

    Raises:
        UsageError: If it cannot be slimmed, with the reason.
    """
    package = PROJECTS[project].package
    with DefaultScope.overwrite_default_scope(package):
        return Slimmable(wraps=f'{package}.{name}', **arguments)


def survey_backbones(project: str = 'mmpretrain') -> Dict[str, str]:
    """Try every backbone of the installed release of a project.

    Returns:
        dict: By class name the reason why it cannot be slimmed, empty where
        it can: there the narrow network was proven to be the leading part
        of the full one.
    """
    reasons = {}
    found = stock_backbones(project)
    for name, arguments in track(found.items(), 'building', len(found)):
        try:
            try_backbone(name, arguments, project)
            reasons[name] = ''
        except UsageError as error:
            reasons[name] = str(error)
    return reasons


def survey_page(reasons: Dict[str, str], project: str = 'mmpretrain') -> str:
    """Write what :func:`survey_backbones` found as Markdown."""
    version = import_module(PROJECTS[project].package).__version__
    works = [name for name, reason in reasons.items() if not reason]
    lines = [
        f'# Backbones of {project} {version}',
        '',
        'Written by `mutualnet backbones`, which builds each of them with',
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
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--project',
        choices=sorted(PROJECTS),
        default='mmpretrain',
        help='whose backbones, default: %(default)s',
    )
    args = parser.parse_args()
    # Standard output is the page's alone: stock code logs there, too.
    with one_line_errors(), redirect_stdout(sys.stderr):
        page = survey_page(survey_backbones(args.project), args.project)
    print(page, end='')


if __name__ == '__main__':
    main()
