# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""From a config and a checkpoint to a query table and its files."""

import copy
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from mmengine.config import Config
from mmengine.logging import print_log

from ..config.launchers import launched_shard, use_local_gpu
from ..config.pipelines import stage_datasets
from ..config.source import config_source
from ..config.stock_errors import named_stock_errors
from ..deploy.adaptive_file import AdaptiveFile
from ..deploy.inputs import InputPipeline
from ..deploy.stored_model import find_channels
from ..engine.table_loop import TableLoop
from ..errors import ConfigError, UsageError, as_usage_error
from ..files import make_folder, only_writer
from ..models import MutualLearningMixin
from ..models.build import without_teacher
from ..models.checkpoints import check_exists
from ..query_table import QueryTable, save_csv, save_table
from ..shards import Shard
from ..subnet import Subnet
from ..visualization import plot_tables
from .measurement import Measurement

# What belongs to the run that built the table, not to the network.
_OF_THE_RUN = ('launcher', 'load_from', 'resume', 'work_dir')


@named_stock_errors()
def build_table(
    cfg: Config,
    checkpoint: str,
    out: Union[str, Path],
    step: float = 0.05,
    subnets: Optional[Sequence[Union[str, Subnet]]] = None,
    num_images: Optional[int] = None,
    metric: Optional[str] = None,
    shard: Optional[Union[str, Shard]] = None,
) -> Optional[QueryTable]:
    """Evaluate a grid of subnets and write all that deployment needs.

    Every width in steps of ``step`` x resolution (x frames) is calibrated and
    tested with the config's own ``test_dataloader`` and ``test_evaluator``;
    ``test_cfg.group_size`` and ``test_cfg.fp16`` hold. Called again after an
    interruption, it continues: what is finished lies in ``out/progress``.
    Called for other subnets of the same weights, it adds them to the table.

    Several processes share the work if each is told another ``shard``, or if
    a launcher started them (``cfg.launcher``): each calibrates and tests its
    part of the subnets and keeps what it has finished in a folder of its own
    in ``out/progress``. They do not wait for each other nor exchange anything
    else; the one that finds all parts finished writes the files.

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
        shard (str or Shard, optional): Which part of the subnets, such as
            ``'3/8'``; parts are of about equal cost. Defaults to that of the
            process among those that ``cfg.launcher`` started, a GPU for each
            where there are some; of one process, all subnets.

    Returns:
        QueryTable: None if other parts have not finished yet. Accuracies and
        average precisions of COCO carry a 95 % interval, see
        :meth:`.QueryTable.interval`. MACs are those of an image, or of one
        view of a video, as the test pipeline delivers it (of the full
        resolution where it names no size).

    Raises:
        UsageError: If something given is wrong, if another process is at
            work on the same part or on all of them in ``out``, or if that
            holds the table of something else. A finished one of another
            checkpoint is replaced.
    """
    if not isinstance(cfg, Config):
        raise UsageError(
            f'cfg={cfg!r}: give what load_config() returns for a config file'
        )
    check_exists(checkpoint)
    cfg, part = _as_part(cfg, shard)
    out = make_folder(out)
    measurement = Measurement(
        cfg,
        checkpoint,
        out / 'progress',
        subnets,
        step,
        num_images,
        metric,
        shard=part,
    )
    loop, model = measurement.loop, measurement.loop.model
    # All that can fail for what the config says fails before the tests.
    text = config_source(_portable(cfg, model))
    _check_inputs(text, model)
    channels = find_channels(text, model)
    calibration, meta = _calibration(loop), _dataset_meta(loop)
    if not measurement.test():
        return None
    table = measurement.table()
    results = loop.progress.results
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
        channels=channels,
    )
    with only_writer(out / 'adaptive.pth'):
        earlier = file.earlier(out / 'adaptive.pth')
        if earlier is not None:
            table = table.with_latencies_of(earlier.table)
            file = _with_added(file, earlier)
        save_table(table, out / 'table.json')
        save_csv(table, out / 'table.csv')
        replace(file, table=table).save(out / 'adaptive.pth')
    plot_tables({_title(cfg): table}, out / 'curve.png')
    loop.progress.finish()
    return table


def _with_added(file: AdaptiveFile, earlier: AdaptiveFile) -> AdaptiveFile:
    """Keep the statistics that ``net.calibrate`` added to the same model."""
    own, other = (
        Config.fromstring(each.config, '.py').model for each in (file, earlier)
    )
    if own != other or earlier.calibration != file.calibration:
        return file
    of_table = {str(entry.subnet) for entry in earlier.table.entries}
    added = {k: v for k, v in earlier.statistics.items() if k not in of_table}
    return replace(file, statistics={**added, **file.statistics})


def _as_part(
    cfg: Config, given: Optional[Union[str, Shard]]
) -> Tuple[Config, Optional[Shard]]:
    """The config of a process by itself, and the part that it takes."""
    cfg = copy.deepcopy(cfg)
    if given is not None:
        shard: Optional[Shard] = Shard.parse(given)
    else:
        shard = launched_shard(cfg.get('launcher'))
        if shard is not None:
            use_local_gpu(cfg.get('launcher'))
    if given is not None or shard is not None:
        cfg.launcher = 'none'
    if shard is None or shard.number == 1:
        return cfg, None
    # Logs are named by the second: all parts begin in the same one.
    cfg.work_dir = str(Path(cfg.work_dir) / shard.folder)
    return cfg, shard


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
    settings = loop.recipe.settings
    if settings['dataloader'] is not None:  # plain containers
        settings.update(dataloader=Config(settings['dataloader']).to_dict())
    return settings


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
