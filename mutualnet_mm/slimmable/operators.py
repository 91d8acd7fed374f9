# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Operators of ATen by what they do to channels.

By their names without a trailing underscore. Most of those that compute each
value from values of the same place need no list, since PyTorch tags them;
:data:`ELEMENTWISE` has the others.
"""

from typing import Any

MOVING = frozenset(
    """
    alias as_strided cat channel_shuffle chunk clone constant_pad_nd
    contiguous detach expand flip im2col index_select narrow
    native_channel_shuffle permute pixel_shuffle pixel_unshuffle
    reflection_pad1d reflection_pad2d reflection_pad3d repeat
    replication_pad1d replication_pad2d replication_pad3d reshape
    roll select slice split split_with_sizes squeeze stack t
    transpose unbind unfold unsafe_split unsqueeze view
    _reshape_alias _unsafe_view
    """.split()  # noqa: SIM905
)
"""They move values about, and change none."""

NORMS = frozenset(
    """
    native_batch_norm native_group_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training
    """.split()  # noqa: SIM905
)
"""Norms whose weights lie along the second axis of what they normalise."""

ELEMENTWISE = frozenset(
    """
    _to_copy bernoulli celu elu hardshrink hardsigmoid hardswish hardtanh
    leaky_relu log_sigmoid_forward mish native_dropout relu6 selu silu
    softplus softshrink threshold
    """.split()  # noqa: SIM905
)
"""They compute each value from that of one place, and have no tag, or none in
PyTorch 2.1."""

_OTHERS = ('_log_softmax', '_softmax', 'cumsum', '_prelu_kernel')

PLACEWISE = {*NORMS, *ELEMENTWISE, *_OTHERS, 'native_layer_norm'}
"""What they compute lies where the values were that it is computed from."""

_POOLING = ('_adaptive', 'adaptive', 'avg_pool', 'max_pool', 'upsample')

RESAMPLING = (*_POOLING, '_upsample', 'grid_sampler')
"""First parts of the names of those that have other places, each channel for
itself."""

REDUCING = frozenset(
    """
    amax amin linalg_vector_norm logsumexp max mean min norm std sum
    var var_mean
    """.split()  # noqa: SIM905
)
"""They take axes together."""

PRODUCTS = dict(mm=(0, 1), bmm=(0, 1), addmm=(1, 2), baddbmm=(1, 2))
"""Products of matrices: which two of the arguments are multiplied."""


def convolves_each(func: Any, args: Any) -> bool:
    """Whether it is a convolution that keeps channels apart."""
    if func.overloadpacket.__name__ != 'convolution':
        return False
    return args[8] == args[0].shape[1] == args[1].shape[0]
