# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The paper's experiments as lists of configs, nothing more."""

from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Tuple


@dataclass(frozen=True)
class Member:
    """One network of an experiment.

    Attributes:
        label (str): In the report and the figure.
        config (str): Below ``configs/``, without ``.py``.
        options (Mapping): Like ``--cfg-options``. Defaults to none.
        environment (Mapping): Variables that the config reads. Defaults to
            none.
        tests (str, optional): Label of the member whose checkpoint this one
            tests, without a training of its own. Defaults to None.
        starts (str, optional): Setting that a checkpoint to start from is
            given by (``--start LABEL=CHECKPOINT``). Defaults to None.
    """

    label: str
    config: str
    options: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    tests: Optional[str] = None
    starts: Optional[str] = None


@dataclass(frozen=True)
class Recipe:
    """An experiment: what is trained, tested and drawn together.

    Attributes:
        shows (str): What it is, in a line.
        members (tuple[Member]): In the order of the report.
        divisor (int): With ``--small``, what sizes in pixels are divided by.
        small (Mapping): With ``--small``, options that make the networks
            thin.
    """

    shows: str
    members: Tuple[Member, ...]
    divisor: int = 4
    small: Mapping[str, object] = field(default_factory=dict)


_V1 = 'classification/mutual-mobilenet-v1_8xb128'
_V2 = 'classification/mutual-mobilenet-v2_8xb128'
_INIT = 'model.backbone.init_cfg.checkpoint'


def _wide(data: str) -> Recipe:
    kinds = ('', '-cutout', '-autoaug', '-mixup')
    return Recipe(
        f'Table 7: WRN-28-10 on {data}, boosted the same way',
        (
            Member('mutual', f'classification/mutual-wrn28-10_1xb128_{data}'),
            *(
                Member(
                    kind[1:] or 'baseline',
                    f'classification/wrn28-10_1xb128{kind}_{data}',
                )
                for kind in kinds
            ),
        ),
        divisor=1,
        small={
            'model.backbone.depth': 10,
            'model.backbone.widen_factor': 1,
            'model.head.in_channels': 64,
        },
    )


def _transfer(data: str) -> Recipe:
    return Recipe(
        f'MobileNetV1 from ImageNet to {data}',
        tuple(
            Member(
                label,
                f'classification/{kind}-mobilenet-v1_1xb256_{data}',
                starts=_INIT,
            )
            for label, kind in (
                ('MutualNet', 'mutual'),
                ('US-Net', 'usnet'),
                ('I-Net', 'inet'),
            )
        ),
    )


def _video(network: str, name: str, batch: str) -> Recipe:
    config = f'video/mutual-{name}_{batch}_k400'
    return Recipe(
        f'{network} on Kinetics-400, one view and ten',
        (
            Member('MutualNet', config),
            Member('ten views', f'{config}-10view', tests='MutualNet'),
            Member('I-Net', f'video/inet-{name}_{batch}_k400'),
        ),
    )


def _tuned(data: str, slow: str, slowfast: str) -> Recipe:
    return Recipe(
        f'Slow and SlowFast from Kinetics-400 to {data}',
        (
            Member('Slow', f'video/{slow}', starts='load_from'),
            Member('SlowFast', f'video/{slowfast}', starts='load_from'),
        ),
    )


RECIPES: Dict[str, Recipe] = {
    'kl': Recipe(
        'Fig. 12: subnets learn from the full network, or from labels',
        (
            Member('KL', f'{_V1}_in1k'),
            Member('labels', f'{_V1}-label_in1k'),
        ),
    ),
    'lower-bound': Recipe(
        'Fig. 13: the least width that is trained',
        (
            Member('0.7', f'{_V2}_in1k'),
            Member('0.8', f'{_V2}-w08_in1k'),
            Member('0.9', f'{_V2}-w09_in1k'),
        ),
    ),
    'num-subnets': Recipe(
        'Fig. 14: random subnets in a step',
        (
            Member('n=1', f'{_V1}-n1_in1k'),
            Member('n=2', f'{_V1}_in1k'),
            Member('n=3', f'{_V1}-n3_in1k'),
        ),
    ),
    'boost-resnet50': Recipe(
        'Table 7: ResNet-50, boosted by mutual learning and by others',
        (
            Member('mutual', 'classification/mutual-resnet50_8xb64-w09_in1k'),
            Member('baseline', 'classification/resnet50_8xb64_in1k'),
            Member('SE', 'classification/seresnet50_8xb64_in1k'),
            *(
                Member(kind, f'classification/resnet50_8xb64-{kind}_in1k')
                for kind in ('cutout', 'autoaug', 'mixup')
            ),
        ),
    ),
    'boost-cifar10': _wide('cifar10'),
    'boost-cifar100': _wide('cifar100'),
    'scaling-up': Recipe(
        'MobileNetV1 beyond its width and resolution, and compound scaling',
        (
            Member(
                'MutualNet',
                'classification/mutual-mobilenet-v1-2x_8xb128_in1k-320px',
            ),
            Member(
                'compound scaling',
                'classification/inet-mobilenet-v1-d14-w12_8xb128_in1k-288px',
            ),
        ),
    ),
    'transfer-cifar100': _transfer('cifar100'),
    'transfer-food101': _transfer('food101'),
    'transfer-indoor67': _transfer('indoor67'),
    'detection': Recipe(
        'Mask R-CNN with VGG-16 on COCO',
        (
            Member('MutualNet', 'mutual_mask_rcnn_vgg16'),
            *(
                Member(
                    label,
                    f'detection/{kind}-mask-rcnn_vgg16_fpn_8xb2-2x_coco',
                )
                for label, kind in (('US-Net', 'usnet'), ('I-Net', 'inet'))
            ),
        ),
        divisor=10,
        small={
            'model.backbone.init_cfg': None,
            'model.roi_head.bbox_head.fc_out_channels': 64,
            # Something is found after two iterations.
            'model.test_cfg.rcnn.score_thr': 0.0,
            'model.test_cfg.rcnn.max_per_img': 10,
        },
    ),
    'video-slow': _video('Slow-8x8', 'slow_r50', '8xb8-8x8'),
    'video-slowfast': _video('SlowFast-4x16', 'slowfast_r50', '8xb8-4x16'),
    'video-x3d': _video('X3D-M', 'x3d-m', '8xb16-16x5'),
    'charades': _tuned(
        'Charades',
        'slow_r50_4xb2-8x8_charades',
        'slowfast_r50_4xb2-4x16_charades',
    ),
    'ava': _tuned(
        'AVA', 'slow_r50_8xb4-8x8_ava21', 'slowfast_r50_8xb4-4x16_ava21'
    ),
}
