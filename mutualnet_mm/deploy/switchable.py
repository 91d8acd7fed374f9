# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network that switches between its subnets while it runs."""

import threading
from typing import (
    Any,
    Callable,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
    cast,
    overload,
)
from weakref import WeakSet

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..engine import SubnetStatistics, calibrate
from ..errors import UsageError
from ..models import MutualLearningMixin, static_model
from ..query_table import Cascade
from ..slimmable import Statistics, slim_batch_norms
from ..subnet import Subnet
from .sliced import SlicedNetwork
from .static_cache import StaticCache, compile_parts

Subnets = Union[str, Subnet, Cascade, Sequence[Union[str, Subnet]]]
Samples = List[BaseDataElement]


class Stage(NamedTuple):
    """A subnet that is ready to run.

    Args:
        subnet (Subnet): Which one.
        statistics (dict, optional): Of its batch norms; None means the
            running ones.
        network (nn.Module, optional): Its static form; None while sliced.
    """

    subnet: Subnet
    statistics: Optional[Statistics]
    network: Optional[nn.Module]


def subnets_of(choice: Union[Subnet, Cascade]) -> Tuple[Subnet, ...]:
    """The subnets that run: one, or those of a cascade in their order."""
    return choice.stages if isinstance(choice, Cascade) else (choice,)


class SwitchableNetwork:
    """Runs the subnets of one network, sliced or static.

    *Sliced*, the initial mode, takes no extra memory: layers read the leading
    part of the shared weights. *Static* subnets have contiguous weights
    of their own and run faster. Instead of one subnet, a cascade of two may
    be active: then each image of a batch that the first one is not sure of
    goes on to the second. A lock serialises calls; to run several subnets at
    the same time, give each thread a :meth:`handle`.

    Args:
        origin (MutualLearningMixin): The network, in evaluation mode.
        bank (dict): Statistics of its subnets, ``{str(subnet): statistics}``.
            The full network has the running ones where there are no others.
    """

    def __init__(
        self, origin: MutualLearningMixin, bank: SubnetStatistics
    ) -> None:
        # Never run, only copied: no thread changes it under another one.
        self._origin = origin
        self._bank = bank
        self._static: Optional[StaticCache] = None
        # Of all handles: who has to follow a calibration.
        self._handles: WeakSet = WeakSet()
        self._caches: WeakSet = WeakSet()
        self._listing = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._sliced = SlicedNetwork(self._origin)
        primary = self._sliced.subnet
        self._stages = [Stage(primary, self.statistics(primary), None)]
        self._sliced.switch(primary, self.statistics(primary))
        self._current: Union[Subnet, Cascade] = primary
        self._lock = threading.RLock()
        with self._listing:
            self._handles.add(self)

    def handle(self) -> Any:
        """Return another network over the same weights, for another thread.

        It starts at the current choice and switches on its own. It shares the
        weights and the statistics, and all static subnets, later ones too,
        until one of the two calls :meth:`make_static` or :meth:`slice`.
        """
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._start()
        other.use(self.current)
        return other

    @property
    def model(self) -> MutualLearningMixin:
        """The sliced network of this handle.

        Of a cascade, it is at the first subnet between calls.
        """
        return self._sliced.model

    @property
    def current(self) -> Union[Subnet, Cascade]:
        """The active subnet or cascade, as :meth:`use` takes it."""
        return self._current

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self._origin.parameters()).device

    @property
    def static_subnets(self) -> List[Subnet]:
        """Subnets that have weights of their own; none while sliced."""
        return [] if self._static is None else self._static.subnets

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
            UsageError: If it is outside of the trained range, or has no
                batch-norm statistics; if more static subnets run in a cascade
                than are kept.
        """
        if isinstance(subnet, Cascade):
            choice: Union[Subnet, Cascade] = subnet
            for stage in subnet.stages:
                self._check(stage)
        else:
            choice = self._check(subnet)
        self._switch(lambda: choice)
        return choice

    def _switch(self, choose: Callable[[], Union[Subnet, Cascade]]) -> None:
        """Switch; calls go on while a network has to be made."""
        while True:
            choice, static = choose(), self._static
            subnets = subnets_of(choice)
            if static is not None and len(subnets) > static.limit:
                raise UsageError(
                    f'a cascade runs {len(subnets)} subnets, but make_static('
                    f'limit={static.limit}) keeps fewer: raise it'
                )
            stages = [
                Stage(
                    subnet,
                    self.statistics(subnet),
                    None if static is None else static.get(subnet),
                )
                for subnet in subnets
            ]
            with self._lock:
                # Another thread may have changed what was chosen, or have
                # calibrated it: every calibration makes new statistics.
                if (
                    static is self._static
                    and choice == choose()
                    and self._are_valid(stages)
                ):
                    first = stages[0]
                    self._sliced.switch(first.subnet, first.statistics)
                    self._stages = stages
                    self._current = choice
                    return

    def _are_valid(self, stages: Sequence[Stage]) -> bool:
        """Whether no other thread has calibrated one of the subnets."""
        return all(s.statistics is self.statistics(s.subnet) for s in stages)

    def _check(self, subnet: Union[str, Subnet]) -> Subnet:
        """Refuse what lies below the trained range and is not in the table.

        Where only one resolution was trained, a table may have lower ones.
        """
        space = self._origin.space
        subnet = space.check(subnet)
        if space.is_below(subnet) and str(subnet) not in self._bank:
            raise UsageError(
                f'subnet {subnet} is below the smallest trained one, '
                f'{space.smallest}'
            )
        return subnet

    def statistics(self, subnet: Subnet) -> Optional[Statistics]:
        """Batch-norm statistics of a subnet; None means the running ones.

        Raises:
            UsageError: If there are none.
        """
        found = self._bank.get(str(subnet))
        if found is None and subnet == self._origin.sampler.primary:
            return None
        if found is None and any(slim_batch_norms(self._origin)):
            raise UsageError(
                f'subnet {subnet} has no batch-norm statistics, which the '
                'subnets of the table have: use one of these, call '
                f"calibrate(dataloader, '{subnet}') first, or build the "
                f'table with --subnet {subnet}'
            )
        return found

    def _calibrate(
        self, batches: Iterable[Any], subnets: Subnets, tested: bool
    ) -> None:
        chosen = self._choose(subnets)
        with self._lock:
            found = calibrate(self.model, chosen, batches, tested)
        with self._listing:
            # A handle or cache that is listed later begins with these.
            self._bank.update(found)
            handles = list(self._handles)
            for cache in self._caches:
                cache.drop(chosen)
        for handle in handles:
            handle._refresh()

    def _refresh(self) -> None:
        """Switch to the current subnet again."""
        self._switch(lambda: self._current)

    def _choose(self, subnets: Subnets) -> List[Subnet]:
        if isinstance(subnets, Cascade):
            subnets = subnets.stages
        elif isinstance(subnets, (str, Subnet)):
            subnets = [subnets]
        if not subnets:
            raise UsageError("name at least one subnet, such as '0.7x-160'")
        return list(dict.fromkeys(map(self._check, subnets)))

    def make_static(
        self,
        subnets: Optional[Subnets] = None,
        fuse_bn: bool = True,
        limit: int = 8,
        compile: bool = False,
    ) -> None:
        """Run subnets on contiguous weights of their own from now on.

        Args:
            subnets (str, Subnet or Sequence, optional): Subnets to make now;
                any other one is made at its first use. Defaults to the
                current one, or those of the current cascade.
            fuse_bn (bool): Fold batch norms into convolutions. Outputs then
                differ by rounding. Defaults to True.
            limit (int): Networks to keep; beyond it, the least recently used
                one is dropped. Defaults to 8.
            compile (bool): ``torch.compile`` backbone and neck, at the first
                call of each. Defaults to False.

        Raises:
            UsageError: If more subnets are given than are kept, or if one
                cannot be used.
        """

        def make(subnet: Subnet) -> nn.Module:
            net = static_model(
                self._origin, subnet, self.statistics(subnet), fuse_bn
            )
            if compile:
                compile_parts(net, limit)
            return net

        current = self._current
        active = subnets_of(current)
        chosen = self._choose(active if subnets is None else subnets)
        cache = StaticCache(make, limit)
        number = max(len(chosen), len(active))
        if number > limit:
            raise UsageError(
                f'{number} subnets are to be static, but '
                f'limit={limit} are kept: raise it or name fewer'
            )
        for subnet in chosen:
            self.statistics(subnet)  # refuse all of them or none
        with self._listing:
            self._caches.add(cache)
        statistics = [self.statistics(subnet) for subnet in active]
        # Active ones come last if they are named. Otherwise they come first,
        # so that the named ones are kept rather than them.
        order = [s for s in active if s not in chosen]
        order += [s for s in chosen if s not in active]
        order += [s for s in active if s in chosen]
        made = {subnet: cache.get(subnet) for subnet in order}
        stages = [Stage(s, own, made[s]) for s, own in zip(active, statistics)]
        with self._lock:
            self._static = cache
            if self._current == current and self._are_valid(stages):
                self._stages = stages
                return
        self._refresh()  # another thread has switched or calibrated

    def slice(self) -> None:
        """Run sliced again and free the static networks."""
        with self._lock:
            self._static = None
        self._refresh()

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Samples) -> Samples:
        """Predict a prepared batch with the active subnet or cascade.

        Args:
            inputs (Tensor): Preprocessed, at the full resolution.
            samples (list): One for each input; they are not changed.

        Returns:
            list: Stock data samples with predictions, in the order of the
            inputs. Their metadata say which ``subnet`` each one is of.

        Raises:
            UsageError: If there are no inputs, or not a sample for each; if a
                cascade is active, and the network predicts no probabilities
                of classes that exclude each other.
        """
        number = 0 if samples is None else len(samples)
        if not number or number != len(inputs):
            raise UsageError(
                f'predict() was given {len(inputs)} inputs and {number} data '
                'samples: give one sample for each input, as prepare() does'
            )
        with self._lock:
            first, *later = self._stages
            found = self._run(first, inputs, samples)
            for second in later:
                rest = self._unsure(found)
                if not rest:
                    break
                try:
                    self._sliced.switch(second.subnet, second.statistics)
                    unsure = [samples[i] for i in rest]
                    better = self._run(second, inputs[rest], unsure)
                finally:
                    self._sliced.switch(first.subnet, first.statistics)
                for i, sample in zip(rest, better):
                    found[i] = sample
            return found

    def _run(self, stage: Stage, inputs: Tensor, samples: Samples) -> Samples:
        """Predict with one subnet, which the sliced network is at."""
        network = self._sliced if stage.network is None else stage.network
        # Both kinds of network resize, which makes new samples.
        found = list(network(inputs, samples, mode='predict'))
        for sample in found:
            name = str(stage.subnet)
            sample.set_field(name, 'subnet', field_type='metainfo')
        return found

    def _unsure(self, samples: Samples) -> List[int]:
        """Which predictions of the first subnet do not count."""
        model = self._origin
        scores = model.task.probabilities(model, samples)
        if scores is None:
            raise UsageError(
                f'no cascade can run: this network ({model.task.name}) '
                'predicts no probabilities of classes that exclude each other'
            )
        # As thresholds are; and what is not a number is not sure.
        confidence = scores.max(dim=1).values.cpu().double()
        sure = confidence >= cast(Cascade, self._current).threshold
        return (~sure).nonzero().flatten().tolist()

    def synchronize(self) -> None:
        """Wait until the device has finished, so that times can be taken."""
        device = self.device
        if device.type != 'cpu' and hasattr(torch, 'accelerator'):
            torch.accelerator.synchronize(device)
        elif device.type == 'cuda':  # torch before 2.6
            torch.cuda.synchronize(device)
