# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Subnets of a checkpoint, tested one by one, as a query table."""

import copy
import logging
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Union

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..config.launchers import count_processes
from ..config.runner import make_runner
from ..config.views import find_views
from ..cost.macs import warn_of_equal_sizes
from ..cost.subnet_costs import SubnetCosts
from ..engine.loops import RUNNING
from ..engine.ranking import say_so
from ..engine.table_loop import TableLoop
from ..errors import UsageError
from ..files import make_folder, only_user
from ..models.checkpoints import check_checkpoint
from ..progress_bars import track
from ..query_table import Cascade, QueryTable, TableEntry
from ..query_table.answers import (
    cascades_of,
    top1_metric,
    with_resampled_top1,
)
from ..shards import Shard
from ..subnet import Subnet


class Measurement:
    """Costs and metrics of subnets, by the config's own test.

    Everything that can be wrong with what is given is found when it is made;
    :meth:`run` takes the time.

    Args:
        cfg (Config): As :func:`~.config.load_config` returns it. Its
            ``test_dataloader`` and ``test_evaluator`` count, and
            ``test_cfg.group_size`` and ``test_cfg.fp16``.
        checkpoint (str): File or address of the trained weights.
        folder (Path): Where finished results lie; those of an interrupted
            run are taken up.
        subnets (Sequence, optional): Such as ``['1.0x-224']``. Defaults to
            a grid.
        step (float): Step of the grid's widths. Defaults to 0.05.
        num_images (int, optional): Test on so many random images or videos.
            Defaults to all.
        metric (str, optional): What ranks the subnets. Defaults to the first
            one that the evaluator gives.
        loop_class (type): Loop that tests. Defaults to
            :class:`~.table_loop.TableLoop`.
        shard (Shard, optional): Test one part of the subnets; others test
            the rest into the same folder. Defaults to None: all.

    Attributes:
        loop (TableLoop): With the model.

    Raises:
        UsageError: If something given is wrong, in several processes, or if
            ``folder`` holds the results of something else.
    """

    def __init__(
        self,
        cfg: Config,
        checkpoint: str,
        folder: Path,
        subnets: Optional[Sequence[Union[str, Subnet]]] = None,
        step: float = 0.05,
        num_images: Optional[int] = None,
        metric: Optional[str] = None,
        loop_class: type = TableLoop,
        shard: Optional[Shard] = None,
    ) -> None:
        self._runner = _make_runner(cfg, checkpoint)
        test_cfg = cfg.test_cfg
        kept = {
            k: test_cfg[k] for k in ('group_size', 'fp16') if k in test_cfg
        }
        self.loop: TableLoop = loop_class(
            self._runner,
            cfg.test_dataloader,
            cfg.test_evaluator,
            folder=folder,
            step=step,
            subnets=None if subnets is None else list(map(str, subnets)),
            num_images=num_images,
            metric=metric,
            **kept,
        )
        model = self.loop.model
        check_checkpoint(checkpoint, model)
        self._views = find_views(cfg)
        warn_of_equal_sizes(model, self.loop.subnets, self._views.shape)
        self._costs = SubnetCosts(model, self._views.shape)
        costs = [
            self._costs.of(subnet)['macs']
            for subnet in track(self.loop.subnets, 'counting costs')
        ]
        if shard is not None:
            self.loop.take_part(shard, costs)

    def run(self) -> QueryTable:
        """Test all subnets.

        Returns:
            QueryTable: With those that an earlier run of the same weights
            left in the folder.

        Raises:
            UsageError: If no subnet has the metric.
        """
        self.test()
        return self.table()

    def table(self) -> QueryTable:
        """The table of what :meth:`test` has finished, as :meth:`run`."""
        entries, metric = self._entries(), self.loop.ranking()
        if self.loop.better(metric) is None:
            _warn(
                f'the table is ranked by {metric}, and takes more of it for '
                f'better. If more is, {say_so(metric)} silences this; if less '
                'is, rank by another metric'
            )
        return QueryTable(
            entries,
            metric=metric,
            task=self.loop.model.task.name,
            full=self.loop.model.space.full,
            num_images=self.num_images,
            views=self._views.number,
            cascades=self._cascades(entries),
        )

    def _cascades(
        self, entries: Sequence[TableEntry]
    ) -> Optional[List[Cascade]]:
        """Those of a classifier; None, with a warning, if it has none."""
        if top1_metric([n for e in entries for n in e.metrics]) is None:
            return None
        why, answers = self.loop.why_no_answers, self.loop.progress.answers
        without = [e for e in entries if str(e.subnet) not in answers]
        if why is None and without:
            _warn(
                f'{len(without)} subnets, such as {without[0].subnet}, are in '
                'no cascade: their answers were not kept. Remove '
                f'{str(self.loop.progress.folder)!r} to test them again'
            )
        try:
            if why is not None:
                raise UsageError(why)
            return cascades_of(entries, answers)
        except UsageError as error:
            _warn(f'the table has no cascades: {error}')
            return None

    @property
    def num_images(self) -> int:
        """int: Images or videos that are tested on."""
        return len(self.loop.dataloader.dataset)

    def entries(self) -> List[TableEntry]:
        """Test all subnets, whether they get a metric or none.

        Returns:
            list[TableEntry]: As in the table of :meth:`run`.
        """
        self.test()
        return self._entries()

    def test(self) -> bool:
        """Test all subnets, or those of this part.

        Returns:
            bool: Whether all are finished. It is False if other parts still
            have to test some, ``loop.left``.
        """
        # In place of the loop in the config, which is dumped to the work dir.
        self._runner._test_loop = self.loop
        with only_user(make_folder(self.loop.own_folder)):
            self._runner.test()
        return not self.loop.left

    def _entries(self) -> List[TableEntry]:
        results = dict(self.loop.progress.results)
        running = results.pop(RUNNING, {})
        primary = str(self.loop.model.sampler.primary)
        if primary in results:
            both = {f'{RUNNING}/{k}': value for k, value in running.items()}
            results[primary] = {**results[primary], **both}
        resampled = self.loop.progress.resampled
        entries = [
            TableEntry(
                subnet,
                metrics=results[str(subnet)],
                resampled=resampled.get(str(subnet), {}),
                **self._costs.of(subnet),
            )
            for subnet in _from_large_to_small(map(Subnet.parse, results))
        ]
        return with_resampled_top1(entries, self.loop.progress.answers)


def _warn(message: str) -> None:
    print_log(message, logger='current', level=logging.WARNING)


def _from_large_to_small(subnets: Iterable[Subnet]) -> List[Subnet]:
    return sorted(
        subnets,
        key=lambda s: (s.width, s.resolution, s.frames or 0),
        reverse=True,
    )


def _make_runner(cfg: Config, checkpoint: str) -> Runner:
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise UsageError(f'the config has no {key}, which a table needs')
    number = count_processes(cfg.get('launcher'))
    if number > 1:
        raise UsageError(
            f'{number} processes were launched, but this is done by one: '
            'start a single one'
        )
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume = checkpoint, False
    return make_runner(cfg)
