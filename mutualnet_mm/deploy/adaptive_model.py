# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A trained network that runs at any budget of its query table."""

import logging
import time
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import (
    Any,
    Iterable,
    Iterator,
    List,
    Optional,
    Tuple,
    Union,
    overload,
)

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor

from ..config.stock_errors import named_stock_errors
from ..engine import SubnetStatistics, move_statistics
from ..engine.hooks import BNCalibrationHook
from ..errors import (
    UnreadableError,
    UsageError,
    as_usage_error,
    check_count,
)
from ..files import only_writer
from ..query_table import Cascade, QueryTable, best_cascade
from ..subnet import Subnet
from .adaptive_file import AdaptiveFile
from .controller import LatencyController, pareto_levels
from .given_data import check_batch, check_loader
from .inputs.pipeline import InputPipeline
from .stored_model import channels_of, stored_config, stored_model
from .switchable import Samples, Subnets, SwitchableNetwork


class AdaptiveModel(SwitchableNetwork):
    """One network, many budgets: what ``adaptive.pth`` is for.

    It starts as the full network. :meth:`set_budget` and :meth:`use` switch
    it, to a subnet or a cascade of two; calling it predicts.

    Args:
        file (AdaptiveFile): The loaded file. Building runs what its config
            names: only open files that you trust.
        device (str or torch.device): Where to run. Defaults to ``'cpu'``.

    Attributes:
        file (AdaptiveFile): As given.
        cfg (Config): The config that the network was trained with.
        inputs (InputPipeline): Turns files and arrays into batches.

    Raises:
        UsageError: If the parts of the file do not fit together, or if
            there is no such device.
    """

    def __init__(
        self, file: AdaptiveFile, device: Union[str, torch.device] = 'cpu'
    ) -> None:
        self.file = file
        self.cfg = stored_config(file)
        super().__init__(*stored_model(file, self.cfg, device))
        self.inputs = InputPipeline(self.cfg, self._origin)

    @classmethod
    def from_file(
        cls, path: Union[str, Path], device: Union[str, torch.device] = 'cpu'
    ) -> 'AdaptiveModel':
        """Load ``adaptive.pth``, written by ``mutualnet table``.

        Args:
            path (str or Path): File that you trust.
            device (str or torch.device): Where to run. Defaults to ``'cpu'``.

        Raises:
            UsageError: If the file is missing, damaged or of another kind.
        """
        return cls(AdaptiveFile.load(path), device)

    def __reduce__(self) -> Tuple:
        """Make copies and pickles independent networks, sliced at first."""
        bank = move_statistics(dict(self._bank), 'cpu')
        given = self.file, str(self.device), bank, self.current
        return _restore, (type(self), *given)

    def _start(self) -> None:
        super()._start()
        self._controller: Optional[LatencyController] = None

    @property
    def table(self) -> QueryTable:
        """The query table."""
        return self.file.table

    def set_budget(
        self,
        macs: Optional[float] = None,
        latency_ms: Optional[float] = None,
        params: Optional[float] = None,
        device: Optional[str] = None,
        mean_macs: Optional[float] = None,
        prefer: str = 'best',
        p90_ms: Optional[float] = None,
        energy_mj: Optional[float] = None,
        images_per_second: Optional[float] = None,
    ) -> Union[Subnet, Cascade]:
        """Switch to the best subnet of the table within a budget.

        Of a mean cost, that is a cascade of two subnets where the table has
        a better one than any subnet: see
        :func:`~mutualnet_mm.query_table.cascades.find_cascades`.

        Args:
            macs (float, optional): Maximum multiply-accumulates of an image
                or of one view of a video.
            latency_ms (float, optional): Maximum milliseconds, by
                ``mutualnet latency``.
            params (float, optional): Maximum number of parameters.
            device (str, optional): Whose figures count, if several devices
                were measured.
            mean_macs (float, optional): Maximum multiply-accumulates on
                average, over images like those of the table. ``macs`` alone
                goes with it, and limits what any image may cost.
            prefer (str): ``'best'``, or ``'cheapest'``: the subnet of the
                least limited cost that the best one within the budget is not
                significantly better than, on the images of the table.
                Defaults to ``'best'``.
            p90_ms (float, optional): Maximum milliseconds that nine of ten
                calls keep.
            energy_mj (float, optional): Maximum millijoules of an image, by
                ``mutualnet latency --energy``.
            images_per_second (float, optional): Minimum throughput, by
                ``mutualnet latency --throughput``: at the best batch size.

        Returns:
            Subnet or Cascade: What is active now.

        Raises:
            UsageError: If no budget is given, if one is below the least of
                the table, or if the table has no cascades.
        """
        budgets = dict(macs=macs, latency_ms=latency_ms, params=params)
        budgets.update(p90_ms=p90_ms, energy_mj=energy_mj)
        budgets['images_per_second'] = images_per_second
        given = [name for name, value in budgets.items() if value is not None]
        if mean_macs is not None:
            others = [name for name in given if name != 'macs']
            others += ['device'] * (device is not None)
            others += ['prefer'] * (prefer != 'best')
            if others:
                names = ' and '.join(others)
                raise UsageError(
                    'mean_macs goes with macs, the worst case, alone: what '
                    f'else cascades take is not known, leave {names} out'
                )
            found = best_cascade(self.table, mean_macs, macs)
            return self.use(
                found if isinstance(found, Cascade) else found.subnet
            )
        if not given:
            names = ', '.join(budgets)
            raise UsageError(f'give a budget: {names} or mean_macs')
        entry = self.table.best(**budgets, device=device, prefer=prefer)
        return self.use(entry.subnet)

    @overload
    def use(self, subnet: Union[str, Subnet]) -> Subnet: ...

    @overload
    def use(self, subnet: Cascade) -> Cascade: ...

    def use(
        self, subnet: Union[str, Subnet, Cascade]
    ) -> Union[Subnet, Cascade]:
        """Switch to a subnet, of the table or calibrated, or to a cascade.

        Args:
            subnet (str, Subnet or Cascade): Such as ``'0.7x-160'``, or one of
                ``net.table.cascades``.

        Returns:
            Subnet or Cascade: What is active now.

        Raises:
            UsageError: If it is outside of the trained range, if it has no
                batch-norm statistics, or if a latency controller chooses.
        """
        if self._controller is not None:
            raise UsageError(
                f'{subnet} cannot be chosen while latency_controller '
                'chooses: leave its with block first, or use a handle()'
            )
        return super().use(subnet)

    def calibrate(
        self, dataloader: Union[dict, Iterable[Any]], subnets: Subnets
    ) -> None:
        """Collect the statistics of subnets, on these data.

        From then on, :meth:`use` takes subnets that are not in the table, too,
        and :meth:`save` stores their statistics.

        Args:
            dataloader (dict or Iterable): Batches as the config's data loader
                gives them, at the full resolution; or settings of a data
                loader, such as ``net.cfg.train_dataloader``. Labels are not
                used; as many batches are taken as for the table, and images
                of settings are read by the same pipeline.
            subnets (str, Subnet or Sequence): Such as ``'0.72x-160'``.

        Raises:
            UsageError: If a subnet is not trained, or no batch can be made.
        """
        before = self.file.changed_scores(self._bank)
        self._collect(dataloader, subnets)
        changed = self.file.changed_scores(self._bank)
        new = [name for name in changed if name not in before]
        if new:
            print_log(
                f'{new[0]} is of the table, whose scores are those of '
                'its earlier statistics: budgets do not know the new ones',
                logger='current',
                level=logging.WARNING,
            )

    @named_stock_errors()
    def _collect(
        self, dataloader: Union[dict, Iterable[Any]], subnets: Subnets
    ) -> None:
        check_loader(dataloader)
        with as_usage_error('the adaptive file is damaged: its calibration'):
            recipe = BNCalibrationHook(**self.file.calibration)
        if not isinstance(dataloader, dict):
            given = islice(dataloader, recipe.num_batches)
            self._calibrate(map(check_batch, given), subnets, recipe.is_tested)
            return
        # Another network may have changed the default scope since.
        scope = self.cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(scope):
            batches = recipe.batches_of(self.cfg, loader=dataloader)
            self._calibrate(batches, subnets, recipe.is_tested)

    def save(self, path: Union[str, Path]) -> None:
        """Write a file with the statistics that :meth:`calibrate` added.

        A file of the same weights and config may have got other subnets,
        with their statistics, or latencies, since this one was loaded: they
        are kept.

        Args:
            path (str or Path): File to write. A file that is there is
                replaced.

        Raises:
            UsageError: If it cannot be written, if a table there has other
                scores, or if subnets that have a score were calibrated.
        """
        bank = move_statistics(dict(self._bank), 'cpu')
        changed = self.file.changed_scores(bank)
        if changed:
            raise UsageError(
                f'{changed[0]} of the table was calibrated anew, and its '
                'score is of its earlier statistics: build a table with these '
                'data as train_dataloader, or calibrate other subnets'
            )
        channels = self.file.channels  # older files lack them
        if channels is None:
            channels = channels_of(self._origin, self.file.config)
        file = replace(self.file, channels=channels)
        with only_writer(path):
            file.updated(bank, path).save(path)

    def prepare(
        self, images: Any, first: int = 1, number: Optional[int] = None
    ) -> Tuple[Tensor, Samples]:
        """Read and preprocess a batch, at the full resolution.

        Args:
            images: Whatever :class:`~.inputs.InputPipeline` takes.
            first (int): What errors count the first array as. Defaults to 1.
            number (int, optional): How many arrays errors speak of. Defaults
                to all that are given.

        Returns:
            tuple: Inputs and data samples, for :meth:`predict`.
        """
        return self.inputs(images, first, number)

    def __call__(
        self, images: Any, batch_size: int = 1, skip_unreadable: bool = False
    ) -> List[Any]:
        """Predict images or videos with the active subnet or cascade.

        Args:
            images: Arrays, files or tensors, one or a list, as
                :class:`~.inputs.InputPipeline` takes them.
            batch_size (int): Size of the batches that a list, or a stack of
                arrays, is split into. A tensor is one batch. Defaults to 1,
                as in the stock inferencers.
            skip_unreadable (bool): Whether files that cannot be read are
                named in the log and left out, in place of an error that ends
                the call. Defaults to False.

        Returns:
            list: A stock data sample with predictions for each image; None
            for each file that was left out.

        Raises:
            UnreadableError: If a file cannot be read, unless those are left
                out. What other files gave is lost.
            UsageError: If ``batch_size`` is not a whole number from 1, or as
                :class:`~.inputs.InputPipeline` does.
        """
        check_count(batch_size, 'batch_size')
        listed = self.inputs.listed(images)
        if isinstance(images, Tensor) or not listed:
            batches = [images]
        else:
            starts = range(0, len(listed), batch_size)
            batches = [listed[i : i + batch_size] for i in starts]
        results: List[Any] = []
        for batch in batches:
            start = time.perf_counter()
            place = len(results) + 1, len(listed)
            found = self._answer(batch, place, skip_unreadable)
            results += found
            controller = self._controller  # another thread may reset it
            # A list's rest, and broken files, take less time at any load.
            is_whole = len(batch) == len(batches[0]) and None not in found
            if controller is not None and is_whole:
                self.synchronize()
                measured = 1000 * (time.perf_counter() - start)
                self._follow(controller.observe(measured))
        return results

    def _answer(
        self, batch: Any, place: Tuple[int, int], skip_unreadable: bool
    ) -> List[Any]:
        """Predict a batch; None stands for files that are left out."""
        try:
            return self.predict(*self.prepare(batch, *place))
        except UnreadableError:
            files = self.inputs.listed(batch)
            if not skip_unreadable or isinstance(files[0], np.ndarray):
                raise
        # Only now that one of them is broken is each tried alone.
        kept = [
            i for i, file in enumerate(files) if self.inputs.can_read(file)
        ]
        results: List[Any] = [None] * len(files)
        if kept:
            found = self.predict(*self.prepare([files[i] for i in kept]))
            for i, sample in zip(kept, found):
                results[i] = sample
        return results

    @contextmanager
    def latency_controller(
        self, target_ms: float, device: Optional[str] = None
    ) -> Iterator[LatencyController]:
        """Keep a deadline: step down and up as calls take longer or shorter.

        Inside the ``with`` block, every call of the model is timed, reading
        and preprocessing included, and the subnet for the next one is chosen
        from the Pareto set, see :class:`~.controller.LatencyController`.
        Afterwards the previous subnet, or cascade, is active again; until
        then, :meth:`use` and :meth:`set_budget` are refused. Make static
        subnets beforehand, since making one delays a call.

        Args:
            target_ms (float): Maximum milliseconds of a call (with a list: of
                each batch, but those cut short by the end or broken files).
            device (str, optional): Name of the measured device whose
                latencies say how subnets compare. Defaults to the only one
                there is, or to MACs if there is none.

        Yields:
            LatencyController: For inspection.
        """
        before, outer = self.current, self._controller
        start = before if isinstance(before, Subnet) else None
        controller = LatencyController(
            *pareto_levels(self.table, device), target_ms, start
        )
        try:
            self._follow(controller.current)
            self._controller = controller
            yield controller
        finally:
            self._controller = outer
            self._follow(before)

    def _follow(self, subnet: Union[Subnet, Cascade]) -> None:
        if subnet != self.current:
            super().use(subnet)


def _restore(
    kind: type,
    file: AdaptiveFile,
    device: str,
    bank: SubnetStatistics,
    subnet: Union[Subnet, Cascade],
) -> AdaptiveModel:
    net = kind(file, device)
    # Not into the file: its scores are of the statistics that it has.
    net._bank.update(move_statistics(bank, device))
    net.use(subnet)
    return net
