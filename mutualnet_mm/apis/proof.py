# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""An exported network beside the adaptive one, on the same inputs."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..errors import ConfigError, first_line
from ..models.tasks.base import Batch
from .adaptive_model import AdaptiveModel
from .differences import Difference, compare_all, compare_samples, largest
from .program_file import Run, tensors_of


@dataclass(frozen=True)
class Proof:
    """How well exported files agree with the adaptive network.

    Args:
        difference (Difference): The largest one that was seen.
        compared (str): What was compared.
        batch_sizes (tuple[int]): Real inputs in each batch that was run.
        params (int): Parameters of the exported network; of a detector's
            program those of backbone and neck.
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
        network (nn.Module, optional): One that also predicts.
    """

    run: Run
    params: int
    network: Optional[nn.Module] = None


def resize_batch(net: AdaptiveModel, batch: Batch) -> Tensor:
    """Bring the inputs of a batch to the size of the current subnet."""
    return net.model.task.resize(net.model, *batch, net.current)[0]


@torch.no_grad()
def prove(
    net: AdaptiveModel, exported: Exported, batches: Sequence[Batch]
) -> Difference:
    """Run an exported network and the adaptive one on the same inputs.

    Args:
        net (AdaptiveModel): Sliced, at the subnet that was exported.
        exported (Exported): Its logits, or a detector's maps, are compared.
            Of one that predicts also scores, and a detector's boxes and
            masks.
        batches (Sequence): Prepared, of the full resolution.

    Returns:
        Difference: The largest one.

    Raises:
        ConfigError: If the exported network does not run a batch.
    """
    return largest([_compare(net, exported, batch) for batch in batches])


def _compare(
    net: AdaptiveModel, exported: Exported, batch: Batch
) -> Difference:
    resized = resize_batch(net, batch)
    expected = tensors_of(net.model.task.counted(net.model, resized))
    try:
        found = exported.run(resized)
    except Exception as error:  # another one of each format
        raise ConfigError(
            f'the exported subnet {net.current} does not run a batch of shape '
            f'{tuple(resized.shape)}: {first_line(error)}'
        ) from error
    differences = [compare_all(found, expected)]
    if exported.network is not None:
        inputs, samples = batch
        copies = [sample.new() for sample in samples]
        predicted = exported.network(inputs, copies, mode='predict')
        with _heads_on(net.model, found):
            wanted = net.predict(inputs, samples)
        differences.append(compare_samples(predicted, wanted))
    return largest(differences)


@contextmanager
def _heads_on(model: Any, maps: List[Tensor]) -> Iterator[None]:
    """Let the heads of a detector take the maps of the exported network.

    Proposals and detections are chosen by rank: one rounding may change them
    all. On the same maps the same heads choose the same.
    """
    if model.task.counts_heads:
        yield
        return
    model.extract_feat = lambda inputs: tuple(maps)
    try:
        yield
    finally:
        del model.extract_feat
