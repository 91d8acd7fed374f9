# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""PyTorch's own attention with its leading heads."""

import math
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels import take
from .heads import SlimHeads
from .slim_layer import zero_except


class SlimMultiheadAttention(SlimHeads):
    """Mixin of ``nn.MultiheadAttention``.

    What that runs takes no queries of another size than its input's, so
    fewer heads are computed here.
    """

    in_proj_weight: Tensor
    in_proj_bias: Optional[Tensor]

    def forward(  # type: ignore[override]
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor] = None,
        need_weights: bool = True,
        attn_mask: Optional[Tensor] = None,
        average_attn_weights: bool = True,
        **kwargs: Any,
    ) -> Tuple[Tensor, Optional[Tensor]]:
        """Run as the stock module does, with the active heads.

        Args:
            query (Tensor): ``(length, N, channels)``, or the batch first.
            key (Tensor): Likewise.
            value (Tensor): Likewise.
            key_padding_mask (Tensor, optional): ``(N, length of keys)``.
                Defaults to None.
            need_weights (bool): Whether weights are returned, too. Defaults
                to True.
            attn_mask (Tensor, optional): For each query and key; or for each
                head, too: ``(N * heads, ...)``. Defaults to None.
            average_attn_weights (bool): Whether weights are the mean over
                heads. Defaults to True.
            **kwargs: As the stock module takes them.

        Returns:
            tuple: A tensor like ``query``, and weights or None.
        """
        if self.active_heads == self.built_heads:
            return super(SlimHeads, self).forward(
                query,
                key,
                value,
                key_padding_mask=key_padding_mask,
                need_weights=need_weights,
                attn_mask=attn_mask,
                average_attn_weights=average_attn_weights,
                **kwargs,
            )
        q, k, v = self._projected(query, key, value)
        mask = self._mask(key_padding_mask, attn_mask, q)
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            scores = scores if mask is None else scores + mask
            weights = F.dropout(scores.softmax(-1), drop)
            out = weights @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, mask, drop)
        out = out.permute(2, 0, 1, 3).flatten(2)  # (length, N, channels)
        out = F.linear(out, self._columns(), self.out_proj.bias)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return out.transpose(0, 1) if self.batch_first else out, weights

    def narrowed(self) -> Dict[str, Tensor]:
        """See :meth:`SlimHeads.narrowed`."""
        rows = self.ranges(len(self.in_proj_weight), 3)
        found = {
            'in_proj_weight': take(self.in_proj_weight, rows),
            'out_proj.weight': self._columns(),
        }
        if self.in_proj_bias is not None:
            found['in_proj_bias'] = take(self.in_proj_bias, rows)
        return found

    def settle(self) -> None:
        """See :meth:`SlimHeads.settle`."""
        super().settle()
        self.out_proj.in_features = self.out_proj.weight.shape[1]

    def blind(self) -> None:
        """See :meth:`SlimHeads.blind`."""
        weight = self.out_proj.weight
        zero_except(weight, self.ranges(weight.shape[1]))

    def _columns(self) -> Tensor:
        weight = self.out_proj.weight
        return take(weight, self.ranges(weight.shape[1]), 1)

    def _projected(self, *inputs: Tensor) -> List[Tensor]:
        """Queries, keys and values, ``(N, heads, length, channels)``."""
        active = self.narrowed()
        biases: Any = active.get('in_proj_bias')
        biases = (None,) * 3 if biases is None else biases.chunk(3)
        weights = active['in_proj_weight'].chunk(3)
        found = []
        for x, weight, bias in zip(inputs, weights, biases):
            x = x.transpose(0, 1) if self.batch_first else x
            made = F.linear(x, weight, bias)
            made = made.unflatten(-1, (self.active_heads, -1))
            found.append(made.permute(1, 2, 0, 3))
        return found

    def _mask(
        self, padding: Optional[Tensor], pairs: Optional[Tensor], like: Tensor
    ) -> Optional[Tensor]:
        """What is added to the scores, ``(N, heads, queries, keys)``."""
        if padding is not None:
            padding = padding[:, None, None]
        if pairs is not None and pairs.dim() == 3:
            pairs = pairs.unflatten(0, (-1, self.built_heads))
            pairs = pairs[:, : self.active_heads]
        masks = [
            torch.zeros_like(mask, dtype=like.dtype).masked_fill(
                mask, -math.inf
            )
            if mask.dtype == torch.bool
            else mask
            for mask in (padding, pairs)
            if mask is not None
        ]
        return sum(masks[1:], masks[0]) if masks else None
