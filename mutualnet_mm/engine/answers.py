# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Notes what a subnet answers while it is tested."""

from typing import Any, List, Optional, Sequence

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..models import MutualLearningMixin
from ..query_table.answers import Answers


class AnswerBook:
    """Takes down the answers of one subnet, batch by batch.

    Args:
        model (MutualLearningMixin): Whose task says how probable classes are.

    Attributes:
        why_not (str, optional): Why there are no answers to keep; None as
            long as there are.
    """

    def __init__(self, model: MutualLearningMixin) -> None:
        self.why_not: Optional[str] = None
        self._model = model
        self._batches: List[Sequence[Tensor]] = []

    def add(self, data_samples: Sequence[BaseDataElement]) -> None:
        """Take down a batch, predictions with their ground truth."""
        if self.why_not is not None:
            return
        labels: List[Any] = [
            getattr(sample, 'gt_label', None) for sample in data_samples
        ]
        scores = self._model.task.probabilities(self._model, data_samples)
        if scores is None:
            self.why_not = (
                'the network predicts no probabilities of classes that '
                'exclude each other, averaged over the clips of a video'
            )
        elif not all(isinstance(x, Tensor) and x.numel() == 1 for x in labels):
            self.why_not = 'not every image has one label'
        else:
            confidence, answer = scores.max(dim=1)
            truth = torch.cat([label.reshape(1) for label in labels])
            batch = truth, answer == truth.to(answer.device), confidence
            self._batches.append([tensor.cpu() for tensor in batch])

    def finish(self) -> Optional[Answers]:
        """Return all of them; None if there is a reason for that."""
        if self.why_not is not None or not self._batches:
            return None
        truth, right, confidence = map(torch.cat, zip(*self._batches))
        return Answers(truth.int(), right, confidence.float())
