# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Test-time augmentation, subnet by subnet."""

import copy
from typing import Any, Callable, Dict

from mmengine.model import BaseTTAModel
from torch import nn

from ..errors import ConfigError, first_line


def merge_predictions(
    merger: BaseTTAModel, batch: Any, predict: Callable[[Any], list]
) -> list:
    """Predict on each view of a batch, and merge as a stock model does.

    Args:
        merger (BaseTTAModel): Stock model around the network, such as
            ``DetTTAModel``. It is not changed.
        batch: As the data loader gives it, with all views of its images.
        predict (Callable): Predicts on one view of all images: returns a
            sample for each.

    Returns:
        list: A sample for each image.

    Raises:
        ConfigError: If the stock model cannot merge such predictions.
    """
    stand_in = copy.copy(merger)
    # Not by setting the attribute: the modules are shared with the original.
    stand_in._modules = dict(merger._modules, module=_Predictor(predict))

    def merge(predictions: list) -> list:
        try:
            return merger.merge_preds(predictions)
        except AssertionError as error:  # of masks, say
            raise ConfigError(
                f'{type(merger).__name__} cannot merge these predictions '
                f'("{first_line(error)}"): test without test-time augmentation'
            ) from error

    stand_in.merge_preds = merge
    return stand_in.test_step(batch)


def first_view(batch: Dict[str, Any]) -> Dict[str, Any]:
    """Return the batch of the first view of all images.

    Args:
        batch (dict): As the data loader gives it, each field a list with an
            item for each view.
    """
    return {name: views[0] for name, views in batch.items()}


class _Predictor(nn.Module):
    """Stands in for the network in a stock model around it."""

    def __init__(self, predict: Callable[[Any], list]) -> None:
        super().__init__()
        self.predict = predict

    def test_step(self, data: Any) -> list:
        return self.predict(data)
