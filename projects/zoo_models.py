# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The networks of the zoo: their configs, their data and their schedules."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, Optional

from cifar10_images import prepare_images
from fight_data import prepare_clips

from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits
from mutualnet_mm.datasets.digit_scenes import make_digit_scenes


@dataclass(frozen=True)
class ZooModel:
    """A network that is trained here.

    Args:
        config (str): Below ``configs/``.
        dataset (str): What it is trained and tested on, in words.
        prepare (callable): Makes the data where the config looks for them,
            of the folder ``--data`` or of nothing.
        data (str, optional): What ``--data`` has to hold. Defaults to None:
            the data are made of what scikit-learn carries.
        options (dict): Values of ``--cfg-options``. Defaults to none.
        step (float, optional): Step of the table's widths. Defaults to None:
            the table has the subnets of the config's ``test_cfg``.
    """

    config: str
    dataset: str
    prepare: Callable[[Optional[Path]], None]
    data: Optional[str] = None
    options: Dict[str, str] = field(default_factory=dict)
    step: Optional[float] = None

    @property
    def name(self) -> str:
        """That of the config, as in other OpenMMLab projects."""
        return Path(self.config).stem


def _cluttered_digits(data: Optional[Path]) -> None:
    make_cluttered_digits('data/cluttered_digits')


def _digit_scenes(data: Optional[Path]) -> None:
    make_digit_scenes('data/digit_scenes')


def _cifar10(data: Path) -> None:
    prepare_images(data, Path('data/cifar10_16px'), 16, 1000, 1000)


def _fight_clips(data: Path) -> None:
    prepare_clips(data, Path('data/fight_64px'), 5)


def _epochs(number: int) -> Dict[str, str]:
    """Options of a schedule of another length."""
    keys = ('train_cfg.max_epochs', 'train_cfg.val_interval')
    keys += ('param_scheduler.T_max', 'param_scheduler.end')
    return dict.fromkeys(keys, str(number))


_MODELS = (
    ZooModel(
        'classification/mutual-resnet14_1xb64_cluttered-digits.py',
        "scikit-learn's digits on cluttered photographs, 32 x 32 pixels: "
        '4,000 images to train on, 2,000 to test',
        _cluttered_digits,
        step=0.25,
    ),
    ZooModel(
        'classification/mutual-wrn10-2_1xb64_cifar10-16px.py',
        'CIFAR-10 at 16 x 16 pixels: 10,000 images to train on, the whole '
        'test set of 10,000',
        _cifar10,
        data='{train,test}/<class>/*.jpg of CIFAR-10',
        options={**_epochs(8), 'optim_wrapper.optimizer.lr': '0.3'},
        step=0.25,
    ),
    ZooModel(
        'video/mutual-slowfast-r10_1xb10_fight-64px.py',
        '100 surveillance clips with and without a fight: one fold of five, '
        '80 to train on, 20 to test',
        _fight_clips,
        data='100 clips, and train.txt and val.txt with lines of "path label"',
        options={
            f'{split}_dataloader.dataset.ann_file': f'fold0_{part}.txt'
            for split, part in (
                ('train', 'train'),
                ('val', 'test'),
                ('test', 'test'),
            )
        },
    ),
    ZooModel(
        'detection/mutual-mask-rcnn_vgg16_fpn_1xb4_digits.py',
        "scikit-learn's digits on photographs, 128 x 192 pixels: 400 scenes "
        'to train on, 60 to test',
        _digit_scenes,
    ),
)
MODELS = {model.name: model for model in _MODELS}
