# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network trained as usual, cut without re-training (Table 1)."""

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from mmengine.config import Config

from ..apis.measurement import Measurement
from ..config.stock_errors import named_stock_errors
from ..engine.calibration import SubnetStatistics
from ..engine.table_loop import TableLoop
from ..errors import UsageError
from ..files import atomic_write, csv_text, make_folder
from ..models import MutualLearningMixin
from ..models.build import build_model, listed_subnets
from ..models.checkpoints import check_checkpoint
from ..models.static import static_model
from ..models.training_record import TrainingRecord
from ..query_table import TableEntry
from ..query_table.intervals import metric_interval
from ..slimmable import Statistics, slim_batch_norms
from ..subnet import Subnet

CUT = 'cut, statistics of the full network'
CALIBRATED = 'cut, calibrated'
ALONE = 'each trained alone'
ADAPTIVE = 'one adaptive network'


@dataclass(frozen=True)
class Method:
    """How good the subnets of one method are, a row of Table 1.

    Attributes:
        entries (list[TableEntry]): In the order of the subnets.
        metric (str): What is shown, such as ``'accuracy/top1'``.
        num_images (int): Images or videos that were tested on.
    """

    entries: List[TableEntry]
    metric: str
    num_images: int

    def score(self, entry: TableEntry) -> Optional[float]:
        """Value of the metric; None of a subnet that has none.

        So it is of one that finds nothing, or whose metric is not a number.
        """
        return entry.metrics.get(self.metric)

    def interval(self, entry: TableEntry) -> Optional[Tuple[float, float]]:
        """95 % interval of the score, see :func:`~.metric_interval`."""
        return metric_interval(self.metric, self.score(entry), self.num_images)


@named_stock_errors()
def cut_table(
    cfg: Config,
    stock: str,
    adaptive: str,
    out: Union[str, Path],
    subnets: Optional[Sequence[Union[str, Subnet]]] = None,
    alone: Optional[Mapping[Union[str, Subnet], str]] = None,
    num_images: Optional[int] = None,
    metric: Optional[str] = None,
) -> Dict[str, Method]:
    """Test subnets cut out of a network beside trained ones (Table 1).

    Every method sees the same images, those of the config's test pipeline,
    resized to a subnet's resolution in the same way.

    Args:
        cfg (Config): Of the adaptive network, as
            :func:`~.config.load_config` returns it.
        stock (str): Checkpoint of the full network trained alone.
        adaptive (str): Checkpoint of mutual learning.
        out (str or Path): Folder. Finished results lie there: an interrupted
            run goes on.
        subnets (Sequence, optional): Defaults to those that the config tests.
        alone (Mapping, optional): By subnet, the checkpoint of a network that
            was trained at it alone (``mutual.single_subnet``, or I-Net). The
            full network's is ``stock`` itself. Defaults to none.
        num_images (int, optional): Test on so many random images. Defaults to
            all.
        metric (str, optional): What is shown. Defaults to the first one of
            the evaluator.

    Returns:
        dict[str, Method]: By its name, in the order of a table's rows. The
        one of ``ALONE`` is missing where no such checkpoint is given.

    Raises:
        UsageError: If something given is wrong, as :func:`~.build_table`
            says, if a checkpoint comes from another kind of training, or if
            the evaluator does not give the metric, or none. What is finished
            by then is kept.
    """
    out = make_folder(out)
    cfg = copy.deepcopy(cfg)
    cfg.model.mutual.pop('single_subnet', None)
    model = build_model(cfg)
    full = model.space.full
    chosen = (
        listed_subnets(cfg, model)
        if subnets is None
        else model.space.choose(subnets)
    )
    trained_alone = {model.space.check(s): c for s, c in (alone or {}).items()}
    _check(model, stock, lambda found: found == {full}, f'{full} alone')
    _check(model, adaptive, lambda found: len(found) > 1, 'several subnets')
    for subnet, checkpoint in trained_alone.items():
        expected = {subnet}
        _check(model, checkpoint, expected.__eq__, f'{subnet} alone')
    if trained_alone and full in chosen:
        trained_alone.setdefault(full, stock)
    surplus = [str(s) for s in trained_alone if s not in chosen]
    if surplus:
        raise UsageError(
            f'{surplus[0]} was trained alone, but the table is of '
            f'{", ".join(map(str, chosen))}: name it among the subnets, too'
        )

    def measure(
        folder: str,
        checkpoint: str,
        loop: type,
        subnets: Sequence[Subnet] = chosen,
        cfg: Config = cfg,
    ) -> List[TableEntry]:
        measurement = Measurement(
            cfg,
            checkpoint,
            out / 'progress' / folder,
            subnets,
            num_images=num_images,
            metric=metric,
            loop_class=loop,
        )
        found = {entry.subnet: entry for entry in measurement.entries()}
        measurement.loop.progress.finish()
        counts.append(measurement.num_images)
        return [found[subnet] for subnet in subnets]

    counts: List[int] = []  # all the same
    rows = {
        CUT: measure('cut', stock, UncalibratedLoop),
        CALIBRATED: measure('calibrated', stock, CutLoop),
    }
    for subnet in [s for s in chosen if s in trained_alone]:
        own = copy.deepcopy(cfg)
        own.model.mutual.single_subnet = str(subnet)
        rows.setdefault(ALONE, []).extend(
            measure(
                *(f'alone-{subnet}', trained_alone[subnet], CutLoop),
                *([subnet], own),
            )
        )
    rows[ADAPTIVE] = measure('adaptive', adaptive, TableLoop)
    metric = metric or _first_metric(rows)
    return {
        name: Method(entries, metric, counts[0])
        for name, entries in rows.items()
    }


def _first_metric(rows: Mapping[str, Sequence[TableEntry]]) -> str:
    for entries in rows.values():
        for entry in entries:
            for name in entry.metrics:
                return name
    raise UsageError(
        'the test_evaluator gave no metric for any subnet: nothing was '
        'detected, or the evaluator only writes files'
    )


class CutLoop(TableLoop):
    """Tests subnets that were never trained, with calibrated statistics."""

    def _check_trained(self) -> None:
        """Nothing is refused: they have no trained weights on purpose."""


class UncalibratedLoop(CutLoop):
    """Tests subnets with the full network's statistics."""

    def _calibrate(
        self, subnets: Sequence[Subnet], batches: Iterable[Any]
    ) -> SubnetStatistics:
        del batches
        return {
            str(subnet): leading_statistics(self.model, subnet)
            for subnet in subnets
            if subnet != self.model.sampler.primary
        }


def leading_statistics(
    model: MutualLearningMixin, subnet: Union[str, Subnet]
) -> Statistics:
    """The running statistics of the channels that a subnet keeps.

    Args:
        model (MutualLearningMixin): Whose running ones they are.
        subnet (str or Subnet): Such as ``'0.5x-160'``.

    Returns:
        dict: As calibration finds a subnet's own, by layer.
    """
    layers = dict(static_model(model, subnet).named_modules())
    return {
        name: (layers[name].running_mean, layers[name].running_var)
        for name, layer in slim_batch_norms(model)
        if layer.running_mean is not None
    }


def _check(
    model: MutualLearningMixin,
    checkpoint: str,
    fits: Callable[[Set[Subnet]], bool],
    expected: str,
) -> None:
    """Refuse a checkpoint of another kind of training, as far as it says."""
    check_checkpoint(checkpoint, model)
    record = TrainingRecord(checkpoint)
    found = record.trained_subnets()
    if found is not None and not fits(found):
        raise UsageError(
            f'checkpoint {checkpoint!r} should be trained at {expected}, and '
            f'was trained at {record.described()}: give another one'
        )


def cut_rows(tables: Mapping[str, Method]) -> List[Dict[str, Any]]:
    """Return one plain record for each method and subnet.

    Args:
        tables (Mapping): As :func:`cut_table` returns them.

    Returns:
        list[dict]: ``value`` is the metric's; ``low`` and ``high`` are the
        bounds of its 95 % interval, None where the metric has none.
    """
    rows = []
    for method, table in tables.items():
        for entry in table.entries:
            low, high = table.interval(entry) or (None, None)
            rows.append(
                dict(
                    method=method,
                    subnet=str(entry.subnet),
                    macs=entry.macs,
                    params=entry.params,
                    metric=table.metric,
                    value=table.score(entry),
                    low=low,
                    high=high,
                    num_images=table.num_images,
                )
            )
    return rows


def save_cut(tables: Mapping[str, Method], out: Union[str, Path]) -> None:
    """Write ``cut.json`` and ``cut.csv`` into a folder.

    Args:
        tables (Mapping): As :func:`cut_table` returns them.
        out (str or Path): The folder.
    """
    rows = cut_rows(tables)
    with atomic_write(Path(out) / 'cut.csv') as file:
        file.write(csv_text(rows))
    content = json.dumps(dict(rows=rows), indent=2, allow_nan=False)
    with atomic_write(Path(out) / 'cut.json') as file:
        file.write(f'{content}\n'.encode())
