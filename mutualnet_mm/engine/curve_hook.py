# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Metrics by subnet, and the current curve, for the visualizer's backends."""

import logging
from typing import Any, Dict, List, Mapping, Optional

from mmengine.dist import master_only
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.runner import BaseLoop, Runner

from ..config.views import find_views
from ..cost.subnet_costs import SubnetCosts
from ..errors import ConfigError
from ..query_table import QueryTable, TableEntry
from ..registry import HOOKS
from ..subnet import Subnet, split_metric
from .loops import RUNNING, SubnetTestLoop, SubnetValLoop
from .plain_metrics import plain_numbers
from .table_loop import TableLoop


@HOOKS.register_module()
class SubnetCurveHook(Hook):
    """Shows how the curve of all subnets grows while a network is trained.

    Whenever ``SubnetValLoop`` or ``SubnetTestLoop`` has evaluated the subnets,
    every backend of the visualizer (``LocalVisBackend``,
    ``TensorboardVisBackend``, ``WandbVisBackend``, ...) gets

    - each metric of each subnet as ``accuracy/top1/0.25x-128``, the full
      network's too: one group of curves in TensorBoard. The names in the log
      stay as they are;
    - the picture ``subnets``: accuracy over multiply-accumulates.

    In tests, names begin with ``test/`` (the picture is ``test_subnets``), so
    that they cannot be taken for those of the validation. Steps are those of
    the stock ``LoggerHook``: epochs, or iterations with
    ``log_metric_by_epoch=False``. The process of rank 0 alone writes.

    Args:
        metric (str, optional): What the picture shows, such as
            ``'coco/bbox_mAP'``. Defaults to the first one of the evaluator.

    Raises:
        ConfigError: Before the training or test, if its loop does not
            evaluate subnets.
    """

    priority = 'LOW'  # after the stock logger, whose order in files stays

    def __init__(self, metric: Optional[str] = None) -> None:
        self.metric = metric
        self._costs: Dict[str, SubnetCosts] = {}

    def before_train(self, runner: Runner) -> None:
        """Count the costs, before hours of work."""
        if runner.val_loop is not None:  # it is with `--no-validate`
            self._count(runner, runner.val_loop, 'val')

    def before_val(self, runner: Runner) -> None:
        """Count the costs, unless it has been done."""
        self._count(runner, runner.val_loop, 'val')

    def before_test(self, runner: Runner) -> None:
        """Count the costs, unless it has been done."""
        if not isinstance(runner.test_loop, TableLoop):
            self._count(runner, runner.test_loop, 'test')

    def after_val_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        """Send what the validation has found."""
        self._send(runner, runner.val_loop, metrics or {})

    def after_test_epoch(
        self, runner: Runner, metrics: Optional[Dict[str, float]] = None
    ) -> None:
        """Send what the test has found; a query table has its own curve."""
        if not isinstance(runner.test_loop, TableLoop):
            self._send(runner, runner.test_loop, metrics or {})

    def _count(self, runner: Runner, loop: Any, stage: str) -> None:
        """Count on all ranks: none must wait for one that has stopped."""
        if not isinstance(loop, (SubnetValLoop, SubnetTestLoop)):
            raise ConfigError(
                'SubnetCurveHook shows what all subnets reach, but '
                f'{stage}_cfg.type is {type(loop).__name__}: use '
                f"'mutualnet_mm.Subnet{stage.title()}Loop', or leave the hook "
                'out'
            )
        if stage not in self._costs:
            shape = find_views(runner.cfg, stage=stage).shape
            self._costs[stage] = SubnetCosts(loop.model, shape)
        for subnet in loop.subnets:
            self._costs[stage].of(subnet)

    @master_only
    def _send(
        self, runner: Runner, loop: Any, metrics: Mapping[str, Any]
    ) -> None:
        found = _by_subnet(metrics, loop.model.sampler.primary)
        prefix = 'test/' if loop.stage == 'test' else ''
        scalars = {
            f'{prefix}{name}/{subnet}': value
            for subnet, values in found.items()
            for name, value in values.items()
            if value is not None
        }
        step = _step(runner)
        if scalars:
            runner.visualizer.add_scalars(scalars, step=step)
        table = self._table(loop, found)
        if table is not None:
            # Not at the start: importing it takes a second.
            from ..visualization.curves import draw_tables, figure_pixels

            # A name without a slash: backends make a file of it.
            runner.visualizer.add_image(
                f'{prefix}subnets'.replace('/', '_'),
                figure_pixels(draw_tables({f'step {step}': table})),
                step=step,
            )

    def _table(
        self, loop: Any, found: Dict[str, Dict[str, Optional[float]]]
    ) -> Optional[QueryTable]:
        """All subnets as a query table; None if nothing ranks them."""
        entries: List[TableEntry] = []
        for subnet in loop.subnets:
            metrics = found.get(str(subnet), {})
            costs = self._costs[loop.stage].of(subnet)
            entries.append(TableEntry(subnet, metrics=metrics, **costs))
        names = [
            name
            for name in dict.fromkeys(n for e in entries for n in e.metrics)
            if any(e.metrics.get(name) is not None for e in entries)
        ]
        metric = self.metric or next(iter(names), None)
        if metric not in names:
            print_log(
                'SubnetCurveHook draws no curve: the evaluator gave '
                + (
                    f'no {metric}, but {", ".join(names)}'
                    if names
                    else 'no metric for any subnet'
                ),
                logger='current',
                level=logging.WARNING,
            )
            return None
        model = loop.model
        return QueryTable(
            entries,
            metric=metric,
            task=model.task.name,
            full=model.space.full,
            num_images=len(loop.dataloader.dataset),
        )


def _by_subnet(
    metrics: Mapping[str, Any], primary: Subnet
) -> Dict[str, Dict[str, Optional[float]]]:
    """Numbers by subnet and stock name; those by running statistics apart."""
    found: Dict[str, Dict[str, Optional[float]]] = {}
    for key, value in plain_numbers(dict(metrics)).items():
        subnet, name = split_metric(key)
        if subnet is None and name.startswith(f'{RUNNING}/'):
            subnet, name = RUNNING, name[len(RUNNING) + 1 :]
        found.setdefault(subnet or str(primary), {})[name] = value
    return found


def _step(runner: Runner) -> int:
    """Step of the stock logger's metrics; 0 where nothing is trained."""
    # The property of the runner would build the loop.
    loop = runner._train_loop
    if not isinstance(loop, BaseLoop):
        return 0
    loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
    by_epoch = all(hook.log_metric_by_epoch for hook in loggers)
    return runner.epoch if by_epoch else runner.iter
