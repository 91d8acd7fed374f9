# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Teachers that are none of the networks of a step: they only predict."""

from collections import OrderedDict
from contextlib import ExitStack
from typing import Any, Dict, List, Mapping, Optional

import torch
from torch import Tensor
from torch.func import functional_call

from ..errors import UsageError
from ..subnet import Subnet
from .head_state import unchanged_heads
from .predictions import class_scores, outputs_of
from .regularization import unregularized
from .wraps import Stock

_MOMENTUM = 0.997  # of DS-Net
_NOTE = 'averaged_teacher'


class _SavedFromCpu(OrderedDict):
    """Tensors that are pickled as those of a CPU.

    The runner moves only the weights themselves there. Not before they are
    saved: hooks ask for a ``state_dict`` in every iteration.
    """

    def __reduce__(self) -> Any:
        return OrderedDict, ([(k, v.cpu()) for k, v in self.items()],)


class Teacher:
    """Predicts on the batch of a step, for the subnets to learn from."""

    def check(self, model: Any) -> None:
        """Refuse a teacher that cannot teach, before any data is loaded.

        Args:
            model (MutualLearningMixin): The pupil.

        Raises:
            UsageError: Says why.
        """

    def prepare(self, model: Any, inputs: Tensor) -> None:
        """Get ready, on the first batch of a training.

        Args:
            model (MutualLearningMixin): The pupil.
            inputs (Tensor): Preprocessed, at the full resolution.
        """

    def follow(self, model: Any, step: int) -> None:
        """Learn from the weights that a step begins with.

        Args:
            model (MutualLearningMixin): The pupil.
            step (int): Number of the step, from 0.
        """

    def scores(
        self,
        model: Any,
        subnet: Subnet,
        inputs: Any,
        data_samples: Any,
        **kwargs: Any,
    ) -> List[Tensor]:
        """Return class scores, without gradients; several of branches.

        Args:
            model (MutualLearningMixin): The pupil. Its state is the same
                afterwards.
            subnet (Subnet): The full network, at its size of this step.
            inputs (Tensor): Preprocessed batch at the full resolution.
            data_samples (Sequence): One for each input.
            **kwargs: Of the stock ``loss()``.
        """
        raise NotImplementedError(type(self).__name__)

    def note(self, metadata: Dict[str, Any]) -> None:
        """Write what was learned into the metadata of a ``state_dict``."""

    def recall(self, metadata: Mapping[str, Any]) -> None:
        """Read it again."""


class AveragedTeacher(Teacher):
    """The full network with the moving average of its weights.

    It is kept beside the weights in a checkpoint, where the metadata of a
    ``state_dict`` lie: keys remain the stock ones.

    Attributes:
        averages (dict[str, Tensor], optional): By the name of a parameter;
            None before the first step.
    """

    def __init__(self) -> None:
        self.averages: Optional[Dict[str, Tensor]] = None

    def __deepcopy__(self, memo: Dict[int, Any]) -> 'AveragedTeacher':
        copied = AveragedTeacher()
        # Averages are replaced, never changed: their memory can be shared.
        copied.averages = self.averages and dict(self.averages)
        return copied

    def follow(self, model: Any, step: int) -> None:
        """Average the weights that a step begins with.

        Args:
            model (MutualLearningMixin): Whose weights count.
            step (int): Number of the step; at 0 the average begins anew.

        Raises:
            UsageError: If a training goes on without its average.
        """
        weights = {n: p.detach() for n, p in model.named_parameters()}
        if step == 0:
            self.averages = {n: w.clone() for n, w in weights.items()}
            return
        if self.averages is None or self.averages.keys() != weights.keys():
            raise UsageError(
                f"mutual.teacher='ema': step {step} is the first of this "
                'process, and no average of the weights was loaded: resume '
                "from a checkpoint of a training with teacher='ema', or start "
                'anew, with load_from and without resume'
            )
        with torch.no_grad():
            for name, weight in weights.items():
                mean = self.averages[name].to(weight)
                self.averages[name] = mean.lerp(weight, 1 - _MOMENTUM)

    def scores(
        self,
        model: Any,
        subnet: Subnet,
        inputs: Any,
        data_samples: Any,
        **kwargs: Any,
    ) -> List[Tensor]:
        """Predict as the full network does in training, without dropout."""
        head = model.task.head(model)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(model.activate(subnet))
            stack.enter_context(unchanged_heads(model))
            stack.enter_context(unregularized(model))
            outputs = stack.enter_context(outputs_of(head))
            batch = model.task.resize(
                model, inputs, data_samples, subnet, with_truth=True
            )
            # The averages need no gradient, so autocast keeps no casts.
            functional_call(
                model, self.averages, batch, dict(kwargs, mode='loss')
            )
            return list(class_scores(outputs, head))

    def note(self, metadata: Dict[str, Any]) -> None:
        """Write the averages into the metadata of a ``state_dict``."""
        if self.averages is not None:
            metadata[_NOTE] = _SavedFromCpu(self.averages)

    def recall(self, metadata: Mapping[str, Any]) -> None:
        """Read them again; a checkpoint without them leaves none."""
        noted = metadata.get(_NOTE)
        self.averages = None if noted is None else dict(noted)


class KeepsTeacher(Stock):
    """Keeps what a teacher knows through a stop of the training.

    A part of :class:`~.mutual.MutualLearningMixin`.
    """

    _teacher: Optional[Teacher] = None

    def check_teacher(self) -> None:
        """Refuse a teacher that cannot teach; of files, this reads them.

        Not while the model is built: what was trained by a teacher is tested
        and deployed without it.

        Raises:
            UsageError: As :meth:`Teacher.check`.
        """
        if self._teacher is not None:
            self._teacher.check(self)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args
        )
        if self._teacher is not None:
            self._teacher.recall(local_metadata)


def save_teacher(
    model: Any, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    """Note beside the weights what the teacher of the model knows."""
    del state_dict, prefix
    teacher = getattr(model, '_teacher', None)  # a static form has none
    if teacher is not None:
        teacher.note(local_metadata)
