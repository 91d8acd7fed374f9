# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The attention classes whose heads can be told apart, by name.

Whoever inherits the ``forward`` of one is one of them.
"""

from typing import Any, Callable, Dict, NamedTuple, Optional, Union

from torch import nn

from ...slimmable import SlimState
from ...slimmable.heads import BiasedHeads, Heads, SlimHeads
from ...slimmable.multihead_attention import SlimMultiheadAttention
from ..wraps import swap

_Find = Union[Heads, Callable[[Any], Optional[Heads]]]


class _Kind(NamedTuple):
    heads: Callable[[Any], Optional[Heads]]
    mixin: type


_KINDS: Dict[str, _Kind] = {}


def register_heads(
    class_name: str,
    heads: _Find,
    mixin: type = SlimHeads,
) -> None:
    """Say where an attention class keeps what is its heads'.

    Args:
        class_name (str): With its module, such as
            ``'project.module.Attention'``; it need not be installed. It has
            to be the class that defines ``forward``, and instances have the
            number of heads in ``num_heads``.
        heads (Heads or Callable): Or a function of the module that returns
            it; None if this one cannot narrow.
        mixin (type): What makes it slim. Defaults to :class:`SlimHeads`.
    """
    if isinstance(heads, Heads):
        _KINDS[class_name] = _Kind(lambda attention: heads, mixin)
    else:
        _KINDS[class_name] = _Kind(heads, mixin)


def swap_heads(module: nn.Module, state: SlimState) -> Dict[str, SlimHeads]:
    """Make attention in ``module`` run its leading heads, by class swaps.

    Args:
        module (nn.Module): Changed in place.
        state (SlimState): Shared by all.

    Returns:
        dict: The swapped modules, by name.
    """
    found = {}
    for name, attention in module.named_modules():
        stock: Any = type(attention)
        owner = next(c for c in stock.__mro__ if 'forward' in vars(c))
        kind = _KINDS.get(f'{owner.__module__}.{owner.__qualname__}')
        heads = kind.heads(attention) if kind else None
        if kind and heads and attention.num_heads > 1:
            swap(attention, kind.mixin)
            attention.follow(heads, state)
            found[name] = attention
    return found


_PRETRAIN = 'mmpretrain.models.backbones'
_UTILS = 'mmpretrain.models.utils.attention'
_ACTION = 'mmaction.models.backbones'
_WINDOWS = Heads(
    tensors=dict(relative_position_bias_table=1), reads_input=True
)
_SIZED = Heads(sizes=('num_heads', 'embed_dims'))
_POOLED = Heads(
    sizes=('num_heads', 'out_dims'),
    apart=('pool_q', 'pool_k', 'pool_v', 'norm_q', 'norm_k', 'norm_v'),
)
_PLAIN = Heads()


def _with_biases(attention: nn.Module) -> Heads:
    """Biases of queries and values alone, added by hand."""
    by_hand = getattr(attention, 'q_bias', None) is not None
    return Heads(
        tensors=dict(relative_position_bias_table=1, q_bias=0, v_bias=0),
        arguments=dict(rel_pos_bias=0),
        reads_input=True,
        reads_weights=('qkv',) if by_hand else (),
    )


def _of_torch(attention: Any) -> Optional[Heads]:
    """Only where queries, keys and values are made of the same size."""
    alike = attention._qkv_same_embed_dim and attention.bias_k is None
    return Heads(makers={}) if alike and not attention.add_zero_attn else None


_NAMED: Dict[str, _Find] = {
    f'{_UTILS}.MultiheadAttention': _SIZED,
    f'{_UTILS}.ChannelMultiheadAttention': Heads(
        sizes=('num_heads', 'embed_dims'), tensors=dict(scale=0)
    ),
    f'{_UTILS}.WindowMSA': _WINDOWS,
    'mmdet.models.backbones.swin.WindowMSA': _WINDOWS,
    f'{_PRETRAIN}.mixmim.MixMIMWindowAttention': _WINDOWS,
    f'{_PRETRAIN}.hivit.Attention': _WINDOWS,
    f'{_PRETRAIN}.davit.DaViTWindowMSA': _WINDOWS,
    f'{_ACTION}.swin.WindowAttention3D': _WINDOWS,
    f'{_ACTION}.uniformer.Attention': _WINDOWS,
    f'{_PRETRAIN}.davit.ChannelAttention': _SIZED,
    f'{_UTILS}.WindowMSAV2': Heads(
        makers={'qkv': 3, 'cpb_mlp.2': 1},
        tensors=dict(logit_scale=0, q_bias=0, v_bias=0),
        reads_input=True,
        reads_weights=('qkv',),
    ),
    f'{_UTILS}.BEiTAttention': _with_biases,
    f'{_ACTION}.vit_mae.Attention': _with_biases,
    f'{_PRETRAIN}.vit_eva02.AttentionWithRoPE': _PLAIN,
    f'{_PRETRAIN}.vit_sam.Attention': _PLAIN,
    f'{_PRETRAIN}.mvit.MultiScaleAttention': _POOLED,
    f'{_ACTION}.mvit.MultiScaleAttention': _POOLED,
    f'{_PRETRAIN}.xcit.XCA': Heads(
        tensors=dict(temperature=0), reads_input=True
    ),
    f'{_PRETRAIN}.xcit.ClassAttntion': Heads(
        makers=dict(q=1, k=1, v=1), reads_input=True
    ),
}
for _name, _heads in _NAMED.items():
    register_heads(_name, _heads)

for _name, _makers in {
    f'{_UTILS}.LeAttention': {'qkv': 1},
    f'{_PRETRAIN}.efficientformer.AttentionWithBias': {'qkv': 1},
    f'{_PRETRAIN}.levit.Attention': {'qkv.linear': 1},
    f'{_PRETRAIN}.levit.AttentionSubsample': {'kv.linear': 1, 'q.1.linear': 1},
}.items():
    # Queries, keys and values of a head are in a row.
    _row = Heads(
        makers=_makers,
        sizes=('num_heads', 'dh'),
        tensors=dict(attention_biases=0),
    )
    register_heads(_name, _row, BiasedHeads)

register_heads(
    'torch.nn.modules.activation.MultiheadAttention',
    _of_torch,
    SlimMultiheadAttention,
)
