# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How long the subnets of a table take on the device at hand, and more."""

import os
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError, check_count
from ..files import only_writer
from ..query_table import (
    Latency,
    QueryTable,
    load_table,
    save_csv,
    save_table,
    table_to_dict,
)
from ..subnet import Size, Subnet
from .adaptive_file import AdaptiveFile
from .adaptive_model import AdaptiveModel
from .energy import EnergyMeter, energy_meter

_WARM_UP = 3
_Batch = Tuple[Any, Any]


def measure_latencies(
    net: AdaptiveModel,
    batch_size: int = 1,
    repeats: int = 30,
    images: Any = None,
    image_shape: Size = (480, 640),
    track: Callable[[Sequence[Subnet]], Iterable[Subnet]] = iter,
    subnets: Optional[Sequence[Subnet]] = None,
    keep: Callable[[Subnet, Latency], None] = lambda *_: None,
    throughput: Sequence[int] = (),
    energy: bool = False,
) -> Dict[Subnet, Latency]:
    """Time :meth:`AdaptiveModel.predict` for every subnet of the table.

    The time covers resizing, the network and the heads' post-processing, on a
    prepared batch; reading and preprocessing cost the same at every subnet and
    are left out. The mode (sliced or static) is that of ``net``. Each
    subnet runs a few times before it is timed. A keyboard interrupt ends the
    measurement early: what is finished is returned.

    Args:
        net (AdaptiveModel): Model on the device to measure. Its current
            subnet is active again afterwards.
        batch_size (int): Images or videos. One view of each video is taken,
            whatever the test pipeline makes. Defaults to 1.
        repeats (int): Timed runs of each subnet. Defaults to 30.
        images (optional): Files or arrays to run on, one, a list or a stack
            of them, repeated to fill the batch. The post-processing time of
            detectors depends on what is found. Defaults to noise.
        image_shape (tuple[int]): Height and width of the noise, for detectors
            only. Defaults to COCO's most common, (480, 640).
        track (Callable): Wraps the iteration over the subnets, to show
            progress. Defaults to showing none.
        subnets (Sequence[Subnet], optional): Those to time. Defaults to all
            of the table.
        keep (Callable): Called with each subnet and its latency at once.
            Defaults to nothing.
        throughput (Sequence[int]): Batch sizes to measure images per second
            at, by the median time of a batch; the best one is kept, that of
            ``batch_size`` among them. A batch that the memory of a GPU does
            not hold is left out. Defaults to none: no throughput.
        energy (bool): Whether to measure the energy of an image, too, for
            two seconds of each subnet at ``batch_size``, see
            :func:`~.energy.energy_meter`. Defaults to False.

    Returns:
        dict: Latency of a batch by subnet, with what else was measured.

    Raises:
        UsageError: If a number is not positive, if images cannot be read, or
            if the device does not tell its energy.
    """
    check_count(batch_size, 'batch_size')
    check_count(repeats, 'repeats')
    for size in throughput:
        check_count(size, 'batch size of the throughput')
    meter = energy_meter(net.device) if energy else None
    batches = {}
    for size in sorted({batch_size, *throughput}):
        inputs, samples = net.prepare(_images(net, size, images, image_shape))
        batches[size] = net.inputs.one_view(inputs), samples
    before = net.current
    if subnets is None:
        subnets = [entry.subnet for entry in net.table.entries]
    found: Dict[Subnet, Latency] = {}
    try:
        for subnet in track(subnets):
            net.use(subnet)
            timed = _times(net, batches[batch_size], repeats)
            latency = Latency(
                float(np.median(timed)), float(np.quantile(timed, 0.9))
            )
            if throughput:
                medians = {batch_size: latency.median}
                latency = _with_throughput(
                    net, latency, batches, medians, repeats
                )
            if meter is not None:
                millijoules = _millijoules(net, batches[batch_size], meter)
                latency = replace(latency, energy_mj=millijoules / batch_size)
            found[subnet] = latency
            keep(subnet, latency)
    except KeyboardInterrupt:
        pass
    finally:
        net.use(before)
    return found


def _images(
    net: AdaptiveModel,
    batch_size: int,
    images: Any,
    image_shape: Size,
) -> Any:
    if images is not None:
        return list(islice(cycle(net.inputs.listed(images)), batch_size))
    return torch.randn(batch_size, *net.inputs.tensor_shape(image_shape))


def _times(net: AdaptiveModel, batch: _Batch, repeats: int) -> Sequence[float]:
    times = [_milliseconds(net, batch) for _ in range(_WARM_UP + repeats)]
    return times[_WARM_UP:]


def _with_throughput(
    net: AdaptiveModel,
    latency: Latency,
    batches: Mapping[int, _Batch],
    medians: Dict[int, float],
    repeats: int,
) -> Latency:
    """Add images per second, at the batch size that gives the most."""
    for size, batch in batches.items():
        if size in medians:
            continue
        try:
            medians[size] = float(np.median(_times(net, batch, repeats)))
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    rates = {size: 1000 * size / ms for size, ms in medians.items()}
    best = max(rates, key=lambda size: rates[size])
    return replace(latency, images_per_second=rates[best], best_batch=best)


def _millijoules(
    net: AdaptiveModel, batch: _Batch, meter: EnergyMeter
) -> float:
    """Energy of a batch, as the mean over some seconds."""

    def run() -> None:
        net.predict(*batch)
        net.synchronize()

    net.synchronize()
    return meter.of_a_run(run)


def _milliseconds(net: AdaptiveModel, batch: Any) -> float:
    net.synchronize()
    start = perf_counter()
    net.predict(*batch)
    net.synchronize()
    return 1000 * (perf_counter() - start)


def check_writable(path: Union[str, Path]) -> None:
    """Refuse a file that cannot be overwritten, before any work is done.

    Raises:
        UsageError: If so; the message names the file.
    """
    target = Path(os.path.realpath(path))  # which is the one replaced
    places = (target, target.parent)
    if not all(os.access(place, os.W_OK) for place in places):
        raise UsageError(
            f'{str(path)!r} cannot be written: copy it to a folder of yours'
        )


def save_latencies(
    path: Union[str, Path],
    device: str,
    latencies: Mapping[Subnet, Latency],
    weights: Mapping[str, Tensor],
) -> QueryTable:
    """Put latencies into an adaptive file and into the table beside it.

    ``table.json`` and ``table.csv`` in its folder are rewritten if they hold
    the same table, whatever its latencies.

    Args:
        path (str or Path): Path of the adaptive file.
        device (str): Name of the device in the table. Figures that the table
            has under this name are replaced.
        latencies (Mapping): Latencies by subnet.
        weights (Mapping): ``state_dict`` of the network that was measured.

    Returns:
        QueryTable: The table with the latencies.

    Raises:
        UsageError: If the file holds other weights by now; if the table has
            figures under this name for subnets that were not measured now: an
            interrupted run does not replace a complete one; or if the file
            cannot be written.
    """
    with only_writer(path):  # other devices may be measured meanwhile
        file = AdaptiveFile.load(path)
        if not file.same_weights(weights):
            raise UsageError(
                f'{str(path)!r} holds another network by now than the one '
                'that was measured: measure it again'
            )
        lost = [
            entry.subnet
            for entry in file.table.entries
            if device in entry.latency_ms and entry.subnet not in latencies
        ]
        if lost:
            raise UsageError(
                f'{len(latencies)} subnets were measured, but the table also '
                f'has {device!r} for {lost[0]}: its figures stay'
            )
        table = file.table.with_latencies(device, latencies)
        replace(file, table=table).save(path)
        beside = Path(path).with_name('table.json')
        if _holds(beside, file.table):
            save_table(table, beside)
            save_csv(table, beside.with_suffix('.csv'))
    return table


def _holds(path: Path, table: QueryTable) -> bool:
    try:
        found = load_table(path)
    except UsageError:  # missing, or not one of ours
        return False
    return _without_latencies(found) == _without_latencies(table)


def _without_latencies(table: QueryTable) -> dict:
    """All else: an interruption may have kept them out of the other file."""
    content = table_to_dict(table)
    for entry in content['entries']:
        del entry['latency_ms']
    return content
