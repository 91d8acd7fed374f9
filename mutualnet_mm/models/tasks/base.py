# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What mutual learning has to know about a task."""

from typing import Any, Dict, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor, nn

from ...errors import ConfigError
from ...slimmable import slim_batch_norms
from ...subnet import Size, Subnet, SubnetSpace
from .samples import Batch, Samples, carried_batch, carries, own_samples


class Task:
    """How models of one kind learn, are resized, run and are fed.

    One instance belongs to one model and is registered for its base class by
    :func:`~mutualnet_mm.models.tasks.register_task`. The model has a
    ``backbone`` that is slimmable; all that follows it keeps its full width.

    A subclass **must** set or override

    - :attr:`name`;
    - :meth:`supervisions`: what subnets can learn from;
    - :meth:`interpolate`: how a batch is brought to another resolution;
    - :meth:`input_shape`: what the network sees of one input.

    It **may** override, where the defaults do not fit,

    - what it is: :attr:`takes_frames`, :attr:`cost_includes_head`,
      :attr:`predicts_one_by_one`, :attr:`channel_axis`, :attr:`input_axes`,
      :meth:`for_model`, :meth:`check_model`, :meth:`prepare`;
    - learning: :meth:`head`, :meth:`map_maker`, :meth:`downstream`,
      :meth:`check_truth`;
    - batches: :meth:`check_full`, :meth:`check_test`, :meth:`resize`;
    - running: :meth:`forward_batch_norms` (every batch norm, without labels),
      :meth:`forward_cost` (what a subnet's MACs are of), :meth:`forward_whole`
      (with the heads), :meth:`forward_sliced`, :meth:`runs_heads` and
      :meth:`check_static` (every layer whose sizes follow the width);
    - deployment: :meth:`shorten`, :meth:`describe_inputs`,
      :meth:`probabilities`.

    How files and arrays become batches is registered beside the readers, see
    :func:`~mutualnet_mm.deploy.inputs.register_reader`.

    Args:
        space (SubnetSpace): Names the full resolution. What the pipeline
            delivers is seen by the full network; a subnet of resolution ``r``
            sees it scaled by ``r`` over the full one.

    Attributes:
        name (str): As a query table says it.
        takes_frames (bool): Whether subnets have a number of frames.
        cost_includes_head (bool): Whether :meth:`forward_cost` runs the heads.
        channel_axis (int): Axis of the channels, counted from the last one.
        predicts_one_by_one (bool): Whether heads refuse larger batches in
            testing.
        input_axes (dict): Names of the axes of the inputs that may have any
            size, by their number; ``height`` and ``width`` as far as the
            padding leaves.

    Raises:
        ConfigError: If frames are listed and the task is not of video, or the
            other way round.
    """

    name: str
    takes_frames = False
    cost_includes_head = True
    channel_axis = -3
    predicts_one_by_one = False
    input_axes: Dict[int, str] = {0: 'batch'}

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

    @classmethod
    def for_model(cls, model: nn.Module) -> Type['Task']:
        """Return the task of a built model: this one, or a special one."""
        del model
        return cls

    @classmethod
    def check_model(cls, model: nn.Module) -> None:
        """Refuse a model of the base class that this task cannot serve.

        Args:
            model (nn.Module): As the stock class built it.

        Raises:
            ConfigError: Names the model, and what is supported.
        """
        del model

    def prepare(self, model: nn.Module) -> None:
        """Let parts of the model follow the active subnet, once.

        Called while it is built: the backbone is slimmable, what follows it
        takes any channels, and neither is verified yet.
        """
        del model

    # ---- Learning

    def supervisions(self, model: nn.Module) -> Tuple[str, ...]:
        """What ``mutual.supervision`` may be; the first is the default.

        Returns:
            tuple[str]: Of ``'kl'`` and ``'label'``.
        """
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

    def map_maker(self, model: nn.Module) -> Optional[nn.Module]:
        """Return the module whose maps ``distill`` compares; None without.

        It returns ``(N, C, height, width)``, or a list of such, one for each
        level of a pyramid, and samples name the ``img_shape`` of each image.
        """
        del model
        return None

    def downstream(self, model: nn.Module) -> Dict[str, nn.Module]:
        """Children that take the backbone's maps, one after the other.

        They are tried at several widths while the model is built.
        """
        neck = getattr(model, 'neck', None)
        return {} if neck is None else {'neck': neck}

    def check_truth(self, model: nn.Module, data_samples: Samples) -> None:
        """Refuse a training batch that the model cannot learn from.

        Stock heads name the truth that they miss.

        Raises:
            ConfigError: If it is no distribution for KL.
        """
        if model.supervision != 'kl':
            return
        why = self._why_no_distribution(model, data_samples)
        if why is not None:
            raise ConfigError(
                f'{why}: classes that do not exclude each other are no '
                "distribution for KL, use mutual.supervision='label'"
            )

    def _why_no_distribution(
        self, model: nn.Module, data_samples: Samples
    ) -> Optional[str]:
        """Why a batch has none; None where it does."""
        del data_samples
        if 'kl' in self.supervisions(model):
            return None
        head = self.head(model)
        parts = ', '.join(type(m).__name__ for m in head.children())
        return (
            f'the head, {type(head).__name__}({parts}), was changed after the '
            'build, as hooks do'
        )

    def has_boxes(self, data_samples: Samples) -> Optional[bool]:
        """Whether a training batch has objects whose boxes are learned.

        None where none are learned at all.
        """
        del data_samples
        return None

    # ---- Batches

    def check_full(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse a batch that cannot be brought to other resolutions.

        Another size than the full resolution is no reason: training at
        several scales, on crops or on mosaics delivers them.

        Raises:
            ConfigError: Names what came, and the step to change.
        """
        del model, inputs, data_samples

    def check_test(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Refuse a test batch, as :meth:`check_full`."""
        self.check_full(model, inputs, data_samples)

    def check_channels(self, model: nn.Module, inputs: Tensor) -> None:
        """Refuse a batch of other channels than the network takes.

        Raises:
            ConfigError: Names both.
        """
        takes = self.input_channels(model)
        found = inputs.shape[self.channel_axis]
        if found != takes:
            raise ConfigError(
                f'the pipeline delivers inputs of {found} channels, but the '
                f'network takes {takes}: set color_type of the step that '
                'loads them, and mean and std of data_preprocessor, or '
                f'in_channels={found} of the backbone'
            )

    def check_large(self, inputs: Tensor) -> None:
        """Refuse test inputs that are smaller than the full resolution.

        Larger ones are as good: networks are often tested on larger crops
        than they were trained on.
        """
        full, size = self.space.full.resolution, inputs.shape[-2:]
        if max(size) < full:
            raise ConfigError(
                f'the test pipeline delivers {size[0]} x {size[1]} inputs, '
                f'but the full resolution is {full}: crop or resize to '
                f'{full}, or set another mutual.resolution[0]'
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
        its device. What is given is not changed, nor is it by what a pass
        writes into the samples that it gets.

        Args:
            model (nn.Module): Its data preprocessor pads and normalises.
            inputs (Tensor): Preprocessed batch at the full resolution.
            data_samples (Sequence): One for each input.
            subnet (Subnet): Names the resolution.
            with_truth (bool): Whether to resize the ground truth too, for
                training. Defaults to False.
        """
        resolution = subnet.resolution
        if resolution != self.space.full.resolution and carries(
            data_samples, resolution, with_truth
        ):
            return carried_batch(model, data_samples, resolution, with_truth)
        samples = own_samples(data_samples, with_truth)
        if resolution == self.space.full.resolution:
            return inputs, samples
        return self.interpolate(model, inputs, samples, resolution, with_truth)

    def interpolate(
        self,
        model: nn.Module,
        inputs: Tensor,
        data_samples: Samples,
        resolution: int,
        with_truth: bool,
    ) -> Batch:
        """Return the batch at another resolution than the full one.

        Args:
            model (nn.Module): Its data preprocessor pads.
            inputs (Tensor): Preprocessed batch at the full resolution; it
                must not be changed.
            data_samples (Sequence): This pass's own: they may be written into.
            resolution (int): The new one.
            with_truth (bool): Whether the ground truth is rescaled, too.
        """
        raise NotImplementedError(type(self).__name__)

    # ---- Running parts of the model

    def forward_batch_norms(
        self, model: nn.Module, inputs: Tensor, data_samples: Samples
    ) -> None:
        """Forward through every batch norm, for calibration.

        Labels must not be used: they need not be there, and are not of the
        resolution of the inputs.
        """
        del data_samples
        with torch.no_grad():
            model.extract_feat(inputs)

    def forward_cost(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run the part of the network whose MACs are a subnet's cost."""
        return model(inputs, mode='tensor')

    def forward_sliced(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run every layer whose sizes depend on the backbone's width."""
        return self.forward_cost(model, inputs)

    def runs_heads(self, model: nn.Module) -> bool:
        """Whether :meth:`forward_sliced` runs heads on maps that narrow."""
        del model
        return False

    def check_static(self, model: nn.Module) -> None:
        """Refuse a model where :meth:`forward_sliced` misses such layers."""
        del model

    def forward_whole(self, model: nn.Module, inputs: Tensor) -> Any:
        """Run the network with its heads, on inputs alone.

        Returns:
            What the heads return; None, and nothing is run, where what they
            compute depends on what is found in an image.
        """
        return self.forward_cost(model, inputs)

    @staticmethod
    def batch_norms_outside(model: nn.Module, names: Sequence[str]) -> bool:
        """Whether a batch norm lives in another child than ``names``."""
        return any(
            name.split('.')[0] not in names
            for name, _ in slim_batch_norms(model)
        )

    # ---- Predictions

    def probabilities(
        self, model: nn.Module, data_samples: Samples
    ) -> Optional[Tensor]:
        """How probable each class is, by what was predicted.

        Args:
            model (nn.Module): That predicted, or whose subnet did.
            data_samples (Sequence): Predictions; there is at least one.

        Returns:
            Tensor or None: (N, classes), of sum 1. None where classes do not
            exclude each other, or are not predicted for the whole input: then
            the network has no cascades.
        """
        del model, data_samples
        return None

    # ---- Inputs

    def input_shape(
        self, model: nn.Module, subnet: Subnet, image_shape: Optional[Size]
    ) -> Tuple[int, ...]:
        """Shape of the batch of one that the network sees for an image.

        Args:
            model (nn.Module): Whose task it is.
            subnet (Subnet): Names the resolution.
            image_shape (tuple[int], optional): Height and width that the
                pipeline delivers for the full network, of images without
                the padding of the batch. None stands for the task's own
                default.
        """
        raise NotImplementedError(type(self).__name__)

    def input_channels(self, model: nn.Module) -> int:
        """Channels of an image, as the backbone takes them."""
        return model.backbone.slim_joints.input_shape[1]

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

    def shorten(self, inputs: Tensor) -> Tensor:
        """Keep what is needed of a batch to compare two networks on it."""
        return inputs

    def describe_inputs(self, model: nn.Module) -> Dict[str, Any]:
        """Say how inputs are made that a program takes, beside normalising.

        Returns:
            dict: Text, numbers and lists, for the metadata of an export.
        """
        del model
        return {}
