# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Augmented views of the inputs of a test, and what is predicted of them."""

from typing import Any, Dict, List, Optional

from mmengine.model import BaseTTAModel
from torch import nn

from ..errors import UsageError, first_line


class Views:
    """Splits batches and merges predictions as the test model does.

    A stock model of test-time augmentation does both around the model that it
    holds; without one, a batch is the only view of its inputs.

    Args:
        tta_model (nn.Module): A ``BaseTTAModel``, or any other model.

    Raises:
        UsageError: If it does more than to merge.
    """

    def __init__(self, model: nn.Module) -> None:
        self._tta: Optional[BaseTTAModel] = None
        if isinstance(model, BaseTTAModel):
            if type(model).test_step is not BaseTTAModel.test_step:
                raise UsageError(
                    f'{type(model).__name__} runs the model in a way of its '
                    'own (test_step), which subnets cannot follow: test '
                    'without --tta'
                )
            self._tta = model

    def split(self, batch: Dict[str, Any]) -> List[Dict[str, Any]]:
        """Return a batch for each view of the inputs."""
        if self._tta is None:
            return [batch]
        return [dict(zip(batch, view)) for view in zip(*batch.values())]

    def merge(self, predictions: List[list]) -> list:
        """Merge the predictions for all views, which come as :meth:`split`.

        Raises:
            UsageError: If the stock model cannot merge such predictions.
        """
        if self._tta is None:
            return predictions[0]
        try:
            return self._tta.merge_preds([*map(list, zip(*predictions))])
        except (AssertionError, NotImplementedError) as error:
            raise UsageError(
                f'{type(self._tta).__name__} cannot merge what is predicted: '
                f'{first_line(error)}; test without --tta'
            ) from error
