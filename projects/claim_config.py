# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Configs of the claim's trainings: WRN-10 on small images in memory."""

from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional

import claim_images  # noqa: F401  (registers the data set)
from claim_methods import DATA, SIZES, Data, Method, Run
from mmengine.config import Config

BATCH = 64
TEST_IMAGES = 10000


class Teacher(NamedTuple):
    """A network that others learn from.

    Args:
        model (dict): Its config.
        weights (Path): File of its ``state_dict``.
    """

    model: dict
    weights: Path


def model(mutual: dict, data: Data, is_soft: bool = False) -> dict:
    """WRN-10 for small images.

    Args:
        mutual (dict): As in a config.
        data (Data): What it is trained on.
        is_soft (bool): Whether labels are probabilities. Defaults to False.
    """
    return dict(
        type='mutualnet_mm.MutualLearning',
        wraps='ImageClassifier',
        mutual=mutual,
        data_preprocessor=dict(
            type='ClsDataPreprocessor',
            num_classes=10,
            mean=[*data.mean],
            std=[*data.std],
        ),
        backbone=dict(
            type='mutualnet_mm.SlimmableWideResNet',
            depth=10,
            widen_factor=data.widen_factor,
            in_channels=len(data.mean),
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=10,
            in_channels=64 * data.widen_factor,
            loss=dict(type='CrossEntropyLoss', use_soft=is_soft),
        ),
    )


def run_config(
    run: Run,
    method: Method,
    images: Path,
    folder: Path,
    teacher: Optional[Teacher] = None,
) -> Config:
    """The config of a run.

    Args:
        run (Run): What is trained.
        method (Method): That of the run.
        images (Path): File that :func:`~claim_images.prepare_images` wrote.
        folder (Path): Of the run; the config of a teacher is written there.
        teacher (Teacher, optional): Of a method that has one. Defaults to
            None.
    """
    data = DATA[run.data]
    largest, own = SIZES[0], method.mutual['resolution'][0]
    crop = dict(type='CropAndFlip', padding=largest // 8)
    resize = [] if own == largest else [dict(type='ShrinkBatch', size=own)]
    steps = [*resize, dict(type='PackBatch')]
    learn = []
    mutual = dict(method.mutual, seed=run.seed)
    if teacher and method.is_distilled:
        weights = str(teacher.weights)
        add = dict(type='AddTeacher', model=teacher.model, weights=weights)
        learn.append(add)
    elif teacher:
        config = folder / 'teacher.py'
        content = dict(default_scope='mmpretrain', model=teacher.model)
        Config(content).dump(config)
        mutual['teacher'] = dict(
            config=str(config), checkpoint=str(teacher.weights)
        )
    train, test = ('train', (0, data.train)), ('test', (0, TEST_IMAGES))
    subnets = (*method.subnets, *method.more)
    if run.use == 'search':
        train, test = (('train', part) for part in data.search_parts)
        subnets = method.subnets

    def loader(split: str, part: tuple, pipeline: list) -> Dict[str, Any]:
        return dict(
            num_workers=0,
            collate_fn=dict(type='one_batch'),
            dataset=dict(
                type='ImageBatches',
                file=str(images),
                split=split,
                part=part,
                pipeline=pipeline,
            ),
        )

    epochs = run.epochs * data.repeats
    by_iter = dict(by_epoch=True, convert_to_iter_based=True)
    return Config(
        dict(
            default_scope='mmpretrain',
            model=model(mutual, data, method.is_distilled),
            train_dataloader=dict(
                loader(*train, [crop, *learn, *steps]),
                batch_size=BATCH,
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            test_dataloader=dict(
                loader(*test, steps),
                batch_size=250,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            test_evaluator=dict(type='Accuracy'),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            test_cfg=dict(
                type='mutualnet_mm.SubnetTestLoop',
                subnets=list(map(str, subnets)),
            ),
            optim_wrapper=dict(
                optimizer=dict(
                    type='SGD',
                    lr=run.rate,
                    momentum=0.9,
                    nesterov=True,
                    weight_decay=5e-4,
                ),
                paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0),
            ),
            param_scheduler=[
                dict(
                    type='LinearLR',
                    start_factor=0.1,
                    end=data.repeats,
                    **by_iter,
                ),
                dict(
                    type='CosineAnnealingLR',
                    begin=data.repeats,
                    end=epochs,
                    T_max=epochs - data.repeats,
                    **by_iter,
                ),
            ],
            default_hooks=dict(logger=dict(type='LoggerHook', interval=50)),
            randomness=dict(seed=run.seed),
        )
    )
