# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Where a subnet sees a class: class activation maps (Fig. 1, Table 2)."""

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ConfigError
from ..subnet import Subnet
from .probe import cam_method, probed
from .view import image_size


@dataclass(frozen=True)
class ActivationMap:
    """What one subnet finds in one image.

    Attributes:
        subnet (Subnet): It, at its own resolution.
        values (np.ndarray): Map, (height, width), of the backbone's last
            stage: of the whole input, with what a detector's is padded by.
            As computed, neither normalised nor enlarged; zeros where a
            detector finds nothing.
        label (int, optional): Class. None for all classes of a detector.
        score (float): The class's probability; of a detector, the summed
            scores of its detections.
        predicted (int, optional): Class that a classifier predicts.
        inside (tuple[float]): Shares of the map's height and width that are
            of the image, at its top left; the rest is a detector's padding.
    """

    subnet: Subnet
    values: np.ndarray
    label: Optional[int]
    score: float
    predicted: Optional[int] = None
    inside: Tuple[float, float] = (1.0, 1.0)

    @property
    def score_name(self) -> str:
        """str: What the score is, for a title."""
        return 'sum of scores' if self.predicted is None else 'score'


def map_image(
    net: nn.Module,
    inputs: Tensor,
    data_samples: List[Any],
    label: Optional[int] = None,
) -> ActivationMap:
    """Map a class in one image, as the network's task asks for.

    Args:
        net (nn.Module): Static model, see :meth:`TrainedNetwork.static`.
        inputs (Tensor): Preprocessed, (1, C, H, W), of the full resolution.
        data_samples (list): The one that belongs to it.
        label (int, optional): Class to map. Defaults to what
            :func:`classifier_maps` and :func:`detector_map` do without.

    Raises:
        ConfigError: If the network is neither a classifier nor a detector.
    """
    if net.task.name == 'classification':
        labels = None if label is None else [label]
        return classifier_maps(net, inputs, data_samples, labels)[0]
    if net.task.name == 'detection':
        return detector_map(net, inputs, data_samples, label)
    raise ConfigError(
        f'activation maps of images are for classifiers and detectors, not '
        f'for {net.task.name!r}: for videos use mutualnet cam-video'
    )


def uses_class_weights(net: nn.Module) -> bool:
    """Whether maps are made of the classifier's weights, without gradients.

    So they are where the classes' scores are linear in the pooled map;
    elsewhere they are Grad-CAM's.

    Args:
        net (nn.Module): Static model.
    """
    try:
        from mmpretrain.models import GlobalAveragePooling, LinearClsHead
    except ImportError:
        return False
    return isinstance(
        getattr(net, 'neck', None), GlobalAveragePooling
    ) and isinstance(getattr(net, 'head', None), LinearClsHead)


def classifier_maps(
    net: nn.Module,
    inputs: Tensor,
    data_samples: List[Any],
    labels: Optional[Sequence[int]] = None,
) -> List[ActivationMap]:
    """Map a class in each image of a batch.

    With global pooling and a linear classifier, the sum of the last stage's
    channels, weighted as the classifier weights them for the class; its mean,
    plus the classifier's bias, is the class's score. Otherwise Grad-CAM, whose
    maps are nowhere negative.

    Args:
        net (nn.Module): Static model, see :meth:`TrainedNetwork.static`.
        inputs (Tensor): Preprocessed, (N, C, H, W), of the full resolution.
        data_samples (list): One for each.
        labels (Sequence[int], optional): Classes to map. Defaults to those
            that the subnet predicts.

    Raises:
        ConfigError: If the backbone hands on no map, or a label is not one of
            the classifier's.
    """
    inputs, _ = net.task.resize(net, inputs, data_samples, net.subnet)
    with probed(net) as layer, torch.enable_grad():
        if uses_class_weights(net):
            method = cam_method('CAM')(net, layer, net.head.fc)
        else:
            method = cam_method('GradCAM')(net, layer)
        with method:
            logits = net(inputs, mode='tensor')
            if isinstance(logits, (tuple, list)):
                logits = logits[-1]
            predicted = logits.argmax(1).tolist()
            chosen = predicted if labels is None else list(labels)
            check_labels(chosen, logits.shape[1])
            (maps,) = method(chosen, logits, normalized=False)
    scores = logits.detach().softmax(1)
    return [
        ActivationMap(
            net.subnet,
            values.cpu().numpy(),
            label,
            float(score[label]),
            best,
        )
        for values, label, score, best in zip(maps, chosen, scores, predicted)
    ]


def detector_map(
    net: nn.Module,
    inputs: Tensor,
    data_samples: List[Any],
    label: Optional[int] = None,
) -> ActivationMap:
    """Map what a detector finds in one image, by Layer-CAM.

    The target is the sum of the scores of its detections. Each of them is of
    one place: Layer-CAM weights channels by their gradients place by place,
    which Grad-CAM averages over the image.

    Args:
        net (nn.Module): Static model, see :meth:`TrainedNetwork.static`.
        inputs (Tensor): Preprocessed, (1, C, H, W), of the full resolution.
        data_samples (list): The one that belongs to it.
        label (int, optional): Class whose detections count. Defaults to all.

    Raises:
        ConfigError: If the backbone hands on no map.
    """
    own, samples = net.task.resize(net, inputs, data_samples, net.subnet)
    # What the pipeline padded, and what the batch was padded by.
    image, padded = image_size(data_samples[0]), data_samples[0].img_shape
    (height, width), (own_height, own_width) = (
        samples[0].img_shape[:2],
        own.shape[-2:],
    )
    inside = (
        image[0] / padded[0] * height / own_height,
        image[1] / padded[1] * width / own_width,
    )
    seen: List[Tensor] = []
    with probed(net) as layer, torch.enable_grad():
        handle = layer.register_forward_hook(
            lambda module, args, output: seen.append(output)
        )
        with handle, cam_method('LayerCAM')(net, layer) as method:
            with _Undetached():
                (sample,) = net(inputs, data_samples, mode='predict')
            found = sample.pred_instances
            scores = found.scores
            if label is not None:
                scores = scores[found.labels == label]
            if not len(scores):
                shape = seen[-1].shape[-2:]
                return ActivationMap(
                    net.subnet, np.zeros(shape), label, 0.0, inside=inside
                )
            total = scores.sum()
            (maps,) = method(
                scores=total[None],
                targets=lambda score: score,
                normalized=False,
            )
    values = maps[0].cpu().numpy()
    return ActivationMap(
        net.subnet, values, label, float(total.detach()), inside=inside
    )


class _Undetached(TorchFunctionMode):
    """Makes ``Tensor.detach`` hand on its tensor, graph and all.

    Stock dense heads detach their outputs before they make detections of
    them, whose scores would have no gradient.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Any = None
    ) -> Any:
        del types
        if func is Tensor.detach:
            return args[0]
        return func(*args, **(kwargs or {}))


def check_labels(labels: Sequence[int], number: int) -> None:
    """Refuse classes that do not exist, which would map others silently.

    Args:
        labels (Sequence[int]): To be mapped.
        number (int): Of classes.

    Raises:
        ConfigError: Names the first one.
    """
    for label in labels:
        if not 0 <= label < number:
            raise ConfigError(
                f'class {label} is to be mapped, but the classifier has '
                f'{number}: give one from 0 to {number - 1}'
            )
