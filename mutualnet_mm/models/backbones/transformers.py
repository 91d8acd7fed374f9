# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Vision transformers: a width keeps whole heads and hidden neurons.

As in DynaBERT and MatFormer, every attention keeps its leading heads and every
MLP its leading hidden neurons, while the stream that the blocks add to keeps
all channels: tokens, position embeddings, norms, layer scale and the heads of
a model are the stock ones, and see the same channels at every width.
"""

from typing import Any, Dict, List

import torch
from mmengine.config import ConfigDict
from torch import nn

from ...errors import ConfigError
from ...slimmable import (
    LayerRule,
    SlimLayer,
    active_width,
    convert,
    slim_states,
)
from ...slimmable.convert import restore, stock_name
from ...slimmable.heads import SlimHeads
from ...slimmable.hidden import hidden_layers
from ...slimmable.meta import meta_copy
from ...slimmable.trial import (
    Shape,
    failing_module,
    trial_error,
    trial_shapes,
)
from .attention import swap_heads
from .slimmable import Rules, SlimmableMixin, family, find_family

_WHOLE = LayerRule(fixed=True)


class TransformerMixin(SlimmableMixin):
    """Makes the stock transformer that it is mixed into slimmable.

    Attention classes that :mod:`.attention` does not know stay whole. Which
    layers are hidden is found by tracing (:mod:`...slimmable.hidden`), for
    any kind of block.

    Attributes:
        slim_side (int): Side of the only square that it takes, set where
            there is only one and the stock class does not say it.
    """

    @property
    def trial_frames(self) -> int:
        """int: Those that position encodings are built for, if fixed."""
        frames = getattr(self, 'num_frames', None)
        return frames if isinstance(frames, int) else super().trial_frames

    def make_slim(self) -> None:
        """See :meth:`SlimmableMixin.make_slim`."""
        rules = find_family(type(self)).rules(self)
        heads = swap_heads(self, self.slim_state)
        for name, attention in heads.items():
            for path in attention.heads.makers:
                rules[f'{name}.{path}'] = attention.rule
        convert(self, self.slim_state, rules, _WHOLE, strict=False)
        for attention in heads.values():
            for path in attention.heads.apart:
                restore(attention.get_submodule(path))
        self._narrow_hidden(heads)

    def _load_initial(self) -> None:
        """As the stock class does, which loads weights that it converts.

        Those of another code base, whose names are others
        (``convert_weights``). All others are loaded strictly.
        """
        converts = getattr(self, 'convert_weights', False)
        if self._pretrained is None or not converts:
            super()._load_initial()
            return
        self.init_cfg = ConfigDict(type='Pretrained', **self._pretrained)
        super(SlimmableMixin, self).init_weights()

    def _narrow_hidden(self, heads: Dict[str, SlimHeads]) -> None:
        net: Any = meta_copy(self)
        ran = set()
        for name in heads:
            net.get_submodule(name).register_forward_hook(
                lambda *_, name=name: ran.add(name)
            )
        shapes = trial_shapes(stock_name(self), net, frames=self.trial_frames)
        if len(shapes) == 1:
            self.slim_side = shapes[0][-1]
        like = next(net.parameters())
        x = torch.empty(shapes[0], dtype=like.dtype, device='meta')
        for name in _that_narrow(net, hidden_layers(net, x), shapes[0]):
            self.get_submodule(name).slim_rule = LayerRule()
        for name in heads.keys() - ran:  # others use its weights, whole
            attention = heads[name]
            for path in attention.heads.makers:
                self.get_submodule(f'{name}.{path}').slim_rule = _WHOLE
            attention.leave()


def _that_narrow(net: nn.Module, hidden: List[str], shape: Shape) -> List[str]:
    """Hidden layers but for those whose channels a ``forward`` counts on.

    Such as attention that gives what a convolution makes the shape of tokens.

    Args:
        net (nn.Module): A copy, which is changed.
        hidden (list[str]): Names of its hidden layers.
        shape (tuple[int]): Of an input that it takes.
    """
    state = slim_states(net)[0]
    while hidden:
        for name, layer in net.named_modules():
            if isinstance(layer, SlimLayer) and not layer.slim_rule.heads:
                layer.slim_rule = LayerRule(fixed=name not in hidden)
        with active_width(net, 0.3 * state.max_width):
            error = trial_error(net, shape)
        if error is None:
            break
        inside = f'{failing_module(error, net)}.'
        others = [name for name in hidden if not name.startswith(inside)]
        if len(others) == len(hidden):  # the proof will say what is wrong
            break
        hidden = others
    return hidden


def transformer_rules(backbone: nn.Module) -> Rules:
    """No rules by name: hidden layers and heads are found."""
    del backbone
    return {}


for _name in (
    # Of mmpretrain, mmdet and mmaction2, where these have the same name.
    *('BEiTViT', 'DeiT3', 'HiViT', 'ViTEVA02', 'ViTSAM', 'VisionTransformer'),
    *('DaViT', 'MixMIMTransformer', 'MViT', 'PCPVT', 'SwinTransformer'),
    *('SwinTransformerV2', 'T2T_ViT', 'TNT', 'XCiT'),
    *('Conformer', 'EdgeNeXt', 'EfficientFormer', 'LeViT', 'MobileViT'),
    *('TinyViT', 'MlpMixer'),
    'PyramidVisionTransformer',
    *('SwinTransformer3D', 'TimeSformer', 'UniFormer', 'UniFormerV2'),
):
    family(_name, TransformerMixin)(transformer_rules)


class VigMixin(TransformerMixin):
    """Makes the stock vision GNN that it is mixed into slimmable.

    Its stem learns unless ``frozen_stages`` says otherwise. That of the stock
    class never collects statistics, whatever is set.
    """

    def _freeze_stages(self) -> None:
        mode = self.training
        super()._freeze_stages()
        if self.frozen_stages <= 0:
            self.stem.train(mode)


for _name in ('PyramidVig', 'Vig'):
    family(_name, VigMixin)(transformer_rules)


@family('RevVisionTransformer', TransformerMixin)
def reversible_rules(backbone: nn.Module) -> Rules:
    """As for others; refuses a backward pass of the network's own.

    It writes gradients past the ones that are summed over subnets.
    """
    if not backbone.no_custom_backward:
        raise ConfigError(
            'RevVisionTransformer computes its gradients itself, so that they '
            'could not be summed over subnets: set no_custom_backward=True'
        )
    return {}
