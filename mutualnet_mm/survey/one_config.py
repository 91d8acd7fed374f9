# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One stock config, stage by stage: as it is, or adaptive."""

from copy import deepcopy
from pathlib import Path
from typing import Any, Callable

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from ..config.adaptive import derive
from ..config.changes import apply_changes
from ..engine.trial import (
    build_trial_model,
    init_from_scratch,
    silenced,
    trial_stage,
    try_prediction,
    try_subnet,
    try_training,
)
from ..errors import UsageError
from ..models.build import build_stock
from ..models.traits import read_traits
from .made_data import use_made_data
from .small import make_small

_BATCH = 2


def try_config(
    path: Path,
    adaptive: bool,
    divisor: int,
    data: Path,
    say: Callable[[str], None] = lambda stage: None,
) -> None:
    """Build, train one batch, calibrate and predict.

    Args:
        path (Path): Stock config.
        adaptive (bool): Whether it is made adaptive; otherwise the stock
            model is tried.
        divisor (int): What image sizes are divided by.
        data (Path): Folder of the generated data.
        say (Callable): Is told the stage that begins.

    Raises:
        TrialError: Names the stage, and what stood in the way.
    """
    torch.manual_seed(0)
    say('build')
    with trial_stage('build'), silenced():
        cfg = Config.fromfile(path)
        make_small(cfg, divisor)
        model = build_stock(cfg)
        if adaptive:
            cfg = apply_changes(cfg, derive(cfg, read_traits(cfg, model)))
            model = build_trial_model(cfg)
        else:
            init_from_scratch(model)
    say('data')
    with trial_stage('data'):
        use_made_data(cfg, data)
        train, test = (first_batch(cfg, stage) for stage in ('train', 'test'))
    say('loss')
    try_training(model, deepcopy(train))
    say('predict')
    _try_testing(model, adaptive, train, test)


def _try_testing(model: Any, adaptive: bool, train: Any, test: Any) -> None:
    model.zero_grad()
    if adaptive:
        try_subnet(model, model.space.smallest, train, test)
    else:
        try_prediction(model, test)


def first_batch(cfg: Config, stage: str) -> Any:
    """Load the first batch of a stage, through the config's own pipeline.

    Raises:
        UsageError: If there is no loader.
    """
    loader = cfg.get(f'{stage}_dataloader')
    if not isinstance(loader, dict):
        raise UsageError(f'the config has no {stage}_dataloader')
    loader = dict(loader, num_workers=0, persistent_workers=False)
    for name in ('prefetch_factor', 'pin_memory'):
        loader.pop(name, None)
    sampler = loader.get('sampler') or {}
    if 'MultiSource' not in str(sampler.get('type')):
        loader['batch_size'] = min(loader.get('batch_size') or 1, _BATCH)
        if stage == 'train':  # batch norms need several
            loader['batch_size'] = _BATCH
    return next(iter(Runner.build_dataloader(loader, seed=0)))
