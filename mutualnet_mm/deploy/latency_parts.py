# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Latencies of a table, measured by several devices of one kind."""

import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Union

from torch import Tensor

from ..files import make_folder, only_user
from ..query_table import Latency, QueryTable
from ..query_table.fingerprints import weights_fingerprint
from ..query_table.parts import finished_in
from ..query_table.progress import Metrics, Progress
from ..shards import Shard, split
from ..subnet import Subnet
from .latency import save_latencies

_MERGING = 600
"""Seconds to wait for another part that merges, which takes far less."""


class LatencyPart:
    """One part of a measurement that several processes share.

    Each device measures its part of the subnets, all subnets being of one
    table and all devices of one kind, and keeps every figure at once in a
    folder beside the adaptive file. The one that finds all parts finished
    puts all figures into the file and removes the parts: measured again, it
    begins anew. Until then the file keeps what it has.

    Args:
        path (str or Path): The adaptive file.
        device (str): Name of the device in the table.
        shard (Shard): Which part of how many.
        table (QueryTable): That of the file.
        weights (Mapping): ``state_dict`` of the network.
        settings (Mapping): Plain values that the figures depend on: a part
            that is measured in another way is refused.

    Attributes:
        subnets (list[Subnet]): Those of this part that are not measured yet.

    Raises:
        UsageError: If there are more parts than subnets, or if another part
            was measured with other settings.
    """

    def __init__(
        self,
        path: Union[str, Path],
        device: str,
        shard: Shard,
        table: QueryTable,
        weights: Mapping[str, Tensor],
        settings: Mapping[str, Any],
    ) -> None:
        self._path, self._device, self._weights = path, device, weights
        whole = [entry.subnet for entry in table.entries]
        self._settings = dict(
            name=device,
            checkpoint=weights_fingerprint(weights),
            subnets=list(map(str, whole)),
            **settings,
        )
        folder = Path(path).with_name(f'{Path(path).stem}-latencies')
        folder = folder / re.sub(r'\W', '_', device)
        self._places: List[Path] = [
            folder / Shard(i + 1, shard.number).folder
            for i in range(shard.number)
        ]
        self._own = self._places[shard.part - 1]
        self._whole = whole
        self._read()
        parts = split([entry.macs for entry in table.entries], shard.number)
        self._chosen = [whole[i] for i in parts[shard.part - 1]]
        self.subnets: List[Subnet] = []

    def _read(self) -> List[Progress]:
        """All parts of this measurement that have begun."""
        found = [Progress.read(p, self._settings) for p in self._places]
        return [progress for progress in found if progress is not None]

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Keep other processes from this part in a ``with`` block.

        Raises:
            UsageError: If another one measures it.
        """
        with only_user(make_folder(self._own)):
            self._progress = Progress(self._own, self._settings)
            self._read()  # of those that began at the same time
            self.subnets = [
                s for s in self._chosen if str(s) not in self._progress.results
            ]
            yield

    def keep(self, subnet: Subnet, latency: Latency) -> None:
        """Keep the latency of a subnet."""
        self._progress.add(str(subnet), {**vars(latency)})

    def merge(self) -> Optional[QueryTable]:
        """Put all figures into the adaptive file if all parts have finished.

        Returns:
            QueryTable: The one of the file then; None if others are left.

        Raises:
            UsageError: As :func:`~.latency.save_latencies` does.
        """
        with only_user(self._own.parent, wait=_MERGING):
            parts = self._read()
            found = finished_in(parts)
            if any(str(subnet) not in found for subnet in self._whole):
                return None
            table = save_latencies(
                self._path,
                self._device,
                {s: _latency(found[str(s)]) for s in self._whole},
                self._weights,
            )
            for part in parts:
                part.discard()
        return table


def _latency(figures: Metrics) -> Latency:
    known: Dict[str, Any] = {k: v for k, v in figures.items() if v is not None}
    return Latency(**known)
