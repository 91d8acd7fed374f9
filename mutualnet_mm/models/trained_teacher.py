# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""A network that was trained before as the teacher of all subnets."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..config.full_size import clip_length
from ..config.stock import find_config
from ..errors import ConfigError, UsageError, as_usage_error
from ..subnet import Subnet
from .checkpoints import check_exists, load_trained
from .predictions import class_scores, outputs_of
from .teachers import Teacher
from .traits import read_traits


class TrainedTeacher(Teacher):
    """A classifier or recognizer of the same classes, stock or adaptive.

    It sees what the pipeline delivers, as the full network does, and is run
    in evaluation mode. It is built when it is needed: networks that were
    trained by it are tested and deployed without its files. Nor is it a part
    of its pupil, whose checkpoints do not hold it.

    Args:
        config (str): Config that it was trained by: a file, or a name such as
            ``'mmpretrain::resnet/resnet50_8xb32_in1k.py'``.
        checkpoint (str): File or address of its weights.
    """

    def __init__(self, config: str, checkpoint: str) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self._network: Optional[nn.Module] = None
        self._cfg = Config()

    def __deepcopy__(self, memo: Dict[int, Any]) -> 'TrainedTeacher':
        return self  # it never changes

    def network(self) -> nn.Module:
        """Return it with its weights, which are loaded once.

        Raises:
            UsageError: If a file is missing, the weights do not fit, or those
                of the full network were not trained.
        """
        if self._network is None:
            with _of_teacher():
                check_exists(self.checkpoint)  # building takes longer
                self._cfg, network = _build(self.config)
                load_trained(network, self.checkpoint)
                _check_full(network, self.config)
            network.eval()  # not chained: stock ``train`` may return nothing
            self._network = network.requires_grad_(False)
        return self._network

    def check(self, model: Any) -> None:
        """Build it, and compare it with its pupil.

        Raises:
            UsageError: If it cannot be built, takes inputs that are normalised
                in another way or clips of another length, knows other
                classes, or predicts no distribution over them.
        """
        network = self.network()
        own, other = map(_normalisation, (model, network))
        for name in own:
            if own[name] != other[name]:
                raise ConfigError(
                    f'mutual.teacher: {self.config} has data_preprocessor.'
                    f'{name}={other[name]}, and the model {own[name]}, but '
                    'both see the same inputs: train one of them as the other'
                )
        with as_usage_error(
            f'mutual.teacher: {self.config} has no head of a {model.task.name}'
        ):
            heads = [model.task.head(each) for each in (model, network)]
            possible = model.task.supervisions(network)
        if 'kl' not in possible:
            raise ConfigError(
                f'mutual.teacher: {type(heads[1]).__name__} of {self.config} '
                'is trained for no distribution over the classes, which '
                'subnets learn: take one whose classes exclude each other, '
                'trained by cross-entropy'
            )
        own_number, number = (getattr(h, 'num_classes', None) for h in heads)
        if None not in (own_number, number) and own_number != number:
            raise ConfigError(
                f'mutual.teacher: {self.config} predicts {number} classes, '
                f'and the model {own_number}: both must know the same'
            )
        self._check_frames(model, network)

    def _check_frames(self, model: Any, network: nn.Module) -> None:
        """Refuse a teacher that was trained on clips of another length."""
        if not model.task.takes_frames:
            return
        with as_usage_error(f'mutual.teacher: {self.config} cannot be built'):
            traits = read_traits(self._cfg, network)
        needs_one = traits.of_one_length or traits.segments
        if traits.of_segments and not needs_one:
            return  # it averages over any number
        own = model.task.clip_length(model)
        trained = clip_length(self._cfg, traits.of_segments)
        if trained and trained.value != own:
            raise ConfigError(
                f'mutual.teacher: {self.config} is trained on clips of '
                f'{trained.value} frames ({trained}), and the model takes '
                f'{own}, but both see the same inputs: train one of them as '
                'the other'
            )

    def prepare(self, model: Any, inputs: Any) -> None:
        """Check it, and try it on a batch.

        Raises:
            UsageError: As :meth:`check`, or if it cannot predict.
        """
        self.check(model)
        with as_usage_error(
            f'mutual.teacher: {self.config} cannot predict on a batch of '
            f'shape {tuple(inputs.shape)}'
        ):
            self._predict(model, inputs)

    def scores(
        self,
        model: Any,
        subnet: Subnet,
        inputs: Any,
        data_samples: Any,
        **kwargs: Any,
    ) -> List[Tensor]:
        """Predict on the batch as the pipeline delivers it."""
        del subnet, data_samples, kwargs
        return self._predict(model, inputs)

    def _predict(self, model: Any, inputs: Tensor) -> List[Tensor]:
        network = self.network().to(inputs)
        head = model.task.head(network)
        with torch.no_grad(), outputs_of(head) as outputs:
            model.task.forward_cost(network, inputs)
        return list(class_scores(outputs, head))


@contextmanager
def _of_teacher() -> Iterator[None]:
    """Say whose config and checkpoint errors are of."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f'mutual.teacher: {error}') from error


def _build(path: str) -> Tuple[Config, nn.Module]:
    """A config and its model."""
    # Needs the models that this is a part of.
    from .build import build_stock

    file, _ = find_config(path)
    with as_usage_error(f'config {path!r} cannot be read', ConfigError):
        cfg = Config.fromfile(file)
    if not isinstance(cfg.get('model'), dict):
        raise ConfigError(f'config {path!r} has no model')
    scope = cfg.get('default_scope') or 'mmengine'
    with DefaultScope.overwrite_default_scope(scope):  # and back
        return cfg, build_stock(cfg)


def _check_full(network: Any, config: str) -> None:
    """Refuse an adaptive network whose full one was not trained."""
    sampler: Any = getattr(network, 'sampler', None)
    if sampler is None:  # a stock one
        return
    if sampler.primary != network.space.full:
        raise ConfigError(
            f'config {config!r} trains {sampler.primary} alone, and the full '
            f'network, {network.space.full}, teaches: take one that trains '
            'that, or a config of the narrow network itself'
        )
    network.check_trained([network.space.full])


def _normalisation(model: Any) -> Dict[str, Any]:
    """How a model's inputs are normalised, in plain values."""
    preprocessor = model.data_preprocessor
    found: Dict[str, Any] = {
        'to_rgb': bool(getattr(preprocessor, 'to_rgb', False))
    }
    for name in ('mean', 'std'):
        values = getattr(preprocessor, name, None)
        if isinstance(values, Tensor):
            values = [round(v, 4) for v in values.flatten().tolist()]
        found[name] = values
    return found
