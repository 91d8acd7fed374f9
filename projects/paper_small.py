# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A config of the paper for a machine without its data or accelerators."""

from dataclasses import replace
from pathlib import Path
from typing import Mapping

from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.config.pipelines import STAGES, loaders_of, stage_datasets
from mutualnet_mm.survey.made_data import use_made_data
from mutualnet_mm.survey.small import divided, make_small

_STRIDE = 32  # as ``make_small`` keeps it
_FILES = ('ann_file', 'exclude_file', 'label_file')
_BATCH = 2


def shrink(
    cfg: Config,
    divisor: int,
    options: Mapping[str, object],
    iterations: int,
    data: Path,
) -> None:
    """Take small images, few iterations and generated data.

    Args:
        cfg (Config): It is changed.
        divisor (int): What sizes in pixels are divided by.
        options (Mapping): That make the network thin, as far as the config
            has such settings.
        iterations (int): Of the training.
        data (Path): Folder of the generated data.

    Raises:
        UsageError: If no data of the form that the config reads can be made,
            or if it has several test loaders.
    """
    if not isinstance(cfg.test_dataloader, dict):
        raise UsageError(
            f'--small: {cfg.filename} has a list of test_dataloaders, but '
            'a table is built of one: leave only that'
        )
    cfg.merge_from_dict(
        {k: v for k, v in options.items() if _has(cfg, k.rpartition('.')[0])}
    )
    make_small(cfg, divisor)
    cfg.model.backbone.pop('init_cfg', None)
    cfg.load_from = None
    if 'mutual' in cfg.model:
        _shrink_space(cfg, divisor)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    try:
        use_made_data(cfg, data)
    except UsageError as error:
        raise UsageError(f'--small: {error}') from error
    _use_made_truth(cfg)
    for stage in STAGES:
        for _, loader in loaders_of(cfg, stage):
            size = loader.get('batch_size') or 1
            # Detectors of actions test clips one by one.
            size = _BATCH if stage == 'train' else min(size, _BATCH)
            loader.update(
                num_workers=0, persistent_workers=False, batch_size=size
            )
            loader.pop('prefetch_factor', None)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=iterations)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=iterations
    )
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.custom_hooks = [
        dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
    ]


def _use_made_truth(cfg: Config) -> None:
    """Evaluate against the generated files that the data set names, too."""
    evaluators = cfg.test_evaluator
    if isinstance(evaluators, dict):
        evaluators = [evaluators]
    *_, (_, dataset) = stage_datasets(cfg, ('test',))
    root = Path(dataset.get('data_root') or '')
    for evaluator in evaluators:
        for name in _FILES:
            if evaluator.get(name):
                evaluator[name] = str(root / dataset[name])


def _shrink_space(cfg: Config, divisor: int) -> None:
    """Bring down the resolutions, and the subnets that are tested."""
    mutual = cfg.model.mutual
    old = mutual.resolution[0]
    new = divided(old, divisor, _STRIDE)
    mutual.resolution = [round(new / old * r) for r in mutual.resolution]

    def smaller(name: str) -> str:
        subnet = Subnet.parse(name)
        resolution = round(new / old * subnet.resolution)
        return str(replace(subnet, resolution=resolution))

    if mutual.get('single_subnet'):
        mutual.single_subnet = smaller(mutual.single_subnet)
    listed = (cfg.get('test_cfg') or {}).get('subnets')
    if listed:
        cfg.test_cfg.subnets = list(map(smaller, listed))


def _has(cfg: Config, name: str) -> bool:
    node = cfg._cfg_dict
    for part in name.split('.'):
        if not isinstance(node, ConfigDict) or part not in node:
            return False
        node = node[part]
    return True
