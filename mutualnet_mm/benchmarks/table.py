# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A query table against testing one subnet after the other."""

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Dict, List

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import nn

from ..apis import build_table
from ..engine.calibration import calibrate
from ..subnet import Subnet
from .calibrate import spread
from .pictures import write_jpegs
from .subjects import build_subject, open_config
from .turns import ratio, report, take_turns

CLASSES = 4
"""Of the made-up data sets."""


def benchmark_table(
    network: str = 'mobilenet-v1',
    subnets: int = 64,
    pictures: int = 32,
    rounds: int = 1,
) -> Dict[str, Any]:
    """Compare ``build_table`` with a plain loop, and with bare forwards.

    The loop calibrates and tests each subnet by itself and loads what it
    needs anew, as published code does. Bare forwards are those of both on
    batches that are in memory.

    Args:
        network (str): Classifier of :data:`~.subjects.NETWORKS`, or a config.
        subnets (int): How many, spread over the grid. Defaults to 64.
        pictures (int): To calibrate on, and as many to test on. Defaults to
            32.
        rounds (int): Timed runs of each. Defaults to 1.

    Returns:
        dict: See :func:`~.turns.report`.

    Raises:
        AssertionError: If the accuracies are not equal.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        for split in ('train', 'test'):
            write_jpegs(folder / split, pictures, CLASSES)
        cfg = small_config(open_config(network), folder)
        model = build_subject(cfg).eval()
        nn.init.normal_(model.head.fc.weight)  # else all answers are alike
        torch.save(dict(state_dict=model.state_dict()), folder / 'a.pth')
        chosen = spread(model.space.grid(), subnets)
        found: Dict[str, Dict[str, float]] = {}
        count = iter(range(10**6))

        def table() -> None:
            built = build_table(
                copy.deepcopy(cfg),
                str(folder / 'a.pth'),
                folder / f'table{next(count)}',
                subnets=chosen,
            )
            assert built is not None
            found['table'] = {
                str(entry.subnet): entry.metrics['accuracy/top1'] or 0.0
                for entry in built.entries
            }

        def one_by_one() -> None:
            found['one by one'] = {
                str(s): _accuracy(model, s, _load(cfg, 'train'), _load(cfg))
                for s in chosen
            }

        kept = list(_load(cfg, 'train')), list(_load(cfg))

        def forwards() -> None:
            for subnet in chosen:
                _accuracy(model, subnet, *kept)

        calls = {
            'table': table,
            'one by one': one_by_one,
            'forwards': forwards,
        }
        times = take_turns(calls, rounds, warm_up=0)
    for subnet, accuracy in found['one by one'].items():
        assert abs(found['table'][subnet] - accuracy) < 1e-4, subnet
    return report(
        'table',
        times,
        [
            ratio(
                'table / one by one', times['table'], times['one by one'], 0.25
            ),
            ratio('table / forwards', times['table'], times['forwards'], 1.10),
        ],
        network=network,
        subnets=len(chosen),
        pictures=pictures,
        accuracies=len(set(found['table'].values())),
    )


def small_config(cfg: Config, folder: Path) -> Config:
    """The config with few classes and with pictures of its own."""
    cfg.model.head.num_classes = CLASSES
    cfg.model.head.pop('topk', None)
    cfg.test_evaluator = dict(type='Accuracy')
    cfg.work_dir = str(folder / 'logs')
    cfg.log_level = 'ERROR'
    cfg.custom_hooks = [
        dict(
            type='mutualnet_mm.BNCalibrationHook',
            pipeline='test',
            full='calibrated',
        )
    ]
    side = cfg.model.mutual.resolution[0]
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=side, edge='short'),
        dict(type='CenterCrop', crop_size=side),
        dict(type='PackInputs'),
    ]
    for split in ('train', 'test'):
        cfg[f'{split}_dataloader'] = dict(
            batch_size=8,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='CustomDataset',
                data_root=str(folder / split),
                pipeline=pipeline,
            ),
        )
    return cfg


def _load(cfg: Config, split: str = 'test') -> Any:
    return Runner.build_dataloader(
        copy.deepcopy(cfg[f'{split}_dataloader']), seed=0
    )


@torch.no_grad()
def _accuracy(model: Any, subnet: Subnet, train: Any, test: Any) -> float:
    """Percent of right answers of one subnet, calibrated before."""
    bank = calibrate(model, [subnet], train, tested=True)
    right: List[bool] = []
    for batch in test:
        data = model.data_preprocessor(batch, False)
        inputs, samples = model.task.resize(
            model, data['inputs'], data['data_samples'], subnet
        )
        with model.activate(subnet, bank[str(subnet)]):
            logits = model(inputs, mode='tensor')
        logits = logits[-1] if isinstance(logits, tuple) else logits
        if logits.dim() != 2 or logits.shape[1] != CLASSES:
            logits = model.head.fc(logits.flatten(1))
        answers = logits.argmax(1)
        right += [
            int(answer) == int(sample.gt_label)
            for answer, sample in zip(answers, samples)
        ]
    return 100 * sum(right) / len(right)
