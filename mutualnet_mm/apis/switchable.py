# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network that switches between its subnets while it runs."""

import copy
import threading
from typing import Any, Callable, Iterable, List, Optional, Sequence, Union

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..engine import Bank, calibrate
from ..errors import ConfigError
from ..models import MutualLearningMixin, narrow_model
from ..slimmable import Statistics, slim_batch_norms
from ..subnet import Subnet
from .sliced import SlicedNetwork
from .static_cache import StaticCache

Subnets = Union[str, Subnet, Sequence[Union[str, Subnet]]]
Samples = List[BaseDataElement]


class SwitchableNetwork:
    """Runs the subnets of one network, sliced or materialized.

    *Sliced*, the mode at first, takes no extra memory: layers read the leading
    part of the shared weights. *Materialized* subnets have contiguous weights
    of their own and run faster. A lock serialises calls; to run several
    subnets at the same time, give each thread a :meth:`handle`.

    Args:
        origin (MutualLearningMixin): The network, in evaluation mode.
        bank (dict): Statistics of its subnets, ``{str(subnet): statistics}``.
    """

    def __init__(self, origin: MutualLearningMixin, bank: Bank) -> None:
        # Never run, only copied: no thread changes it under another one.
        self._origin = origin
        self._bank = bank
        self._static: Optional[StaticCache] = None
        self._start()

    def _start(self) -> None:
        self._sliced = SlicedNetwork(self._origin)
        self._network: Callable[..., Samples] = self._sliced
        self._current = self._sliced.subnet
        self._lock = threading.RLock()

    def handle(self) -> Any:
        """Return another one over the same weights, for another thread.

        It starts at the current subnet and switches on its own; weights,
        statistics and materialized subnets are shared.
        """
        other = copy.copy(self)
        other._start()
        other.use(self.current)
        return other

    @property
    def model(self) -> MutualLearningMixin:
        """The sliced network of this handle."""
        return self._sliced.model

    @property
    def current(self) -> Subnet:
        """The active subnet."""
        return self._current

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return next(self._origin.parameters()).device

    @property
    def materialized(self) -> List[Subnet]:
        """Subnets that have weights of their own; none while sliced."""
        return [] if self._static is None else self._static.subnets

    def use(self, subnet: Union[str, Subnet]) -> Subnet:
        """Switch to a subnet, of the table or calibrated.

        Args:
            subnet (str or Subnet): Such as ``'0.7x-160'``.

        Raises:
            ConfigError: If it is outside of the trained range, or has no
                batch-norm statistics.
        """
        subnet = self._origin.space.check(subnet)
        statistics = self.statistics(subnet)
        with self._lock:
            if self._static is not None:
                self._network = self._static.get(subnet)
            else:
                self._sliced.switch(subnet, statistics)
                self._network = self._sliced
            self._current = subnet
        return subnet

    def statistics(self, subnet: Subnet) -> Optional[Statistics]:
        """Batch-norm statistics of a subnet; None are the running ones.

        Raises:
            ConfigError: If there are none.
        """
        if subnet == self._origin.sampler.tracked:
            return None
        found = self._bank.get(str(subnet))
        if found is None and any(slim_batch_norms(self._origin)):
            raise ConfigError(
                f'subnet {subnet} is not in the table and has no batch-norm '
                f"statistics: call calibrate(dataloader, '{subnet}') first, "
                'or use one of the table'
            )
        return found

    def _calibrate(self, batches: Iterable[Any], subnets: Subnets) -> None:
        chosen = self._origin.space.choose(subnets)
        with self._lock:
            self._bank.update(calibrate(self.model, chosen, batches))
            if self._static is not None:
                self._static.drop(chosen)
            self.use(self._current)

    def materialize(
        self,
        subnets: Optional[Subnets] = None,
        fuse_bn: bool = True,
        limit: int = 8,
        compile: bool = False,
    ) -> None:
        """Run subnets on contiguous weights of their own from now on.

        Args:
            subnets (str, Subnet or Sequence, optional): To make at once; any
                other one is made when it is used first. Defaults to the
                current one.
            fuse_bn (bool): Fold batch norms into convolutions. Outputs differ
                by rounding then. Defaults to True.
            limit (int): Networks to keep; beyond it the one not used for the
                longest time is dropped. Defaults to 8.
            compile (bool): ``torch.compile`` backbone and neck, at the first
                call of each. Defaults to False.

        Raises:
            ConfigError: If more subnets are given than are kept, or if one
                cannot be used.
        """

        def make(subnet: Subnet) -> nn.Module:
            net: Any = narrow_model(
                self._origin, subnet, self.statistics(subnet), fuse_bn
            )
            for part in (net.backbone, getattr(net, 'neck', None)):
                if compile and part is not None:
                    part.compile()
            return net

        chosen = self._origin.space.choose(subnets or self._current)
        cache = StaticCache(make, limit)
        if len(chosen) > limit:
            raise ConfigError(
                f'{len(chosen)} subnets are to be materialized, but '
                f'limit={limit} are kept: raise it or name fewer'
            )
        for subnet in chosen:
            cache.get(subnet)
        with self._lock:
            self._static = cache
            self.use(self._current)

    def slice(self) -> None:
        """Run sliced again and let go of what was materialized."""
        with self._lock:
            self._static = None
            self.use(self._current)

    @torch.no_grad()
    def predict(self, inputs: Tensor, samples: Samples) -> Samples:
        """Predict a prepared batch with the active subnet.

        Args:
            inputs (Tensor): Preprocessed, at the full resolution.
            samples (list): One for each input; they are not changed.

        Returns:
            list: Stock data samples with predictions.
        """
        # Copies: stock models write their predictions into the samples.
        samples = [sample.new() for sample in samples]
        with self._lock:
            return self._network(inputs, samples, mode='predict')

    def synchronize(self) -> None:
        """Wait until the device has finished, so that times can be taken."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
