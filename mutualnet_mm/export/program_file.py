# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""One subnet as a program of ``torch.export``: no class of ours is needed."""

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..errors import UsageError, first_line
from ..models import MutualLearningMixin, static_model
from ..models.draws import same_draws
from ..models.tasks import Task
from ..slimmable import Statistics
from ..subnet import Subnet

Run = Callable[[Tensor], List[Tensor]]
"""Runs a batch of the subnet's own size."""

METADATA = 'metadata.json'
# A size of one is traced as always being one: that of an axis, or, if images
# are small, of a map at the top of a feature pyramid.
_BATCH, _SIDE = 2, 160


def tensors_of(outputs: Any) -> List[Tensor]:
    """List the tensors that a network returns, nested or not."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    return [tensor for part in outputs for tensor in tensors_of(part)]


class SubnetProgram:
    """The part of a subnet that :meth:`Task.forward_cost` runs, traced.

    Classifiers and recognizers are whole and return logits; detectors are
    backbone and neck and return a map for each level. The input is named
    ``inputs``: a preprocessed batch of any length, of the subnet's own size.
    Detectors take images of any height and width that padding results in,
    recognizers any number of views; 2D ones any number of segments, unless
    the network needs a certain one.

    Args:
        model (MutualLearningMixin): Network on the CPU.
        subnet (Subnet): Which one.
        statistics (dict, optional): Statistics of its batch norms; None means
            the running ones.
        shape (Sequence[int]): Shape of a batch.
        fuse_bn (bool): Fold batch norms into convolutions.

    Attributes:
        program (ExportedProgram): The traced program.
        axes (dict): Names of the axes of the inputs that may have any size.
        outputs (list[str]): Names of the outputs.
        params (int): Parameters of the program.

    Raises:
        UsageError: If the network cannot be traced, or if this version of
            torch cannot trace.
    """

    def __init__(
        self,
        model: MutualLearningMixin,
        subnet: Subnet,
        statistics: Optional[Statistics],
        shape: Sequence[int],
        fuse_bn: bool,
    ) -> None:
        check_torch()
        task = model.task
        net = static_model(model, subnet, statistics, fuse_bn)
        for name, _ in [*net.named_children()]:
            if not _is_run(task, name):
                delattr(net, name)
        self.axes = task.input_axes
        self.params = sum(p.numel() for p in net.parameters())
        dynamic = torch.export.Dim.DYNAMIC
        try:
            # What is drawn is traced as drawn; `verify` draws the same.
            with torch.no_grad(), same_draws():
                self.program = torch.export.export(
                    _ForwardCost(net, task),
                    (torch.zeros(_example(task, shape)),),
                    dynamic_shapes=dict(
                        inputs=dict.fromkeys(self.axes, dynamic)
                    ),
                    strict=False,
                )
        except Exception as error:  # of many kinds, by what it cannot trace
            raise UsageError(
                f'torch.export cannot trace subnet {subnet}: '
                f'{first_line(error)}; use format static'
            ) from error
        # Neither belongs in a file: a batch of zeros, whose sizes would set
        # limits when it is loaded, and paths of this machine.
        self.program.example_inputs = None
        for node in self.program.graph.nodes:
            node.meta.pop('stack_trace', None)
        number = len(self.program.graph_signature.user_outputs)
        self.outputs = ['logits']
        if not task.cost_includes_head:
            self.outputs = [f'feat{i}' for i in range(number)]
        elif number > 1:
            self.outputs = [f'logits{i}' for i in range(number)]


class _ForwardCost(nn.Module):
    """Tensors in, tensors out."""

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net, self.task = net, task

    def forward(self, inputs: Tensor) -> Any:
        outputs = tensors_of(self.task.forward_cost(self.net, inputs))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _is_run(task: Task, name: str) -> bool:
    """Whether a child of the network is a part of the program."""
    if task.cost_includes_head:
        return name != 'data_preprocessor'
    return name in ('backbone', 'neck')


def _example(task: Task, shape: Sequence[int]) -> Tuple[int, ...]:
    sizes = list(shape)
    for axis, name in task.input_axes.items():
        if name in ('height', 'width'):
            sizes[axis] = max(_SIDE, sizes[axis])
        else:
            sizes[axis] = _BATCH
    return tuple(sizes)


def check_torch() -> None:
    """Refuse a torch that cannot trace.

    Raises:
        UsageError: If so; the message names the version that can.
    """
    dim = getattr(getattr(torch, 'export', None), 'Dim', None)
    if not hasattr(dim, 'DYNAMIC'):
        raise UsageError(
            f'torch {torch.__version__} cannot export: formats onnx and torch '
            'need 2.6 or later; use format static, or another torch'
        )


def save_program(
    program: SubnetProgram, path: Path, metadata: Dict[str, Any]
) -> None:
    """Write a file for ``torch.export.load``.

    Args:
        program (SubnetProgram): What to write.
        path (Path): File, ``.pt2``.
        metadata (dict): Goes into the file as JSON, as ``metadata.json``
            among its ``extra_files``.
    """
    torch.export.save(
        program.program, path, extra_files={METADATA: json.dumps(metadata)}
    )


def load_program(path: Path) -> Run:
    """Load a file of :func:`save_program`."""
    module = torch.export.load(path).module()
    return lambda inputs: tensors_of(module(inputs))
