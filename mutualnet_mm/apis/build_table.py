# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""From a config and a checkpoint to a query table and its files."""

import copy
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..config.pipelines import stage_datasets
from ..config.runner import make_runner
from ..config.source import config_source
from ..config.stock_errors import named_stock_errors
from ..config.views import find_views
from ..cost.macs import (
    count_heads,
    count_macs,
    count_params,
    warn_of_equal_sizes,
)
from ..deploy.adaptive_file import AdaptiveFile
from ..deploy.inputs import InputPipeline
from ..engine.table_loop import TableLoop
from ..errors import ConfigError, UsageError, as_usage_error
from ..files import make_folder, only_writer
from ..models import MutualLearningMixin
from ..models.build import without_teacher
from ..models.checkpoints import check_checkpoint, check_exists
from ..query_table import QueryTable, TableEntry, save_csv, save_table
from ..subnet import Size, Subnet
from ..visualization import plot_tables

# What belongs to the run that built the table, not to the network.
_OF_THE_RUN = ('launcher', 'load_from', 'resume', 'work_dir')
# Where launchers say how many processes there are.
_WORLD_SIZE = dict(
    pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE'
)


@named_stock_errors()
def build_table(
    cfg: Config,
    checkpoint: str,
    out: Union[str, Path],
    step: float = 0.05,
    subnets: Optional[Sequence[Union[str, Subnet]]] = None,
    num_images: Optional[int] = None,
    metric: Optional[str] = None,
) -> QueryTable:
    """Evaluate a grid of subnets and write all that deployment needs.

    Every width in steps of ``step`` x resolution (x frames) is calibrated and
    tested with the config's own ``test_dataloader`` and ``test_evaluator``;
    ``test_cfg.group_size`` and ``test_cfg.fp16`` hold. Called again after an
    interruption, it continues: what is finished lies in ``out/progress``.
    Called for other subnets of the same weights, it adds them to the table.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it.
        checkpoint (str): File or address of the trained weights. If there is
            an EMA hook, the averaged ones are evaluated and saved.
        out (str or Path): Folder for ``table.json``, ``table.csv``,
            ``curve.png`` and ``adaptive.pth``.
        step (float): Step of the grid's widths. Defaults to 0.05.
        subnets (Sequence, optional): Such as ``['1.0x-224', '0.5x-160']``, in
            place of the grid.
        num_images (int, optional): Test on so many random images or videos,
            always the same ones. Defaults to all.
        metric (str, optional): What ranks the subnets, more being better.
            Defaults to the first one that the evaluator gives.

    Returns:
        QueryTable: Accuracies carry a 95 % interval, see
        :func:`~mutualnet_mm.query_table.metric_interval`. MACs are those of
        an image, or of one view of a video, as the test pipeline delivers it
        (of the full resolution where it names no size).

    Raises:
        UsageError: If something given is wrong, in several processes, or if
            ``out`` holds the table of something else. A finished one of
            another checkpoint is replaced.
    """
    if not isinstance(cfg, Config):
        raise UsageError(
            f'cfg={cfg!r}: give what load_config() returns for a config file'
        )
    check_exists(checkpoint)
    out = make_folder(out)
    runner = _make_runner(cfg, checkpoint)
    test_cfg = cfg.test_cfg
    loop = TableLoop(
        runner,
        cfg.test_dataloader,
        cfg.test_evaluator,
        folder=out / 'progress',
        step=step,
        subnets=None if subnets is None else list(map(str, subnets)),
        num_images=num_images,
        metric=metric,
        **{k: test_cfg[k] for k in ('group_size', 'fp16') if k in test_cfg},
    )
    model = loop.model
    check_checkpoint(checkpoint, model)
    views = find_views(cfg)
    warn_of_equal_sizes(model, loop.subnets, views.shape)
    costs = _Costs(model, views.shape)
    for subnet in loop.subnets:
        costs.of(subnet)
    # All that can fail for what the config says fails before the tests.
    text = config_source(_portable(cfg, model))
    _check_inputs(text, model)
    calibration, meta = _calibration(loop), _dataset_meta(loop)
    # In place of the loop in the config, which is dumped to the work dir.
    runner._test_loop = loop
    runner.test()
    results = loop.progress.results
    table = QueryTable(
        # Those of an earlier table of the same weights, too.
        [
            TableEntry(
                subnet, metrics=results[str(subnet)], **costs.of(subnet)
            )
            for subnet in _from_large_to_small(map(Subnet.parse, results))
        ],
        metric=loop.ranking(),
        task=model.task.name,
        full=model.space.full,
        num_images=len(loop.dataloader.dataset),
        views=views.number,
    )
    file = AdaptiveFile(
        config=text,
        weights=loop.weights,
        # An interrupted run may have found those of more subnets.
        statistics={k: v for k, v in loop.bank.items() if k in results},
        table=table,
        width=(model.space.min_width, model.space.max_width),
        rounding=model.slim_state.rounding,
        calibration=calibration,
        dataset_meta=meta,
    )
    with only_writer(out / 'adaptive.pth'):
        earlier = file.earlier(out / 'adaptive.pth')
        if earlier is not None:
            table = table.with_latencies_of(earlier.table)
        save_table(table, out / 'table.json')
        save_csv(table, out / 'table.csv')
        replace(file, table=table).save(out / 'adaptive.pth')
    plot_tables({_title(cfg): table}, out / 'curve.png')
    loop.progress.finish()
    return table


class _Costs:
    """What subnets cost, each counted once.

    Args:
        model (MutualLearningMixin): Whose subnets they are.
        shape (tuple[int], optional): Height and width of what the test
            pipeline delivers.
    """

    def __init__(
        self, model: MutualLearningMixin, shape: Optional[Size]
    ) -> None:
        self._model, self._shape = model, shape
        self._macs: Dict[Subnet, Dict[str, Optional[int]]] = {}
        self._params: Dict[float, int] = {}  # the width alone matters

    def of(self, subnet: Subnet) -> Dict[str, Any]:
        """The costs of a subnet, by their names in a table's entry."""
        if subnet not in self._macs:
            given = self._model, subnet, self._shape
            heads = count_heads(*given)
            self._macs[subnet] = dict(
                macs=count_macs(*given),
                head_macs=None if heads is None else heads.macs,
            )
        if subnet.width not in self._params:
            self._params[subnet.width] = count_params(self._model, subnet)
        return dict(self._macs[subnet], params=self._params[subnet.width])


def _from_large_to_small(subnets: Iterable[Subnet]) -> List[Subnet]:
    return sorted(
        subnets,
        key=lambda s: (s.width, s.resolution, s.frames or 0),
        reverse=True,
    )


def _make_runner(cfg: Config, checkpoint: str) -> Runner:
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise UsageError(
                f'the config has no {key}, which build_table needs'
            )
    size = os.environ.get(_WORLD_SIZE.get(cfg.get('launcher'), ''), '1')
    if int(size) > 1:
        raise UsageError(
            f'{size} processes were launched, but a table is built by one: '
            'start a single one'
        )
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume = checkpoint, False
    return make_runner(cfg)


def _title(cfg: Config) -> str:
    return Path(cfg.filename or 'query table').stem


def _portable(cfg: Config, model: MutualLearningMixin) -> Config:
    """The config without what belongs to this run or to training alone."""
    cfg = copy.deepcopy(cfg)
    for key in _OF_THE_RUN:
        cfg.pop(key, None)
    cfg.model = without_teacher(cfg.model, model)
    return cfg


def _check_inputs(text: str, model: MutualLearningMixin) -> None:
    """Refuse a test pipeline that the adaptive file could not be given.

    Without one (data sets that load by code of their own) the table is as
    good, but the file beside it cannot be opened: that is said before.
    """
    cfg = Config.fromstring(text, '.py')
    if not any('pipeline' in d for _, d in stage_datasets(cfg, ('test',))):
        print_log(
            'the config has no test_dataloader.dataset.pipeline: '
            'AdaptiveModel cannot open the adaptive.pth of this table',
            logger='current',
            level=logging.WARNING,
        )
        return
    broken = 'inputs cannot be made by the test_dataloader of the config'
    with as_usage_error(broken, ConfigError):
        InputPipeline(cfg, model)


def _calibration(loop: TableLoop) -> Dict[str, Any]:
    recipe = loop.recipe
    dataloader = recipe.dataloader
    if dataloader is not None:
        dataloader = Config(dataloader).to_dict()  # plain containers
    return dict(num_batches=recipe.num_batches, dataloader=dataloader)


def _dataset_meta(loop: TableLoop) -> Dict[str, Any]:
    """Names and colours of the classes, where the data set has them."""
    found = getattr(loop.dataloader.dataset, 'metainfo', None) or {}
    if isinstance(found, (list, tuple)):  # of several, which must be alike
        found = found[0]
    classes, palette = found.get('classes'), found.get('palette')
    meta: Dict[str, Any] = {}
    if isinstance(classes, (list, tuple)):
        meta.update(classes=[str(name) for name in classes])
    if isinstance(palette, (list, tuple)):  # not the name of one
        meta.update(palette=_colors(palette))
    return meta


def _colors(palette: Sequence[Any]) -> List[Tuple[int, ...]]:
    """Red, green and blue of each class, of numbers in a row, too."""
    numbers = np.asarray(palette, dtype=int).reshape(-1, 3)
    return [tuple(map(int, color)) for color in numbers]
