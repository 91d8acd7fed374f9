# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What mutual learning has to know about a task."""

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ...datasets.transforms import CARRIED
from ...errors import ConfigError
from ...slimmable import slim_batch_norms
from ...subnet import Size, Subnet, SubnetSpace

Samples = Sequence[BaseDataElement]
Batch = Tuple[Tensor, List[BaseDataElement]]


class Task:
    """How inputs are brought to a subnet's size, and predictions found.

    Args:
        space (SubnetSpace): Names the full resolution, which the pipeline
            delivers.

    Attributes:
        name (str): As a query table says it.
        takes_frames (bool): Whether subnets have a number of frames.
        cost_includes_head (bool): Whether :meth:`forward_cost` runs the heads.

    Raises:
        ConfigError: If frames are listed, and it is no task of video, or
            the other way round.
    """

    name: str
    takes_frames = False
    cost_includes_head = True

    def __init__(self, space: SubnetSpace) -> None:
        if space.frames is not None and not self.takes_frames:
            raise ConfigError(
                f'mutual.frames={space.frames} is for video: leave it out'
            )
        if space.frames is None and self.takes_frames:
            raise ConfigError(
                'mutual.frames is missing: list the frames of a clip, the '
                'full number first, as in frames=(8, 5, 3)'
            )
        self.space = space

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """What ``mutual.supervision`` may be; the first is the default."""
        raise NotImplementedError(type(self).__name__)

    def check_supervision(
        self, model: nn.Module, supervision: Optional[str]
    ) -> str:
        """Return ``supervision`` or the model's default.

        Raises:
            ConfigError: If the model has no such supervision.
        """
        possible = self.supervisions(model)
        if supervision is None:
            return possible[0]
        if supervision not in possible:
            raise ConfigError(
                f'mutual.supervision={supervision!r}: this model takes '
                f'{" or ".join(map(repr, possible))}'
            )
        return supervision

    def head(self, model: nn.Module) -> nn.Module:
        """Return the module whose output is the prediction for KL."""
        return model.head

    def behind_backbone(self, model: nn.Module) -> Dict[str, nn.Module]:
        """Children that take the backbone's maps, one after the other.

        They are tried at several widths while the model is built.
        """
        neck = getattr(model, 'neck', None)
        return {} if neck is None else {'neck': neck}

    def check_truth(self, data_samples: Samples) -> None:
        """Refuse a training batch without ground truth."""
        del data_samples  # the stock heads name what they miss

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse a training batch that is not of the full resolution.

        Raises:
            ConfigError: Names the size that came and the one that should.
        """
        raise NotImplementedError(type(self).__name__)

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse a test batch of a wrong size, as :meth:`check_full`."""
        self.check_full(model, inputs, data_samples)

    def check_square(self, inputs: Tensor) -> None:
        """Refuse inputs that are not squares of the full resolution."""
        full = self.space.full.resolution
        if tuple(inputs.shape[-2:]) != (full, full):
            raise ConfigError(
                f'the pipeline delivers {inputs.shape[-2]} x '
                f'{inputs.shape[-1]} inputs, but the full resolution is '
                f'{full}: crop or resize to {full}, or set another '
                'mutual.resolution[0]'
            )

    def resize(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        subnet: Subnet,
        with_truth: bool = False,
    ) -> Batch:
        """Return the preprocessed batch at the subnet's resolution.

        Sizes that ``MultiResolution`` made in the data pipeline are taken
        where they are carried along; otherwise the batch is interpolated on
        its device. What is given is not changed.

        Args:
            model (nn.Module): Its data preprocessor pads and normalises.
            inputs (Tensor): Preprocessed batch at the full resolution.
            data_samples (Sequence): One for each input.
            subnet (Subnet): Names the resolution.
            with_truth (bool): Whether to resize the ground truth too, for
                training. Defaults to False.
        """
        if subnet.resolution == self.space.full.resolution:
            return inputs, [_without_sizes(s) for s in data_samples or []]
        if self._carries(data_samples, subnet.resolution, with_truth):
            return self._carried(
                model, data_samples, subnet.resolution, with_truth
            )
        return self._interpolate(
            model, inputs, data_samples, subnet.resolution, with_truth
        )

    def _interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        raise NotImplementedError(type(self).__name__)

    @staticmethod
    def _carries(
        data_samples: Samples, resolution: int, with_truth: bool
    ) -> bool:
        """Whether the pipeline made this size; in training it has to."""
        if not data_samples or CARRIED not in data_samples[0]:
            return False
        made = data_samples[0].get(CARRIED)
        if with_truth and resolution not in made:
            raise ConfigError(
                f'resolution {resolution} was not made by the MultiResolution '
                f'transform, which made {sorted(made)} beside the full one: '
                'give it the same list as mutual.resolution'
            )
        return resolution in made

    def _carried(
        self,
        model: nn.Module,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        if with_truth and getattr(
            model.data_preprocessor, 'batch_augments', None
        ):
            raise ConfigError(
                'MultiResolution cannot be combined with batch augmentations '
                '(Mixup, CutMix, ...), which would mix each size anew: leave '
                'one of them out'
            )
        packed = [sample.get(CARRIED)[resolution] for sample in data_samples]
        data = model.data_preprocessor(
            {key: [p[key] for p in packed] for key in packed[0]}, with_truth
        )
        return data['inputs'], data['data_samples']

    def features(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Forward through every batch norm, for calibration."""
        del data_samples
        with torch.no_grad():
            model.extract_feat(inputs)

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run the part of the network whose MACs are a subnet's cost."""
        return model(inputs, mode='tensor')

    def forward_sliced(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run every layer whose sizes depend on the backbone's width."""
        return self.forward_cost(model, inputs)

    def check_static(self, model: nn.Module) -> None:
        """Refuse a model where :meth:`forward_sliced` misses such layers."""
        del model

    def meta_input(
        self,
        model: nn.Module,
        subnet: Subnet,
        image_shape: Optional[Size] = None,
    ) -> Tensor:
        """Stand in for an image: a batch of one on the meta device.

        See :meth:`input_shape` for the arguments.
        """
        return torch.empty(
            self.input_shape(model, subnet, image_shape),
            dtype=next(model.parameters()).dtype,
            device='meta',
        )

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of the batch of one that the network sees for an image.

        Args:
            model (nn.Module): Whose task it is.
            subnet (Subnet): Names the resolution.
            image_shape (tuple[int], optional): Of the original image, or of
                the views of a clip. None stands for the task's own default.
        """
        raise NotImplementedError(type(self).__name__)

    @staticmethod
    def batch_norms_outside(model: nn.Module, names: Sequence[str]) -> bool:
        """Whether a batch norm lives in another child than ``names``."""
        return any(
            name.split('.')[0] not in names
            for name, _ in slim_batch_norms(model)
        )


def _without_sizes(sample: BaseDataElement) -> BaseDataElement:
    """Take off what ``MultiResolution`` made: stock losses copy samples."""
    if CARRIED not in sample:
        return sample
    sample = sample.new()
    sample.pop(CARRIED)
    return sample
