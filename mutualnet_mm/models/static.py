# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The static form of a subnet: a stock model at its size, nothing sliced."""

from typing import Any, List, Optional, Union

from torch import nn

from ..registry import MODELS
from ..slimmable import Statistics, make_static, share_weights
from ..slimmable.meta import materialize, weights_on_meta
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
    net: Any = share_weights(model)
    net.eval()  # not chained: stock ``train`` may return nothing
    # For good: a backbone that resizes inside keeps reading it.
    net.slim_state.set(subnet.width, model.input_scale(subnet), subnet.frames)
    make_static(
        net,
        net.task.meta_input(net, subnet),
        forward=net.task.forward_sliced,
        statistics=statistics,
        fuse_bn=fuse_bn,
    )
    for name in _OF_LEARNING:
        net.__dict__.pop(name, None)
    net.__class__ = mix(StaticMixin, type(model).stock_class)
    net.subnet = subnet
    return net


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
    with already_verified(), weights_on_meta():
        model = MutualLearning(**settings)
    net = static_model(model, subnet, None, fuse_bn)
    materialize(net)
    return net
