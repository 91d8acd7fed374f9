# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network trained as usual, cut without re-training (Table 1)."""

import copy
import json
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
from ..query_table import QueryTable, TableEntry
from ..slimmable import Statistics, slim_batch_norms
from ..subnet import Subnet

CUT = 'cut, statistics of the full network'
CALIBRATED = 'cut, calibrated'
ALONE = 'each trained alone'
ADAPTIVE = 'one adaptive network'


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
) -> Dict[str, QueryTable]:
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
        dict[str, QueryTable]: By method, in the order of a table's rows. The
        one of ``ALONE`` is missing where no such checkpoint is given.

    Raises:
        UsageError: If something given is wrong, as :func:`~.build_table`
            says, or if a checkpoint comes from another kind of training.
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
    ) -> QueryTable:
        measurement = Measurement(
            cfg,
            checkpoint,
            out / 'progress' / folder,
            subnets,
            num_images=num_images,
            metric=metric,
            loop_class=loop,
        )
        table = measurement.run()
        measurement.loop.progress.finish()
        return _only(table, table.entries, subnets)

    tables = {
        CUT: measure('cut', stock, UncalibratedLoop),
        CALIBRATED: measure('calibrated', stock, CutLoop),
    }
    found: List[QueryTable] = []
    for subnet in [s for s in chosen if s in trained_alone]:
        own = copy.deepcopy(cfg)
        own.model.mutual.single_subnet = str(subnet)
        checkpoint = trained_alone[subnet]
        found.append(
            measure(f'alone-{subnet}', checkpoint, CutLoop, [subnet], own)
        )
    if found:
        tables[ALONE] = _joined(found)
    tables[ADAPTIVE] = measure('adaptive', adaptive, TableLoop)
    return tables


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
    found = TrainingRecord(checkpoint).trained_subnets()
    if found is not None and not fits(found):
        listed = ', '.join(sorted(map(str, found), reverse=True))
        raise UsageError(
            f'checkpoint {checkpoint!r} should be trained at {expected}, and '
            f'a step of its training was of {listed}: give another one'
        )


def _joined(tables: Sequence[QueryTable]) -> QueryTable:
    entries = [entry for table in tables for entry in table.entries]
    return _only(tables[0], entries, [entry.subnet for entry in entries])


def _only(
    like: QueryTable,
    entries: Sequence[TableEntry],
    subnets: Sequence[Subnet],
) -> QueryTable:
    """A table of some subnets, in the order given."""
    by_subnet = {entry.subnet: entry for entry in entries}
    return QueryTable(
        [by_subnet[subnet] for subnet in subnets],
        like.metric,
        like.task,
        like.full,
        like.num_images,
        like.views,
    )


def cut_rows(tables: Mapping[str, QueryTable]) -> List[Dict[str, Any]]:
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


def save_cut(tables: Mapping[str, QueryTable], out: Union[str, Path]) -> None:
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
