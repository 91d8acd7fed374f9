# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Attention blocks in convolutional networks.

They sum over the channels that they make inside, which therefore stay whole:
the sums are the full network's. Their input and output follow the width. For
non-local blocks of the mode ``gaussian`` see :mod:`.non_local`.
"""

from ...slimmable import LayerRule, register_inner_rules

_WHOLE = LayerRule(fixed=True)

register_inner_rules(
    'mmcv.cnn.bricks.non_local._NonLocalNd',
    {
        f'{name}.conv': _WHOLE
        for layer in ('g', 'theta', 'phi')
        # Behind which sub-sampling puts a pooling.
        for name in (layer, f'{layer}.0')
    },
)
register_inner_rules(
    'mmcv.cnn.bricks.generalized_attention.GeneralizedAttention',
    {
        name: _WHOLE
        for name in (
            *('query_conv', 'key_conv', 'value_conv'),
            *('appr_geom_fc_x', 'appr_geom_fc_y'),
        )
    },
)
# HorNet's, which splits what its first layer makes into halves of halves.
register_inner_rules(
    'mmpretrain.models.backbones.hornet.gnConv',
    {
        name: _WHOLE
        for name in (
            *('proj_in', 'dwconv'),
            *(f'projs.{i}' for i in range(8)),
        )
    },
)
