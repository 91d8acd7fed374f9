# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Any stock convolutional backbone, slimmable."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional, Union

from torch import nn

from ...errors import ConfigError
from ...registry import MODELS, ClassTable
from ...slimmable import (
    LayerRule,
    SlimState,
    convert,
    sort_channels,
    verify_slicing,
)
from ...slimmable.joints import Joints
from ...slimmable.known import defers_joints
from .. import layers as layers  # registers them
from ..checkpoints import load_backbone, split_pretrained, split_sort
from ..layers.non_local import narrow_gaussians
from ..sorting import check_alone, log_sorted
from ..wraps import Stock, find_class, mix, stock_arguments

Rules = Dict[str, LayerRule]


class SlimmableMixin(Stock):
    """Makes the stock backbone that it is mixed into slimmable.

    Args:
        max_width (float): Width that the backbone's own arguments build; a
            range such as ``[1.0, 2.0]`` needs a backbone built twice as wide
            and ``max_width=2.0``. Defaults to 1.0.
        rounding (str): Rounding policy, ``'paper'`` or ``'hardware'``.
            Defaults to ``'paper'``.
        init_cfg (dict or list[dict], optional): As for the stock class, but
            ``dict(type='Pretrained', checkpoint=PATH)`` loads strictly, and
            ``checkpoint=None`` means from scratch. With ``sort='bn'`` or
            ``'l1'``, channels are then sorted, see
            :func:`~mutualnet_mm.slimmable.sort_channels`. Defaults to the
            stock class's own.

    Attributes:
        sort_by (str, optional): That ``sort``; None if there is none.
        sorts_alone (bool): Whether the backbone sorts its channels itself,
            which leaves those of its outputs as they are. The model sorts
            them where it knows what takes them.
        slim_joints (Joints): What was found of its channels, and an input.
            None while a model is built whose channels are known.
        resizes_inside (bool): Whether the backbone reduces resolution and
            frames of its input itself, as the active subnet says.
    """

    prefix = 'Slimmable'
    resizes_inside = False
    sort_by: Optional[str] = None
    sorts_alone = True
    slim_joints: Optional[Joints]

    def __init__(
        self,
        *args: Any,
        max_width: float = 1.0,
        rounding: str = 'paper',
        init_cfg: Union[dict, List[dict], None] = None,
        **kwargs: Any,
    ) -> None:
        stock_init, pretrained = split_pretrained(init_cfg)
        if stock_init is not None:
            kwargs['init_cfg'] = stock_init
        with stock_arguments(self):
            super().__init__(*args, **kwargs)
        self._pretrained = pretrained
        if pretrained is not None:
            self._pretrained, self.sort_by = split_sort(pretrained)
        self.slim_state = SlimState(max_width, rounding)
        self.make_slim()
        self.slim_joints = None if defers_joints() else self.verify_slicing()
        self._register_state_dict_hook(_save_rounding)

    def make_slim(self) -> None:
        """Make the layers of the stock backbone slim, once it is built."""
        rules = find_family(type(self)).rules(self)
        narrow_gaussians(self)
        convert(self, self.slim_state, rules)

    def verify_slicing(self) -> Joints:
        """Find the joints, and prove that the backbone narrows.

        Raises:
            ConfigError: If it does not; names the layer.
        """
        return verify_slicing(self, frames=self.trial_frames)

    @property
    def frame_stride(self) -> int:
        """int: Frames of the input for each frame of a subnet."""
        return 1

    @property
    def trial_frames(self) -> int:
        """int: Frames of the clip that a 3D network is verified on."""
        return max(8, self.frame_stride)

    def init_weights(self) -> None:
        """Initialise as the stock class does, load ``Pretrained`` and sort."""
        if self.sort_by is not None and self._pretrained is not None:
            full = self.slim_state.max_width
            check_alone(self._pretrained['checkpoint'], full)
        self._load_initial()
        if self.sort_by is not None and self.sorts_alone:
            frames = self.trial_frames
            log_sorted(sort_channels(self, self.sort_by, frames=frames))

    def _load_initial(self) -> None:
        super().init_weights()
        if self._pretrained is not None:
            load_backbone(self, **self._pretrained)

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        saved = local_metadata.get('rounding', self.slim_state.rounding)
        if saved != self.slim_state.rounding:
            raise ConfigError(
                f'the checkpoint was trained with rounding={saved!r}, this '
                f'network has {self.slim_state.rounding!r}: set '
                f'mutual.rounding={saved!r}'
            )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args
        )


def _save_rounding(
    module: nn.Module, state_dict: dict, prefix: str, local_metadata: dict
) -> None:
    # Beside the weights in ``state_dict._metadata``: no key of its own that
    # would stop the stock class from loading strictly.
    del state_dict, prefix
    local_metadata['rounding'] = module.slim_state.rounding


class Family(NamedTuple):
    """What is special about backbones that are built alike."""

    rules: Callable[[nn.Module], Rules]
    mixin: type


_FAMILIES: ClassTable[Family] = ClassTable()
_PLAIN = Family(lambda backbone: {}, SlimmableMixin)


def family(class_name: str, mixin: type = SlimmableMixin) -> Callable:
    """Register a function that returns the layer rules of a family.

    Args:
        class_name (str): Found along the wrapped class's bases, in whichever
            of the projects the class lives.
        mixin (type): What makes them slimmable. Defaults to
            :class:`SlimmableMixin`.
    """

    def register(rules: Callable[[nn.Module], Rules]) -> Callable:
        _FAMILIES.register(class_name, Family(rules, mixin))
        return rules

    return register


def find_family(backbone_class: type) -> Family:
    """Return the family of a class; a plain one without rules if unknown."""
    return _FAMILIES.find(backbone_class) or _PLAIN


@MODELS.register_module()
def Slimmable(
    *, wraps: Union[str, type, None] = None, **kwargs: Any
) -> nn.Module:
    """Build the stock backbone that ``wraps`` names, slimmable.

    The result is an instance of that class with its checkpoint keys, runs
    bit-equal at full width and is proven to narrow to its leading channels
    while it is built.

    Args:
        wraps (str or type): Stock backbone, looked up in the current scope.
        **kwargs: Arguments of the stock class and of
            :class:`SlimmableMixin`.

    Raises:
        ConfigError: If the backbone cannot be slimmed; names the module.
    """
    stock = find_class(wraps, 'model.backbone')
    return mix(find_family(stock).mixin, stock)(**kwargs)
