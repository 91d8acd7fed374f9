# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Validation and testing of many subnets."""

from collections import Counter
from functools import partial
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.model import BaseTTAModel
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from mmengine.runner.amp import autocast
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.data import DataLoader

from ..config.processes import check_wrapper
from ..config.runner import OLD_STATISTICS
from ..config.sizes import check_resolution
from ..datasets.named_files import name_files
from ..errors import ConfigError, check_count
from ..models import MutualLearningMixin
from ..models.build import unwrapped
from ..models.tasks.samples import Batch
from ..models.wraps import Stock
from ..progress_bars import track
from ..registry import LOOPS
from ..slimmable import Statistics
from ..slimmable.ranks import agree
from ..subnet import Subnet, names_subnet
from .augmented import first_view, merge_predictions
from .calibration import SubnetStatistics, calibrate
from .hooks import BNCalibrationHook, check_one_recipe
from .metric_state import MetricState
from .pictures import Pictures
from .prediction_files import alone_in_folder, separate_files

RUNNING = 'running'
"""Prefix of the metrics of the full network by its running statistics, where
it is tested with calibrated ones as well."""


class Candidate(NamedTuple):
    """A subnet with the statistics that it is tested with.

    Args:
        name (str): ``str(subnet)``, or :data:`RUNNING`.
        subnet (Subnet): Which one.
        statistics (dict, optional): Of its batch norms; None means the
            running ones.
    """

    name: str
    subnet: Subnet
    statistics: Optional[Statistics]


class _SubnetLoop(Stock):
    """Runs an evaluation loop for several subnets.

    Hooks that draw predictions (``--show-dir``) draw those of every subnet,
    see :class:`~.pictures.Pictures`. A model in one of test-time augmentation
    (``--tta``) predicts so at every subnet.

    Args:
        subnets (Sequence[str], optional): Such as ``['1.0x-600',
            '0.25x-240']``. Defaults to the full and the smallest one, or to
            the one that is trained alone.
        group_size (int): Subnets whose predictions are held in memory at the
            same time; each group takes one pass over the data. Defaults to 8.
        **kwargs: Arguments of the stock loop.
    """

    stage: str

    def __init__(
        self,
        runner: Runner,
        dataloader: Union[DataLoader, dict],
        evaluator: Union[Evaluator, dict, list],
        subnets: Optional[Sequence[str]] = None,
        group_size: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, **kwargs)
        name_files(self.dataloader.dataset)
        check_resolution(runner.cfg)
        check_wrapper(runner.cfg)  # before the training that it is built for
        check_count(group_size, 'group_size')
        sampler = self.model.sampler
        # The one with the stock names first, for `save_best='auto'`.
        self.subnets = sorted(
            sampler.choose(subnets),
            key=lambda subnet: subnet != sampler.primary,
        )
        space = self.model.space
        below = [str(s) for s in self.subnets if space.is_below(s)]
        if below:
            runner.logger.warning(
                f'{", ".join(below)}: smaller than what is trained, whose '
                f'smallest is {space.smallest}'
            )
        self._default_hook = BNCalibrationHook()
        check_one_recipe(self._recipes)
        self.group_size = group_size
        self._pictures: Optional[Pictures] = None

    @property
    def model(self) -> MutualLearningMixin:
        """The unwrapped model.

        Of a student and its teacher, the one that predicts.
        """
        model = unwrapped(self.runner.model)
        if hasattr(model, 'semi_test_cfg'):
            settings = model.semi_test_cfg or {}
            model = getattr(model, settings.get('predict_on', 'teacher'))
        if isinstance(getattr(model, 'detector', None), MutualLearningMixin):
            raise ConfigError(
                f'{type(self).__name__} tests networks by themselves, and '
                f'{type(model).__name__} tracks what its detector finds: test '
                'the detector alone; to track, export a subnet '
                '(mutualnet export --format stock), use it as detector '
                'and resize frames to its resolution'
            )
        if not isinstance(model, MutualLearningMixin):
            raise ConfigError(
                f'{type(self).__name__} evaluates subnets, and '
                f'{type(model).__name__} has none: use model.type='
                f"'mutualnet_mm.MutualLearning'"
            )
        return model

    @property
    def _unwrapped(self) -> Any:
        """The model, in what merges test-time augmentations if there are."""
        return unwrapped(self.runner.model, keep_tta=True)

    def run(self) -> Dict[str, float]:
        """Calibrate and evaluate all subnets.

        Returns:
            dict: Metrics of the full network, or of the one trained alone,
            under their stock names, every other subnet's as
            ``'0.5x-360/<stock name>'``; ``'running/<stock name>'`` are those
            of the former by its running statistics, where it is calibrated.
        """
        self._check_trained()
        call_hook = self.runner.call_hook
        call_hook(f'before_{self.stage}')
        call_hook(f'before_{self.stage}_epoch')
        self.runner.model.eval()
        # Not before the hooks: an EMA hook has just swapped its weights in.
        metrics = self._run_all()
        call_hook(f'after_{self.stage}_epoch', metrics=metrics)
        call_hook(f'after_{self.stage}')
        return metrics

    def _check_trained(self) -> None:
        self.model.check_trained(self.subnets)

    def _run_all(self) -> Dict[str, float]:
        bank = self._calibrate(self.subnets, self.recipe.batches(self.runner))
        found: Dict[str, Dict[str, float]] = {}
        candidates = self._candidates(bank)
        with Pictures(self.runner, self.subnets) as self._pictures:
            for i, group in enumerate(self._groups(candidates)):
                found.update(self._evaluate(group, call_hooks=i == 0))
        primary = str(self.model.sampler.primary)
        return {
            key if name == primary else f'{name}/{key}': value
            for name in (candidate.name for candidate in candidates)
            for key, value in found[name].items()
        }

    def _candidates(self, bank: SubnetStatistics) -> List[Candidate]:
        """All that is tested, in order."""
        primary = self.model.sampler.primary
        found = [Candidate(str(s), s, bank.get(str(s))) for s in self.subnets]
        if primary in self.subnets and bank.get(str(primary)):
            found.append(Candidate(RUNNING, primary, None))
        return found

    @property
    def recipe(self) -> BNCalibrationHook:
        """The hook that says what subnets are calibrated on."""
        return next(iter(self._recipes), self._default_hook)

    @property
    def _recipes(self) -> List[BNCalibrationHook]:
        hooks = self.runner.hooks
        return [h for h in hooks if isinstance(h, BNCalibrationHook)]

    def _calibrate(
        self, subnets: Sequence[Subnet], batches: Iterable[Any]
    ) -> SubnetStatistics:
        subnets = self.recipe.chosen(self.model, subnets)
        if not subnets:
            return {}
        names = ', '.join(map(str, subnets))
        self.runner.logger.info(f'Calibrating the batch norms of {names}')
        shown = track(batches, 'calibrating', self.recipe.num_batches)
        return calibrate(self.model, subnets, shown, self.recipe.is_tested)

    def _groups(self, candidates: List[Candidate]) -> List[List[Candidate]]:
        """Split into groups of at most ``group_size`` and of similar cost."""
        count = -(-len(candidates) // self.group_size)
        return [candidates[i::count] for i in range(count)]

    def _evaluate(
        self, candidates: List[Candidate], call_hooks: bool
    ) -> Dict[str, Dict[str, float]]:
        """Evaluate a group of candidates in one pass over the data.

        The hooks of an iteration are called in the first group alone, with
        the first subnet's predictions; those that draw, for every subnet.

        Returns:
            dict: Metrics by the candidates' names.
        """
        hook = self.runner.call_hook if call_hooks else lambda *_, **__: None
        states = {
            candidate.name: MetricState(
                self.evaluator.metrics, len(candidates) > 1
            )
            for candidate in candidates
        }
        error: Optional[Exception] = None
        try:
            for idx, batch in enumerate(self.dataloader):
                of_iter = dict(batch_idx=idx, data_batch=self._shown(batch))
                hook(f'before_{self.stage}_iter', **of_iter)
                first = None
                for (name, subnet, _), outputs in self._run_batch(
                    batch, candidates
                ):
                    with states[name], self._files_of(name):
                        self.evaluator.process(outputs, batch)
                    if self._pictures is not None and name != RUNNING:
                        self._pictures.draw(
                            subnet, self.stage, **of_iter, outputs=outputs
                        )
                    first = first or outputs
                hook(f'after_{self.stage}_iter', **of_iter, outputs=first)
        except Exception as found:
            error = found
        agree(error=error)  # before the metrics gather what all ranks have
        # One by one, and gone then: predictions may take gigabytes.
        names = list(states)
        return {name: self._score(name, states.pop(name)) for name in names}

    def _score(self, name: str, state: MetricState) -> Dict[str, float]:
        """Metrics of a candidate, from what they kept of its predictions."""
        self.runner.logger.info(f'Evaluating {name}')
        here = alone_in_folder(self.evaluator)
        with state, self._files_of(name), here:
            return self.evaluator.evaluate(len(self.dataloader.dataset))

    def _files_of(self, name: str) -> separate_files:
        is_primary = name == str(self.model.sampler.primary)
        return separate_files(self.evaluator, '' if is_primary else f'.{name}')

    def _shown(self, batch: Any) -> Any:
        """What hooks see of a batch: the first view of each image."""
        is_merged = isinstance(self._unwrapped, BaseTTAModel)
        return first_view(batch) if is_merged else batch

    def _run_batch(
        self, batch: Any, candidates: Sequence[Candidate]
    ) -> Iterator[Tuple[Candidate, list]]:
        """Yield each candidate with its predictions."""
        predict = self._predictor(batch)
        for candidate in candidates:
            yield candidate, predict(candidate.subnet, candidate.statistics)

    def _predictor(
        self, batch: Any
    ) -> Callable[[Subnet, Optional[Statistics]], list]:
        """Return what predicts on a batch with a subnet."""
        merger = self._unwrapped
        if not isinstance(merger, BaseTTAModel):
            return partial(self._predict, self._prepared(batch))
        return lambda subnet, statistics: merge_predictions(
            merger,
            batch,
            lambda view: self._predict(
                self._prepared(view), subnet, statistics
            ),
        )

    @torch.no_grad()
    def _prepared(self, batch: Any) -> Batch:
        """Preprocess a batch as it was loaded, and check it."""
        model = self.model
        data = model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        model.task.check_channels(model, inputs)
        model.task.check_test(model, inputs, samples)
        return inputs, samples

    @torch.no_grad()
    def _predict(
        self, data: Batch, subnet: Subnet, statistics: Optional[Statistics]
    ) -> list:
        model = self.model
        # Samples of its own: stock models write predictions into them.
        inputs, samples = model.task.resize(model, *data, subnet)
        with autocast(enabled=self.fp16), model.activate(subnet, statistics):
            return model(inputs, samples, mode='predict')


def _watched_metrics(runner: Runner) -> Iterator[Tuple[str, str]]:
    """Yield the settings that name a metric of the validation, and it."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            for key in hook.save_best or ():
                if key != 'auto':
                    yield 'save_best', key
        elif isinstance(hook, EarlyStoppingHook):
            yield 'EarlyStoppingHook.monitor', hook.monitor


def _check_training(runner: Runner, model: nn.Module) -> None:
    """Refuse what would train wrongly, without an error.

    Raises:
        ConfigError: If a teacher would keep its first statistics of batch
            norms, or if an optimizer holds parameters twice.
    """
    has_statistics = any(isinstance(m, _NormBase) for m in model.modules())
    for hook in runner.hooks if has_statistics else ():
        kinds = [kind.__name__ for kind in type(hook).__mro__]
        if 'MeanTeacherHook' in kinds and getattr(hook, 'skip_buffers', False):
            raise ConfigError(OLD_STATISTICS)
    groups = getattr(runner.optim_wrapper, 'param_groups', None)
    if isinstance(groups, list):
        counts = Counter(id(p) for group in groups for p in group['params'])
        names = {id(p): name for name, p in model.named_parameters()}
        twice = [i for i, count in counts.items() if count > 1]
        if twice:
            raise ConfigError(
                f'the optimizer would update {len(twice)} parameters twice in '
                f'a step, such as {names.get(twice[0], "one outside")}: its '
                'constructor lists layers inside of layers by themselves, '
                "too, as mmaction2's for TSM does with mutual.norm="
                "'per-resolution'. Leave out one of the two"
            )


@LOOPS.register_module()
class SubnetValLoop(_SubnetLoop, ValLoop):
    """Validates several subnets, each with its own calibrated statistics.

    ``save_best`` works as ever: it sees the full network's stock names. See
    :class:`_SubnetLoop` for the arguments; the others are ``ValLoop``'s.
    """

    stage = 'val'

    def __init__(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, *args, **kwargs)
        # By the projects' own tools, too, before anything is trained.
        if isinstance(runner._train_loop, BaseLoop):
            _check_training(runner, self.model)
        for setting, key in _watched_metrics(runner):
            name = key.partition('/')[0]
            is_subnet = names_subnet(key)
            primary = self.model.sampler.primary
            watched = Subnet.parse(name) if is_subnet else primary
            if is_subnet and name != str(watched):
                raise ConfigError(
                    f'{setting}={key!r}: metrics of this subnet begin with '
                    f'{watched}/'
                )
            if watched not in self.subnets or (
                is_subnet and watched == primary
            ):
                listed = ', '.join(map(str, self.subnets))
                raise ConfigError(
                    f'{setting}={key!r} is a metric of {watched}, but '
                    f'val_cfg validates {listed}: add it to val_cfg.subnets '
                    f'(metrics of {primary} have no prefix)'
                )


@LOOPS.register_module()
class SubnetTestLoop(_SubnetLoop, TestLoop):
    """Tests several subnets, each with its own calibrated statistics.

    See :class:`_SubnetLoop` for the arguments; the others are
    ``TestLoop``'s.
    """

    stage = 'test'
