# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Mutual learning: a stock model whose ``loss()`` trains many subnets."""

from collections import OrderedDict
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from torch import Tensor, nn

from ..errors import ConfigError
from ..registry import MODELS
from ..slimmable import (
    LayerRule,
    SlimState,
    adopt_sync_batch_norm,
    convert,
    slim_batch_norms,
    slim_states,
    verify_slicing,
)
from ..slimmable.channels import check_rounding
from ..slimmable.convert import stock_name
from ..subnet import Subnet
from .gradients import GradientSum, non_reentrant_checkpointing
from .settings import MutualSettings
from .tasks import SUPPORTED, find_task
from .wraps import Stock, find_class, mix


class MutualLearningMixin(Stock):
    """Trains the model behind it in the class order by mutual learning.

    ``loss()`` draws the subnets of the step, gets the stock model's loss of
    each and returns one loss whose gradients are their sum (Eq. 5). What
    else the stock model does is untouched.

    Args:
        mutual (dict): Settings of the method, see
            :class:`~.settings.MutualSettings`.

    Attributes:
        space (SubnetSpace): The trained subnets.
        task (Task): How inputs are resized and predictions found.
        slim_state (SlimState): The active subnet of the whole model.
    """

    prefix = 'Mutual'

    def __init__(
        self, *args: Any, mutual: Optional[dict], **kwargs: Any
    ) -> None:
        task = find_task(type(self))
        if not args and kwargs.get('backbone') is None:
            raise ConfigError(
                f'wraps={type(self).stock_class.__name__!r} is given no '
                f'model.backbone, which is what gets slimmed: use one of '
                f'{SUPPORTED}'
            )
        super().__init__(*args, **kwargs)
        task.check_model(self)
        settings = MutualSettings.read(mutual)
        self.space = settings.space
        self.sampler = settings.sampler
        self.task = task(self.space)
        self.supervision = self.task.check_supervision(
            self, settings.supervision
        )
        self.slim_state = self._share_state(settings.rounding)
        self._refuse_frozen_batch_norm()
        self._gradients = GradientSum()
        self._own_iteration = 0

    def _share_state(self, rounding: Optional[str]) -> SlimState:
        backbone = getattr(self, 'backbone', None)
        if not hasattr(backbone, 'slim_state'):
            name = type(backbone).__name__
            raise ConfigError(
                f'model.backbone is a plain {name}: use type='
                f"'mutualnet_mm.Slimmable', wraps={name!r}"
            )
        state = slim_states(backbone)[0]
        if self.space.max_width > state.max_width:
            raise ConfigError(
                f'{self.space} goes beyond '
                f"the backbone's max_width={state.max_width}: build a wider "
                'backbone and set its max_width'
            )
        if rounding is not None:
            state.rounding = check_rounding(rounding)
        # Behind the backbone all stays at full width; layers only take the
        # channels that come, and batch norms the subnet's statistics.
        for name, module in self.named_children():
            if name not in ('backbone', 'data_preprocessor'):
                convert(
                    module, state, default=LayerRule(fixed=True), strict=False
                )
        state.set_width(self.space.max_width)
        self._verify_rest()
        return state

    def _verify_rest(self) -> None:
        """Refuse a neck or head that mixes up the channels that come."""
        rest = self.task.downstream(self)
        names = [stock_name(m) for m in rest.values() if [*m.parameters()]]
        if names:
            parts = OrderedDict(backbone=self.backbone, **rest)
            verify_slicing(
                nn.Sequential(parts),
                ' or '.join(names),
                size=64,
                frames=self.backbone.trial_frames,
            )

    def _refuse_frozen_batch_norm(self) -> None:
        mode = self.training
        self.train()
        frozen = [n for n, m in slim_batch_norms(self) if not m.training]
        self.train(mode)
        if frozen and len(self.space.grid()) > 1:
            raise ConfigError(
                f'{len(frozen)} batch norms are frozen ({frozen[0]}, ...), '
                "but the full network's statistics fit no subnet: set "
                'norm_eval=False and frozen_stages=-1 in model.backbone'
            )

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; ``cfg.sync_bn`` has put in stock layers by then."""
        if 'slim_state' in self.__dict__:  # not yet while being built
            adopt_sync_batch_norm(self, self.slim_state)
        return super().train(mode)

    def switch(self, subnet: Subnet) -> None:
        """Make ``subnet`` what the layers read, see :meth:`activate`."""
        state = self.slim_state
        state.set_width(subnet.width)
        state.scale = subnet.resolution / self.space.full.resolution
        state.frames = subnet.frames

    @contextmanager
    def activate(
        self, subnet: Union[str, Subnet], track_stats: bool = False
    ) -> Iterator[None]:
        """Run as ``subnet`` for the length of a ``with`` block.

        This sets what the layers read. What runs inside has to bring its
        inputs to the subnet's resolution (``task.resize``) and, in
        evaluation, to use the subnet's statistics
        (:func:`~mutualnet_mm.engine.calibrate`,
        :func:`~mutualnet_mm.slimmable.use_statistics`), as the loops do.
        """
        subnet = Subnet.parse(subnet)
        scale = subnet.resolution / self.space.full.resolution
        with self.slim_state.activate(
            subnet.width, scale, subnet.frames, track_stats
        ):
            yield

    def loss(self, inputs: Any, data_samples: Any, **kwargs: Any) -> dict:
        """Losses of all subnets of this step, as the stock ``loss()`` does.

        Returns:
            dict: The full network's losses under their stock names (detached),
            the total of each other subnet (``min/total``, ``rand1/total``),
            and ``loss_mutual``: what these totals add to the full network's,
            carrying the gradients of all.
        """
        if not torch.is_grad_enabled():
            return super().loss(inputs, data_samples, **kwargs)
        self.task.check_truth(data_samples)
        self.task.check_full(self, inputs, data_samples)
        gradients, teacher = self._gradients, None
        gradients.start(list(self.parameters()))
        logged: Dict[str, Any] = {}
        rest = torch.zeros(())
        for tag, subnet in self.sampler.sample(self._iteration()).items():
            with self.activate(
                subnet, track_stats=tag == 'full'
            ), non_reentrant_checkpointing(), self._logits() as logits:
                losses = super().loss(
                    *self.task.resize(
                        self, inputs, data_samples, subnet, with_truth=True
                    ),
                    **kwargs,
                )
                if self.supervision == 'kl':
                    prediction = self._prediction(logits)
                    if tag == 'full':
                        teacher = prediction.detach()
                    else:
                        losses = {'loss_kl': _divergence(prediction, teacher)}
                total, _ = self.parse_losses(losses)
                gradients.add(total)
            if tag == 'full':
                logged = {k: _detach(v) for k, v in losses.items()}
                rest = torch.zeros_like(total.detach())
            else:
                logged[f'{tag}/total'] = total.detach()
                rest = rest + total.detach()
        logged['loss_mutual'] = gradients.as_loss(rest)
        return logged

    @contextmanager
    def _logits(self) -> Iterator[List[Tensor]]:
        """Collect the predictions that the stock ``loss()`` makes inside."""
        seen: List[Tensor] = []
        with ExitStack() as stack:
            if self.supervision == 'kl':
                handle = self.task.head(self).register_forward_hook(
                    lambda module, args, out: seen.append(out)
                )
                stack.callback(handle.remove)
            yield seen

    def _prediction(self, seen: List[Any]) -> Tensor:
        if not seen or not isinstance(seen[-1], Tensor):
            raise ConfigError(
                f'the loss of {type(self.task.head(self)).__name__} shows no '
                "class scores to match by KL: use mutual.supervision='label'"
            )
        return seen[-1]

    def _iteration(self) -> int:
        # The runner's own counter, which a resumed run takes up again.
        hub = MessageHub.get_current_instance()
        if 'iter' in hub.runtime_info:
            return int(hub.get_info('iter'))
        self._own_iteration += 1
        return self._own_iteration - 1


def _divergence(logits: Tensor, teacher: Tensor) -> Tensor:
    """KL(softmax(teacher) || softmax(logits)), mean over the batch."""
    return F.kl_div(
        F.log_softmax(logits, dim=1),
        F.softmax(teacher, dim=1),
        reduction='batchmean',
    )


def _detach(value: Union[Tensor, Sequence[Tensor]]) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    return [v.detach() for v in value]


@MODELS.register_module()
def MutualLearning(
    *,
    wraps: Union[str, type, None] = None,
    mutual: Optional[dict] = None,
    **kwargs: Any,
) -> nn.Module:
    """Build the stock model that ``wraps`` names, trained by mutual learning.

    Args:
        wraps (str or type): Stock classifier, detector or recognizer, looked
            up in the current scope.
        mutual (dict): See :class:`~.settings.MutualSettings`.
        **kwargs: Of the stock class; its backbone must be slimmable.

    Raises:
        ConfigError: Names the setting that is wrong and the remedy.
    """
    return mix(MutualLearningMixin, find_class(wraps))(mutual=mutual, **kwargs)
