# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Any stock config, adaptive: derived, written and proven."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional, Sequence, Union

from mmengine.config import Config

from ..config.adaptive import derive, is_stock_loop, own_work_dir
from ..config.changes import Change, apply_changes
from ..config.delta_file import write_delta
from ..config.pipelines import Step
from ..config.stock import derived_name, read_stock_config
from ..config.stock_traits import StockTraits
from ..engine.trial import (
    TrialError,
    build_trial_model,
    trial_stage,
    try_subnet,
    try_training,
)
from ..engine.trial_batch import random_batch
from ..files import make_folder
from ..models.build import build_stock
from ..models.traits import read_traits
from ..progress_bars import progress_bar


@dataclass(frozen=True)
class AdaptiveConfig:
    """A config derived from a stock one.

    Args:
        cfg (Config): The whole of it.
        changes (list[Change]): What differs from the stock config, and why.
        notes (list[str]): What stays as it is although it may surprise.
        path (Path, optional): The file that was written, or None.
        is_new (bool): Whether the file was not there before. Defaults to
            False.
    """

    cfg: Config
    changes: List[Change]
    notes: List[str]
    path: Optional[Path] = None
    is_new: bool = False

    def prove(self) -> None:
        """Run one random batch through the network, see :func:`prove`.

        If it fails, a file that was not there before is gone again.
        """
        try:
            prove(self.cfg)
        except TrialError:
            if self.path is not None and self.is_new:
                self.path.unlink()
            raise


def make_adaptive(
    config: Union[str, Path, Config],
    width: Optional[Sequence[float]] = None,
    resolution: Optional[Sequence[int]] = None,
    frames: Optional[Sequence[int]] = None,
    out: Union[str, Path, None] = None,
    check: bool = True,
) -> AdaptiveConfig:
    """Make a stock config adaptive.

    Args:
        config (str, Path or Config): File, name such as
            ``'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'``, or a config in
            memory. It is not changed.
        width (Sequence[float], optional): Least and largest width. Defaults
            to those of the paper's networks of this kind: from 0.7
            (classification), 0.63 (videos) or 0.25 (detection) to 1.0.
        resolution (Sequence[int], optional): The full one, which the pipeline
            delivers, first. Defaults to it and parts of it.
        frames (Sequence[int], optional): Frames of a clip, the full number
            first. Defaults to the pipeline's and parts of it.
        out (str or Path, optional): File to write: a config of the stock
            one's style that inherits it and names what changes. Defaults to
            none.
        check (bool): Whether to build the network and run one random batch
            through it, see :func:`prove`. Defaults to True.

    Returns:
        AdaptiveConfig: The config, what differs and why.

    Raises:
        ConfigError: If the config cannot be read or derived from, or if
            ``out`` is there and says something else, or cannot be read back.
        TrialError: If the check fails; names the stage and the layer. No new
            file is left.
    """
    stock = read_stock_config(config)
    traits = read_traits(stock.cfg, build_stock(stock.cfg))
    changes = derive(stock.cfg, traits, width, resolution, frames)
    path = None if out is None else Path(out)
    made = AdaptiveConfig(
        apply_changes(stock.cfg, changes),
        changes,
        _notes(stock.cfg, traits),
        path,
        path is not None and not path.is_file(),
    )
    if made.path is not None:
        write_delta(stock, changes, made.cfg, made.path)
    if check:
        made.prove()
    return made


def write_adaptive(
    config: Union[str, Path],
    width: Optional[Sequence[float]] = None,
    resolution: Optional[Sequence[int]] = None,
    frames: Optional[Sequence[int]] = None,
    work_dir: Optional[str] = None,
) -> Path:
    """Write the adaptive config of a stock one into a folder of its work dir.

    MMEngine writes the whole config into the work dir itself.

    Args:
        config (str or Path): As for :func:`make_adaptive`, and so are the
            next ones.
        width (Sequence[float], optional): Defaults to None.
        resolution (Sequence[int], optional): Defaults to None.
        frames (Sequence[int], optional): Defaults to None.
        work_dir (str, optional): Defaults to ``mutual`` in the stock config's,
            or else to ``work_dirs/mutual-<name>``.

    Returns:
        Path: The file.
    """
    stock = read_stock_config(config)
    name = derived_name(stock)
    folder = Path(
        work_dir
        or own_work_dir(stock.cfg)
        or Path('work_dirs') / Path(name).stem
    )
    path = make_folder(folder / 'adaptive') / name
    make_adaptive(config, width, resolution, frames, path, check=False)
    return path


def _notes(cfg: Config, traits: StockTraits) -> List[str]:
    notes = []
    for stage in ('val', 'test'):
        loop = cfg.get(f'{stage}_cfg')
        if loop is not None and not is_stock_loop(cfg, stage):
            notes.append(
                f'{stage}_cfg stays {Step("", loop).kind}: it runs the full '
                'network alone'
            )
    if not traits.batch_norms:
        notes.append('no batch norm: subnets need no calibration')
    return notes


def prove(cfg: Config) -> None:
    """Build an adaptive config's network and run one batch through it.

    Two random images (or clips) of the full size go through the data
    preprocessor; the full and the smallest subnet are trained on them, without
    a step of the optimizer, and after calibration the smallest one predicts.
    Pretrained weights are left out; no data is read.

    Args:
        cfg (Config): It is not changed.

    Raises:
        TrialError: Names the stage and what stands in the way.
    """
    with progress_bar() as bar:
        task = bar.add_task('building', total=3)
        with trial_stage('build'):
            model = build_trial_model(cfg)
        with trial_stage('data'):
            batch = random_batch(model)
        bar.update(task, advance=1, description='one training step')
        # Preprocessors may write into what they get.
        try_training(model, deepcopy(batch))
        model.zero_grad()
        bar.update(task, advance=1, description='calibrating, predicting')
        tested = deepcopy(batch)
        if model.task.predicts_one_by_one:
            tested = {key: values[:1] for key, values in tested.items()}
        try_subnet(model, model.space.smallest, batch, tested)
        bar.update(task, advance=1)
