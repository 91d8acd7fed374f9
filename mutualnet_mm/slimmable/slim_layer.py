# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What all layers have in common that follow a width."""

from typing import (
    Any,
    ClassVar,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .channels import (
    PLAIN,
    LayerRule,
    Layout,
    Ranges,
    active_channels,
    active_ranges,
    channel_index,
    count,
    take,
)
from .kept import KeptParts, Parts, may_be_kept
from .leaves import take_all
from .state import SlimState

_INPUTS = (
    *('in_channels', 'in_features', 'num_features', 'num_channels'),
    'normalized_shape',
)


class SlimLayer(nn.Module):
    """Mixin of all slim layers: the attributes that the swap sets.

    A kind of layer **must** define :meth:`narrowed` and :meth:`set_channels`;
    :attr:`follows` where its output's channels are its input's, else
    :attr:`built`. Where it mixes channels other than by weighted sums (a norm
    over all of them), its :meth:`blind` is :meth:`blind_apart`. Its
    ``forward`` need not be touched: the stock one is run on
    :meth:`stand_in`.

    Attributes:
        tensor_names (tuple[str]): Parameters and buffers that
            :meth:`narrowed` knows.
        inner_rules (dict): Rules of child layers, by name.
        folds (bool): Whether a batch norm behind the layer can be folded into
            its weight.
        any_forward (bool): Whether subclasses of the stock class with a
            ``forward`` of their own become slim, too.
        channel_dim (int): Axis of the channels, in input and output.
        slim_inputs (tuple, optional): Which layers the channels of the input
            come from, see :class:`~.channels.Piece`; None if the active ones
            are the leading ones.
        slim_outputs (tuple, optional): The same of its output: parts that
            narrow for themselves.
        slim_unproven (str): Its name, if the pass that joints were found in
            did not run it: it takes whole inputs alone. Else empty.
        slim_kept (KeptParts, optional): Active parts of earlier passes.
    """

    slim_state: SlimState
    slim_rule: LayerRule = PLAIN
    slim_inputs: Optional[Layout] = None
    slim_outputs: Optional[Layout] = None
    slim_unproven: str = ''
    slim_kept: Optional[KeptParts] = None
    tensor_names: ClassVar[Tuple[str, ...]] = ('weight', 'bias')
    inner_rules: ClassVar[Mapping[str, LayerRule]] = {}
    folds: ClassVar[bool] = False
    any_forward: ClassVar[bool] = False
    channel_dim = 1

    @property
    def follows(self) -> bool:
        """bool: Whether each output channel is kept with one of the input.

        Otherwise it makes channels of its own.
        """
        return False

    def kept_with(self, channels: List[int]) -> List[int]:
        """The input channel that each channel of the output is kept with.

        Of a layer that :attr:`follows`; the same one for each, unless a
        group makes other numbers of channels than it takes.

        Args:
            channels (list[int]): All channels of the input, by any numbers.
        """
        return channels

    @property
    def magnitudes(self) -> Optional[Tensor]:
        """Tensor: Sum of the magnitudes of what makes each output channel.

        Of a layer that does not follow; None if it has no weight.
        """
        weight = self._parameters.get('weight')
        return None if weight is None else weight.abs().flatten(1).sum(1)

    @property
    def is_widest(self) -> bool:
        """Whether the stock ``forward``, with its own checks, is due."""
        return self.slim_state.width >= self.slim_state.max_width

    @property
    def built_inputs(self) -> Optional[int]:
        """int: Channels of the input that it was built for.

        None where no attribute of the stock layer says it.
        """
        for name in _INPUTS:
            size = getattr(self, name, None)
            if size is not None:
                return size[0] if isinstance(size, tuple) else size
        return None

    @property
    def input_multiple(self) -> int:
        """int: The input's channels have to be a multiple of it."""
        return 1

    @property
    def parts(self) -> int:
        """int: Equal parts of input and output that narrow each."""
        return 1

    @property
    def input_parts(self) -> int:
        """int: Those of the input, where the output has others."""
        return self.parts

    @staticmethod
    def members(names: Sequence[str]) -> Dict[str, Any]:
        """Members of a class whose stock class has a ``forward`` of its own.

        Args:
            names (Sequence[str]): ``['forward']``, or empty if it has not.
        """
        return dict(forward=SlimLayer.forward, folds=False) if names else {}

    @property
    def built(self) -> int:
        """int: Channels that the layer makes at the widest setting."""
        raise NotImplementedError(type(self).__name__)

    @classmethod
    def refusal(cls, layer: Any) -> str:
        """Why a stock layer of this kind cannot narrow; empty if it can."""
        del layer
        return ''

    def axis(self, args: Tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
        """Axis of the channels in one run.

        Args:
            args (tuple): What ``forward`` is given after the input.
            kwargs (dict): The same by name.
        """
        del args, kwargs
        return self.channel_dim

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Run the stock ``forward`` at the active width.

        Args:
            x (Tensor): The active channels alone.
            *args: As the stock layer takes them.
            **kwargs: As the stock layer takes them.
        """
        layer = self
        if not self.is_widest:
            layer = self.stand_in(x.shape[self.axis(args, kwargs)])
        return super(SlimLayer, layer).forward(x, *args, **kwargs)

    def stand_in(self, inputs: int) -> 'SlimLayer':
        """Return a layer of the active sizes, to run its stock ``forward``.

        It shares all but sizes, parameters and buffers, and is this layer
        itself where those are whole. Nothing of this layer is changed:
        another thread may be running it.

        Args:
            inputs (int): Channels of the input.
        """
        active = self.narrowed(inputs)
        shapes = [
            (part.shape, getattr(self, name).shape)
            for name, part in active.items()
            if part is not None
        ]
        if shapes and all(part == whole for part, whole in shapes):
            return self
        outputs = self.makes(inputs)
        layer: Any = object.__new__(type(self))
        own = vars(layer)
        own.update(vars(self))
        for group in ('_parameters', '_buffers'):
            tensors = own[group]
            own[group] = {
                name: active.get(name, tensors[name]) for name in tensors
            }
        layer.set_channels(inputs, outputs)
        return layer

    def narrowed(self, inputs: int) -> Dict[str, Optional[Tensor]]:
        """Parameters and buffers at the active width.

        Args:
            inputs (int): Channels of the input.

        Returns:
            dict: Views or copies, by name; None where the layer has none.
        """
        raise NotImplementedError(type(self).__name__)

    def kept(self, inputs: int, owner: Optional[nn.Module] = None) -> Parts:
        """:meth:`narrowed`, taken again from an earlier pass if that fits.

        Not where there are gradients; see :mod:`.kept`.

        Args:
            inputs (int): Channels of the input.
            owner (nn.Module, optional): Holds the parameters. Defaults to
                the layer.
        """
        if not may_be_kept():
            return self.narrowed(inputs)
        kept = self.slim_kept
        if kept is None:
            # Past ``nn.Module``, to which it is neither of its kinds.
            kept = self.__dict__['slim_kept'] = KeptParts()
        return kept.get(self, inputs, self if owner is None else owner)

    def set_channels(self, inputs: int, outputs: int) -> None:
        """Say new numbers of channels where the stock layer says its own."""
        raise NotImplementedError(type(self).__name__)

    def blind(self, inputs: int) -> None:
        """Make the layer, run at full width, see the active inputs alone.

        For the proof of :mod:`.verify`; the layer is a copy that nobody else
        uses. Layers that take each channel for itself need not do anything.
        """

    def blind_apart(self, inputs: int) -> None:
        """Be :meth:`blind` by running the active channels apart.

        What the layer gives in other places is zero.
        """
        layer = self.stand_in(inputs)
        if layer is self:
            return
        columns, places = self.columns(inputs), self._places(inputs)

        def apart(
            _: nn.Module, args: Tuple[Any, ...], kwargs: Any, out: Tensor
        ) -> Tensor:
            x, *others = args
            axis = self.axis(tuple(others), kwargs)
            part = super(SlimLayer, layer).forward(
                take(x, columns, axis), *others, **kwargs
            )
            index = channel_index(places, out.device)
            return torch.zeros_like(out).index_copy(axis, index, part)

        self.register_forward_hook(apart, with_kwargs=True)

    def columns(self, inputs: int) -> Ranges:
        """Places of an input's channels among those at the widest setting.

        Raises:
            ConfigError: If they are not as many as the joints say, or if
                nothing is known of them.
        """
        if self.slim_unproven:
            is_whole = self.slim_rule.fixed and inputs == self.built_inputs
            if self.is_widest or is_whole:
                return ((0, inputs),)
            raise ConfigError(
                f'layer "{self.slim_unproven}" did not run while the network '
                'was proven to narrow, so that its channels are not known: '
                'switch off what runs it, such as a branch for training '
                'alone, or, in a model of images, let extract_feat run it'
            )
        if self.slim_inputs is None:
            return ((0, inputs),)
        ranges = self._active(self.slim_inputs)
        if count(ranges) != inputs:
            raise ConfigError(
                f'an input of {inputs} channels came where '
                f'{count(ranges)} are active: something before the layer '
                'joins or splits channels in a way that was not understood'
            )
        return ranges

    def part(
        self, tensor: Optional[Tensor], *ranges: Ranges
    ) -> Optional[Tensor]:
        """Take ``ranges`` along the first axes of a parameter or buffer.

        Where subnets are trained it may be a leaf (:mod:`.leaves`).

        Returns:
            Tensor: A view, a copy, or the tensor itself if that is all of it;
            None of what is missing, such as a bias.
        """
        if tensor is None:
            return None
        neighbours = all(len(kept) == 1 for kept in ranges)
        if neighbours and all(
            kept[0] == (0, size) for kept, size in zip(ranges, tensor.shape)
        ):
            return tensor
        leaves = self.slim_state.leaves
        if (
            leaves is not None
            and neighbours
            and tensor.requires_grad
            and tensor.is_leaf
            and torch.is_grad_enabled()
        ):
            return leaves.make(tensor, ranges)
        return take_all(tensor, ranges)

    def rows(self, channels: int) -> Ranges:
        """Places of the active output channels among ``channels`` built."""
        if self.slim_outputs is None or self.is_widest:
            return ((0, self.active_out(channels)),)
        return self._active(self.slim_outputs)

    def output_ranges(self, inputs: int, outputs: int) -> Ranges:
        """Places of the output's channels among ``outputs`` built."""
        return self.columns(inputs) if self.follows else self.rows(outputs)

    def _places(self, inputs: int) -> Ranges:
        return self.output_ranges(inputs, 0 if self.follows else self.built)

    def makes(self, inputs: int) -> int:
        """Channels of the output of ``inputs`` channels."""
        return count(self._places(inputs))

    def active_out(self, channels: int) -> int:
        """Output channels at the active width, of ``channels`` built."""
        state = self.slim_state
        return active_channels(
            channels,
            state.width,
            state.max_width,
            self.slim_rule,
            state.rounding,
        )

    def _active(self, layout: Layout) -> Ranges:
        state = self.slim_state
        return active_ranges(
            layout, state.width, state.max_width, state.rounding
        )


def active_outputs(convolution: Any) -> int:
    """Output channels of a convolution that the active width leaves.

    For stock modules that count the channels of a layer inside.

    Args:
        convolution (nn.Module): A slim one, or a stock one, as in the static
            form, which has all of its own.
    """
    channels = convolution.out_channels
    if isinstance(convolution, SlimLayer):
        return convolution.active_out(channels)
    return channels


def check_groups(columns: Ranges, width: int) -> None:
    """Refuse input channels that do not fill whole groups of ``width``.

    Raises:
        ConfigError: Says both numbers.
    """
    if any(place % width for range_ in columns for place in range_):
        raise ConfigError(
            f'an input of {count(columns)} channels does not fill whole '
            f'groups of {width}: the layer before must round to a multiple'
        )


def zero_except(weight: Tensor, columns: Ranges, dim: int = 1) -> None:
    """Zero a weight in place but for what meets some input channels."""
    kept = take(weight.detach(), columns, dim).clone()
    index = channel_index(columns, weight.device)
    weight.data.zero_().index_copy_(dim, index, kept)
