# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Real inputs on which an exported network is verified."""

from typing import Any, List

import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from ..deploy.adaptive_model import AdaptiveModel
from ..errors import UsageError
from ..models.tasks.samples import Batch

_NUMBER = 3


def verification_batches(
    net: AdaptiveModel, images: Any = None
) -> List[Batch]:
    """Return two preprocessed batches: the first input alone, and all.

    If there is only one input, its mirror image is added.

    Args:
        net (AdaptiveModel): Network that takes the inputs.
        images: As :class:`~.inputs.InputPipeline` takes them. Defaults to the
            first three samples of the config's test data set.

    Raises:
        UsageError: If they cannot be read.
    """
    if images is None:
        batches = _of_test_set(net)
    elif isinstance(images, (list, tuple)):
        # Alone, a detector's first image is padded to a size of its own.
        batches = [net.prepare(images[:1]), net.prepare(images)]
    else:
        inputs, samples = net.prepare(images)
        batches = [(inputs[:1], samples[:1]), (inputs, samples)]
    shorten = net.model.task.shorten
    batches = [(shorten(inputs), samples) for inputs, samples in batches]
    if net.model.task.predicts_one_by_one:
        return batches[:1]
    inputs, samples = batches[1]
    if len(inputs) == 1:
        inputs = torch.cat((inputs, inputs.flip(-1)))
        batches[1] = (inputs, [*samples, samples[0].new()])
    return batches


def _of_test_set(net: AdaptiveModel) -> List[Batch]:
    settings = (net.cfg.get('test_dataloader') or {}).get('dataset')
    try:
        # Another network may have changed the default scope since.
        scope = net.cfg.get('default_scope')
        with DefaultScope.overwrite_default_scope(scope):
            dataset = DATASETS.build(settings)
            packed = [dataset[i] for i in range(min(_NUMBER, len(dataset)))]
        if not packed:
            raise ValueError('it is empty')
        preprocess = net.model.data_preprocessor
        batches = []
        for items in (packed[:1], packed):
            data = preprocess(pseudo_collate(items), False)
            batches.append((data['inputs'], data['data_samples']))
    except Exception as error:  # of any data set and transform
        reason = str(error).splitlines()[-1] if str(error) else repr(error)
        raise UsageError(
            'the test data set of the config cannot be read here '
            f'({reason}): give a few inputs to prove the export on, --inputs '
            'FILE of the tool'
        ) from error
    return batches
