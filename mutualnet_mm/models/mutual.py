# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Mutual learning: a stock model whose ``loss()`` trains many subnets."""

import logging
import math
from contextlib import ExitStack, contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from ..errors import UsageError
from ..registry import MODELS
from ..slimmable import (
    BuiltLayers,
    Statistics,
    use_statistics,
)
from ..slimmable.known import take_known
from ..slimmable.ranks import agree
from ..slimmable.verify import already_verified
from ..subnet import Subnet
from .feature_maps import check_maps, taken_maps
from .gradients import GradientSum, non_reentrant_checkpointing
from .head_state import unchanged_heads
from .kernels import check_compiled, warn_of_benchmark
from .layer_checks import check_frozen, check_layers, check_trained_layers
from .learned_boxes import LearnedBoxes
from .losses import DIVERGENCES, detached, log_key
from .predictions import check_alike, class_scores, loss_weight, outputs_of
from .regularization import check_regularized, check_unmixed, unregularized
from .resolution_norms import (
    ResolutionNorms,
    add_resolution_norms,
    check_reducer,
)
from .settings import MutualSettings
from .shared_width import share_width
from .size_checks import check_sizes
from .sized_buffers import layers_with_buffers, same_buffers
from .sorting import SortsChannels
from .steps import StepCounter
from .tasks import check_backbone, find_task
from .teachers import KeepsTeacher, save_teacher
from .trained_widths import TrainedWidths, name_random, save_widths
from .wrappers import check_whole
from .wraps import find_class, mix, stock_arguments


class MutualLearningMixin(
    TrainedWidths, KeepsTeacher, ResolutionNorms, SortsChannels
):
    """Trains the stock model that it is mixed into by mutual learning.

    ``loss()`` draws the subnets of the step, gets the stock model's loss of
    each and returns one loss whose gradients are their sum (Eq. 5). What
    else the stock model does is untouched.

    Args:
        mutual (dict): Settings of the method, see
            :class:`~.settings.MutualSettings`.

    Attributes:
        space (SubnetSpace): The trained subnets.
        task (Task): How inputs are resized and predictions found.
        supervision (str): What subnets learn from, ``'kl'`` or ``'label'``.
        learning (Learning): How they do, beyond that.
        slim_state (SlimState): The active subnet of the whole model.
    """

    prefix = 'Mutual'

    def __init__(
        self, *args: Any, mutual: Optional[dict], **kwargs: Any
    ) -> None:
        task = find_task(type(self))
        check_backbone(type(self), args or kwargs.get('backbone'))
        self.take_sort(kwargs)
        # It is verified with the rest, below.
        with stock_arguments(self), already_verified(), take_known() as known:
            super().__init__(*args, **kwargs)
        task = task.for_model(self)
        task.check_model(self)
        settings = MutualSettings.read(mutual)
        self.space = settings.space
        self.sampler = settings.sampler
        self.task = task(self.space)
        self.supervision = self.task.check_supervision(
            self, settings.supervision
        )
        self.learning = settings.learning
        self.learning.check(self.supervision, self.sampler)
        is_known = share_width(self, settings.rounding, known)
        self.share_sort()
        if self.space.norm == 'per-resolution':
            add_resolution_norms(self, self.sampler)
        if self.learning.regularize == 'full':
            check_regularized(self, self._learns_labels)
        self._built = BuiltLayers(self)
        self._sized = layers_with_buffers(self.backbone)
        self._refuse_frozen_batch_norm()
        self._gradients = GradientSum()
        self._learned_boxes = LearnedBoxes(self)
        self._steps = StepCounter()
        self._first_batch_checked = False
        self._depth = 0  # of the own calls that run
        self._teacher = self.learning.make_teacher()
        self._register_state_dict_hook(save_widths)
        self.register_load_state_dict_post_hook(name_random)
        self._register_state_dict_hook(save_teacher)
        if not is_known:  # what was built before runs at its sizes
            check_sizes(self)
        if self.learning.distill:
            check_maps(self)

    @property
    def _learns_labels(self) -> bool:
        """Whether subnets, too, learn from labels."""
        return self.supervision == 'label' or self.learning.label_weight > 0

    def _refuse_frozen_batch_norm(self) -> None:
        mode = self.training
        self.train()
        check_frozen(self, self.sampler, 'of the config')
        self.train(mode)

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode; ``cfg.sync_bn`` has put in stock layers by then."""
        if '_built' in self.__dict__:  # not yet while being built
            self._built.adopt()
        if mode:
            check_compiled(self)
        return super().train(mode)

    @contextmanager
    def activate(
        self,
        subnet: Union[str, Subnet],
        statistics: Optional[Statistics] = None,
        track_stats: bool = False,
    ) -> Iterator[None]:
        """Run as ``subnet`` for the length of a ``with`` block.

        This sets what the layers read. What runs inside has to bring its
        inputs to the subnet's resolution, by ``task.resize``.

        Args:
            subnet (str or Subnet): Such as ``'0.7x-160'``.
            statistics (dict, optional): Those of its batch norms, as
                :func:`~mutualnet_mm.engine.calibrate` finds them. Without
                them the running ones are used, which belong to the full
                network: a narrower one is refused in evaluation mode.
                Defaults to None.
            track_stats (bool): Whether a forward in training mode updates the
                running statistics. Defaults to False.

        Raises:
            UsageError: If layers that the subnet needs were replaced, or if
                ``statistics`` name a layer that does not exist.
        """
        subnet = Subnet.parse(subnet)
        check_layers(self._built, subnet, self.sampler.primary)
        with self.slim_state.activate(
            subnet.width,
            self.input_scale(subnet),
            subnet.frames,
            track_stats,
            running_stats=subnet == self.sampler.primary,
        ), use_statistics(self, statistics), same_buffers(self._sized):
            yield

    def input_scale(self, subnet: Subnet) -> float:
        """Resolution of ``subnet`` over the full one."""
        return subnet.resolution / self.space.full.resolution

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stock model; :meth:`loss` is where subnets are trained.

        Raises:
            UsageError: As :meth:`check_tested`.
        """
        self.check_tested(*args, **kwargs)
        with self._own_call():
            return super().forward(*args, **kwargs)

    def extract_feat(self, *args: Any, **kwargs: Any) -> Any:
        """Run the stock method, for gradients only in an own pass.

        Raises:
            UsageError: If code around the model trains parts of it by itself:
                it would train the full network alone, without an error.
        """
        if self._depth == 0 and self.training and torch.is_grad_enabled():
            raise UsageError(
                f'{type(self).__name__}.extract_feat is called for training '
                'from outside, as models around a detector do that call its '
                'heads themselves (SoftTeacher, QDTrack): only the full '
                'network would learn. Use one that calls loss() '
                '(SemiBaseDetector, ByteTrack), or train the detector alone'
            )
        with self._own_call():
            return super().extract_feat(*args, **kwargs)

    @contextmanager
    def _own_call(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def loss(self, inputs: Any, data_samples: Any, **kwargs: Any) -> dict:
        """Losses of all subnets of this step, as the stock ``loss()`` does.

        Returns:
            dict: The full network's losses under their stock names (detached;
            one named ``loss`` is ``full/loss`` here, since MMEngine calls the
            sum of all so), the total of each other subnet (``min/total``,
            ``rand1/total``), and ``loss_mutual``: what these totals add to
            the full network's, carrying the gradients of all.
        """
        with self._own_call():
            if not torch.is_grad_enabled():
                return super().loss(inputs, data_samples, **kwargs)
            self._check_batch(inputs, data_samples)
            try:
                return self._mutual_loss(inputs, data_samples, **kwargs)
            except BaseException:
                # Who catches an out-of-memory error needs the memory back.
                self._gradients.drop()
                raise

    def _check_batch(self, inputs: Any, data_samples: Any) -> None:
        """Refuse a batch of wrong samples or size.

        The first one is checked by all ranks together: there a wrong config
        shows, and no rank must wait for one that has stopped.
        """
        error: Optional[Exception] = None
        try:
            if not self._first_batch_checked:
                check_whole(self)
                check_trained_layers(self._built, self.sampler)
            self.task.check_truth(self, data_samples)
            self.task.check_channels(self, inputs)
            self.task.check_full(self, inputs, data_samples)
            if self.space.norm == 'per-resolution':
                check_reducer()
            if self.learning.regularize == 'full':
                check_unmixed(self, self._learns_labels)
            if self.training:
                source = 'or hooks that act after the build'
                check_frozen(self, self.sampler, source)
            if self._teacher is not None and not self._first_batch_checked:
                self._teacher.prepare(self, inputs)
        except Exception as found:
            error = found
        if error is not None and self._first_batch_checked:
            raise error
        if not self._first_batch_checked:
            agree(error=error)
            warn_of_benchmark(self.sampler)
            self._first_batch_checked = True

    def _mutual_loss(
        self, inputs: Any, data_samples: Any, **kwargs: Any
    ) -> dict:
        gradients = self._gradients
        gradients.start(list(self.parameters()))
        logged: Dict[str, Any] = {}
        totals: Dict[str, Tensor] = {}
        subnets, weights = self._plan_step()
        self.begin_step(self._steps.step)
        aim: Optional[Sequence[Tensor]] = None
        full_maps: Any = None
        has_objects = self.task.has_boxes(data_samples)
        self._learned_boxes.start(has_objects)
        if self._teacher is not None:
            self._teacher.follow(self, self._steps.step)
            if len(subnets) > 1:
                aim = self._teacher.scores(
                    self, subnets['full'], inputs, data_samples, **kwargs
                )
        for tag, subnet in subnets.items():
            is_full = tag == 'full'
            with self._one_pass(subnet, is_full) as (outputs, maps):
                batch = self.task.resize(
                    self, inputs, data_samples, subnet, with_truth=True
                )
                losses = super().loss(*batch, **kwargs)
                if has_objects:
                    self._learned_boxes.add(subnet, losses)
                if self.supervision == 'kl':
                    prediction = class_scores(outputs, self.task.head(self))
                    if not is_full:
                        losses = self._distilled(prediction, aim, losses)
                    if aim is None or self.learning.teacher == 'next':
                        aim = [score.detach() for score in prediction]
                if self.learning.distill and is_full:
                    full_maps = taken_maps(maps, *batch).detached()
                elif self.learning.distill:
                    distance = taken_maps(maps, *batch).distance(full_maps)
                    distance = distance * self.learning.distill
                    losses = dict(losses, loss_distill=distance)
                total, _ = self.parse_losses(losses)
                gradients.add(total * weights[tag])
            totals[tag] = total.detach()
            if is_full:
                logged = {log_key(k): detached(v) for k, v in losses.items()}
            else:
                logged[f'{tag}/total'] = totals[tag]
        self._report_invalid(subnets, totals)
        rest = sum(
            (totals[tag] * weights[tag] for tag in [*totals][1:]),
            torch.zeros_like(totals['full']),
        )
        if weights['full'] != 1:  # the log has the loss without it
            rest = rest + totals['full'] * (weights['full'] - 1)
        logged['loss_mutual'] = gradients.as_loss(rest)
        return logged

    def _plan_step(self) -> Tuple[Dict[str, Subnet], Dict[str, float]]:
        """Subnets of the next step, as they pass, and weights of losses."""
        learning = self.learning
        step = self._steps.next(is_loaded=self._loaded is not None)
        subnets = learning.ordered(self.sampler.sample(step), self.space)
        ramp = self.sampler.ramp(step, self._steps.length)
        if not ramp:
            subnets = {'full': subnets['full']}
        weights = {
            tag: learning.weight(tag, subnet, self.space.max_width)
            * (1.0 if tag == 'full' else ramp)
            for tag, subnet in subnets.items()
        }
        return subnets, weights

    @contextmanager
    def _one_pass(
        self, subnet: Subnet, is_full: bool
    ) -> Iterator[Tuple[Sequence[Any], List[Any]]]:
        """Run as a subnet of a step; collect predictions, and maps."""
        with ExitStack() as stack:
            stack.enter_context(self.activate(subnet, track_stats=is_full))
            stack.enter_context(non_reentrant_checkpointing())
            if not is_full:
                self.slim_state.leaves = self._gradients.leaves
                stack.enter_context(unchanged_heads(self))
                if self.learning.regularize == 'full':
                    stack.enter_context(unregularized(self))
            outputs: Sequence[Any] = ()
            maps: List[Any] = []
            if self.supervision == 'kl':
                head = self.task.head(self)
                outputs = stack.enter_context(outputs_of(head))
            if self.learning.distill:
                maker = self.task.map_maker(self)
                maps = stack.enter_context(outputs_of(maker))
            yield outputs, maps

    def _distilled(
        self,
        prediction: Sequence[Tensor],
        aim: Any,
        losses: dict,
    ) -> dict:
        """What a subnet learns in place of the stock losses."""
        check_alike(prediction, aim)
        differ = DIVERGENCES[self.learning.divergence]
        loss = sum(differ(*pair) for pair in zip(prediction, aim))
        weight = loss_weight(self.task.head(self))
        found = {f'loss_{self.learning.divergence}': loss * weight}
        if self.learning.label_weight:
            total, _ = self.parse_losses(losses)
            found['loss_label'] = total * self.learning.label_weight
        return found

    def _report_invalid(
        self, subnets: Dict[str, Subnet], totals: Dict[str, Tensor]
    ) -> None:
        """Name the subnets whose loss is not finite, or finds no box.

        Not an error: a gradient scaler skips such a step and recovers, and
        hooks like mmdet's ``CheckInvalidLossHook`` see it in the total.
        """
        boxes = self._learned_boxes
        # Read at once: each reading waits for the device.
        values = torch.stack([*totals.values(), *boxes.values]).tolist()
        for tag, value in zip(totals, values):
            if not math.isfinite(value):
                print_log(
                    f'iteration {self._steps.step}: the loss of '
                    f'{tag} ({subnets[tag]}) is {value}',
                    logger='current',
                    level=logging.WARNING,
                )
        boxes.finish(values[len(totals) :])


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
        **kwargs: Arguments of the stock class; its backbone must be
            slimmable.

    Raises:
        ConfigError: Names the setting that is wrong and the remedy.
    """
    stock = find_class(wraps, 'model')
    return mix(MutualLearningMixin, stock)(mutual=mutual, **kwargs)
