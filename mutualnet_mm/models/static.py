# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The static form of a subnet: a stock model at its size, nothing sliced."""

from typing import Any, List, Optional, Union

from torch import nn

from ..registry import MODELS
from ..slimmable import Statistics, make_static, share_weights
from ..slimmable.known import given_channels
from ..slimmable.meta import creates_on_meta, materialize, weights_on_meta
from ..slimmable.static import StaticSizes, static_sizes
from ..slimmable.verify import already_verified
from ..subnet import Subnet
from .mutual import MutualLearning, MutualLearningMixin
from .wraps import Stock, mix

# What only a network of many subnets needs.
_OF_LEARNING = (
    *('sampler', 'supervision', 'learning', '_teacher'),
    *('_gradients', '_steps'),
    *('_built', '_first_batch_checked', '_depth', '_loaded'),
)


class StaticMixin(Stock):
    """Makes the stock model that it is mixed into run one subnet.

    Pipelines deliver the full resolution, as for the network of all subnets:
    inputs are resized here. So stock test pipelines and inferencers work
    unchanged. Made by :func:`static_model`.

    Attributes:
        subnet (Subnet): The only one there is.
        space (SubnetSpace): Those of the network that it was cut from.
        task (Task): How inputs are resized.
    """

    prefix = 'Static'

    subnet: Subnet

    def forward(
        self,
        inputs: Any,
        data_samples: Optional[List] = None,
        mode: str = 'tensor',
        **kwargs: Any,
    ) -> Any:
        """Run as the stock model does.

        Args:
            inputs (Tensor): Preprocessed, of the size (and frames) that the
                full network sees. With ``mode='tensor'`` of the subnet's own.
            data_samples (list, optional): One for each input.
            mode (str): ``'tensor'``, ``'predict'`` or ``'loss'``. Defaults
                to ``'tensor'``.
            **kwargs: Arguments of the stock model.

        Raises:
            ConfigError: If the pipeline delivers what cannot be resized.
        """
        if mode != 'tensor':
            is_loss = mode == 'loss'
            check = self.task.check_full if is_loss else self.task.check_test
            check(self, inputs, data_samples)
            inputs, resized = self.task.resize(
                self,
                inputs,
                data_samples,
                self.subnet,
                with_truth=is_loss,
            )
            data_samples = None if data_samples is None else resized
        return super().forward(inputs, data_samples, mode=mode, **kwargs)


def static_model(
    model: MutualLearningMixin,
    subnet: Union[str, Subnet],
    statistics: Optional[Statistics] = None,
    fuse_bn: bool = False,
) -> nn.Module:
    """Return the static form of a subnet of ``model``, in evaluation mode.

    Weights that the subnet has narrower are copied, all others share their
    memory with ``model``, which is not changed. Deep-copy it to train it.

    Args:
        model (MutualLearningMixin): With its weights.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        statistics (dict, optional): Statistics of the subnet's batch norms.
            Defaults to the leading running ones, which are the full network's.
        fuse_bn (bool): Fold batch norms into convolutions. Defaults to False.

    Raises:
        ConfigError: If the subnet is outside of what ``model`` is trained
            for, or the model has no static form.
    """
    subnet = model.space.check(subnet)
    model.task.check_static(model)
    net = share_weights(model)
    _settle(net, subnet, statistics, fuse_bn)
    return net


def sizes_of(model: MutualLearningMixin, subnet: Subnet) -> StaticSizes:
    """What :func:`static_model` finds out first; the model is not changed."""
    net: Any = share_weights(model)
    _activate(net, subnet)
    task = net.task
    return static_sizes(
        net, task.meta_input(net, subnet), forward=task.forward_sliced
    )


def _activate(net: Any, subnet: Subnet) -> None:
    net.eval()  # not chained: stock ``train`` may return nothing
    # For good: a backbone that resizes inside keeps reading it.
    net.slim_state.set(subnet.width, net.input_scale(subnet), subnet.frames)


def _settle(
    net: Any,
    subnet: Subnet,
    statistics: Optional[Statistics],
    fuse_bn: bool,
    sizes: Optional[StaticSizes] = None,
) -> None:
    """Turn a network of many subnets into one, for good."""
    stock = type(net).stock_class
    _activate(net, subnet)
    make_static(
        net,
        net.task.meta_input(net, subnet),
        forward=net.task.forward_sliced,
        statistics=statistics,
        fuse_bn=fuse_bn,
        sizes=sizes,
    )
    for name in _OF_LEARNING:
        net.__dict__.pop(name, None)
    net.__class__ = mix(StaticMixin, stock)
    net.subnet = subnet


@MODELS.register_module()
def StaticSubnet(
    *,
    wraps: Union[str, type, None] = None,
    subnet: Union[str, Subnet],
    fuse_bn: bool = False,
    verified: bool = False,
    mutual: Optional[dict] = None,
    **kwargs: Any,
) -> nn.Module:
    """Build the static form of one subnet from the config of all.

    A checkpoint of ``mutualnet export`` loads into it strictly.

    Args:
        wraps (str or type): As for :func:`~.mutual.MutualLearning`.
        subnet (str or Subnet): Such as ``'0.7x-160'``.
        fuse_bn (bool): Whether the checkpoint's batch norms are folded.
            Defaults to False.
        verified (bool): Whether the network of all subnets was verified when
            it was trained, as exported configs say: it is not done again
            then, and only the subnet's weights take memory. Defaults to
            False.
        mutual (dict): Settings of the network that it was trained in.
        **kwargs: Arguments of the stock class; its backbone must be
            slimmable.
    """
    settings = dict(kwargs, wraps=wraps, mutual=mutual)
    if not verified:
        return static_model(MutualLearning(**settings), subnet, None, fuse_bn)
    known, loads_weights = given_channels(), creates_on_meta()
    with already_verified(), weights_on_meta():
        net = MutualLearning(**settings)
    net.task.check_static(net)
    sizes = known.sizes if known is not None and known.given else None
    _settle(net, net.space.check(subnet), None, fuse_bn, sizes)
    if not loads_weights:
        materialize(net)
    return net
