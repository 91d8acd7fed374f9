# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""An exported network beside the adaptive one, on the same inputs."""

from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    cast,
)

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..deploy.adaptive_model import AdaptiveModel
from ..errors import UsageError, first_line
from ..models.draws import same_draws
from ..models.tasks.base import Batch
from ..subnet import Subnet
from .program_file import Run, tensors_of


class Difference(NamedTuple):
    """The largest difference between all numbers that were compared.

    Args:
        absolute (float): Between two numbers.
        relative (float): The same over the largest absolute value of the
            tensor that they are in.
    """

    absolute: float
    relative: float


_EQUAL, _APART = Difference(0.0, 0.0), Difference(inf, inf)


def largest(differences: Sequence[Difference]) -> Difference:
    """Take the largest absolute and relative one; infinity without any."""
    if not differences:
        return _APART
    return Difference(*map(max, zip(*differences)))


def compare(found: Tensor, expected: Tensor) -> Difference:
    """Compare two tensors.

    For labels and masks, which are not floating-point numbers, it is the
    share that differs. It is infinite if shapes differ or if a difference is
    not finite.
    """
    if found.shape != expected.shape:
        return _APART
    if expected.numel() == 0:
        return _EQUAL
    if not expected.is_floating_point():
        share = (found != expected).double().mean().item()
        return Difference(share, share)
    found, expected = found.double(), expected.double()
    absolute = (found - expected).abs().max().item()
    if not isfinite(absolute):
        return _APART
    if absolute == 0:
        return _EQUAL
    scale = expected.abs().max().item()
    return Difference(absolute, absolute / scale if scale else inf)


def compare_all(
    found: Sequence[Tensor], expected: Sequence[Tensor]
) -> Difference:
    """Compare lists of tensors; infinity if their lengths differ."""
    if len(found) != len(expected):
        return _APART
    return largest([compare(*pair) for pair in zip(found, expected)])


def compare_samples(
    found: Sequence[BaseDataElement], expected: Sequence[BaseDataElement]
) -> Difference:
    """Compare predictions in their order: scores, labels, boxes, masks."""
    pairs = [[_predicted(s) for s in pair] for pair in zip(found, expected)]
    if len(found) != len(expected) or any(
        a.keys() != b.keys() for a, b in pairs
    ):
        return _APART
    return largest([compare(a[name], b[name]) for a, b in pairs for name in b])


def _predicted(sample: BaseDataElement) -> Dict[str, Tensor]:
    """All tensors of a sample but those of the ground truth."""
    tensors = {}
    for name, value in sample.items():
        if isinstance(value, BaseDataElement):
            for inner, tensor in _predicted(value).items():
                tensors[f'{name}.{inner}'] = tensor
        elif isinstance(value, Tensor):
            tensors[name] = value
    return {k: v for k, v in tensors.items() if not k.startswith('gt_')}


@dataclass(frozen=True)
class Verification:
    """How well exported files agree with the adaptive network.

    Args:
        difference (Difference): The largest one that was seen.
        compared (str): What was compared.
        batch_sizes (tuple[int]): Real inputs in each batch that was run.
        params (int): Parameters of the exported network; for a detector's
            program, those of backbone and neck.
        files (dict): Size in bytes of each file that was written.
    """

    difference: Difference
    compared: str
    batch_sizes: Tuple[int, ...]
    params: int
    files: Dict[Path, int]


@dataclass(frozen=True)
class Exported:
    """An exported network, as it was loaded from its file.

    Args:
        run (Callable): Maps a batch of the subnet's size to tensors.
        params (int): Its parameters.
        network (nn.Module, optional): Network, if it also predicts.
    """

    run: Run
    params: int
    network: Optional[nn.Module] = None


def resize_batch(net: AdaptiveModel, batch: Batch) -> Tensor:
    """Bring the inputs of a batch to the size of the current subnet."""
    subnet = cast(Subnet, net.current)
    return net.model.task.resize(net.model, *batch, subnet)[0]


@torch.no_grad()
def verify(
    net: AdaptiveModel, exported: Exported, batches: Sequence[Batch]
) -> Difference:
    """Run an exported network and the adaptive one on the same inputs.

    Args:
        net (AdaptiveModel): Sliced, at the subnet that was exported.
        exported (Exported): Its logits, or a detector's maps, are compared.
            If it predicts, so are scores, and a detector's boxes and masks.
        batches (Sequence): Prepared, at the full resolution.

    Returns:
        Difference: The largest one.

    Raises:
        UsageError: If the exported network cannot run a batch.
    """
    return largest([_compare(net, exported, batch) for batch in batches])


def _compare(
    net: AdaptiveModel, exported: Exported, batch: Batch
) -> Difference:
    resized = resize_batch(net, batch)
    with same_draws():
        expected = tensors_of(net.model.task.forward_cost(net.model, resized))
    try:
        with same_draws():
            found = exported.run(resized)
    except Exception as error:  # each format has its own
        raise UsageError(
            f'the exported subnet {net.current} does not run a batch of shape '
            f'{tuple(resized.shape)}: {first_line(error)}'
        ) from error
    differences = [compare_all(found, expected)]
    if exported.network is not None:
        inputs, samples = batch
        copies = [sample.new() for sample in samples]
        with same_draws():
            predicted = exported.network(inputs, copies, mode='predict')
        with same_draws(), _heads_on(net.model, found):
            wanted = net.predict(inputs, samples)
        differences.append(compare_samples(predicted, wanted))
    return largest(differences)


@contextmanager
def _heads_on(model: Any, maps: List[Tensor]) -> Iterator[None]:
    """Let the heads of a detector take the maps of the exported network.

    Proposals and detections are chosen by rank: one rounding may change them
    all. On the same maps, the same heads make the same choices.
    """
    if model.task.cost_includes_head:
        yield
        return
    model.extract_feat = lambda inputs: tuple(maps)
    try:
        yield
    finally:
        del model.extract_feat
