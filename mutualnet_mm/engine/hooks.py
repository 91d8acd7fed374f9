# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The recipe of batch-norm calibration."""

import copy
from typing import Any, Dict, Iterator, List, Optional, Sequence

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import Dataset

from ..config.pipelines import Step, stage_datasets
from ..datasets.named_files import name_files
from ..errors import ConfigError, as_usage_error, check_count
from ..models import MutualLearningMixin
from ..random_state import OwnRandomState
from ..registry import HOOKS
from ..subnet import Subnet
from .switches import switch_to_last

_UNREAD = (
    'batch norms are calibrated on images of train_dataloader.dataset, or of '
    'BNCalibrationHook(dataloader=...), which cannot be read'
)


@HOOKS.register_module()
class BNCalibrationHook(Hook):
    """Says what subnets are calibrated on, and supplies it.

    The evaluation loops do the calibration, once they hold the weights that
    they evaluate (an EMA hook's, say), and ask this hook for the data; they
    use one with the defaults where the config has none. It works the same
    under ``test.py``, which builds no train loader.

    Args:
        num_batches (int): Batches per rank. Defaults to 32.
        dataloader (dict, optional): Data loader of the images to use; labels
            are not needed. Defaults to the config's ``train_dataloader``.
            Both are shuffled, whatever they say, with a fixed seed.
        pipeline (str): Which pipeline reads them: the data loader's own
            (``'train'``, the paper's), or the one of the
            ``test_dataloader`` (``'test'``): statistics are then those of
            images as they are tested, without augmentation. Batches are as
            large as in training, so that images or clips of several sizes
            are padded to one: use ``'train'`` for detectors of actions, whose
            clips get black borders. Wrappers that mix images (mosaics) are
            left out there; of videos all test views count. Defaults to
            ``'train'``.
        full (str): Statistics of the full network, or of the one that is
            trained alone: the ``'running'`` ones of the training, as in the
            paper, or ``'calibrated'`` ones, as of all other subnets. With
            these it is tested in both ways; metrics by the running statistics
            begin with ``'running/'``. Defaults to ``'running'``.

    Raises:
        UsageError: If ``num_batches`` is not a whole number from 1, if
            ``dataloader`` has no data set, or if ``pipeline`` or ``full`` is
            none of the two.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        num_batches: int = 32,
        dataloader: Optional[dict] = None,
        pipeline: str = 'train',
        full: str = 'running',
    ) -> None:
        self.num_batches = check_count(
            num_batches, 'BNCalibrationHook.num_batches'
        )
        for name, value, possible in (
            ('pipeline', pipeline, ('train', 'test')),
            ('full', full, ('running', 'calibrated')),
        ):
            if value not in possible:
                raise ConfigError(
                    f'BNCalibrationHook.{name}={value!r}: use '
                    f'{" or ".join(map(repr, possible))}'
                )
        self.pipeline, self.full = pipeline, full
        if dataloader is not None and 'dataset' not in dataloader:
            raise ConfigError(
                f'BNCalibrationHook.dataloader={dataloader!r} has no dataset: '
                'give the settings of a data loader, or none for the '
                'train_dataloader'
            )
        self.dataloader = dataloader
        self._dataset: Any = None

    @property
    def settings(self) -> Dict[str, Any]:
        """Arguments that make the same hook again."""
        return dict(
            num_batches=self.num_batches,
            dataloader=self.dataloader,
            pipeline=self.pipeline,
            full=self.full,
        )

    @property
    def is_tested(self) -> bool:
        """Whether the test pipeline reads the images."""
        return self.pipeline == 'test'

    def chosen(
        self, model: MutualLearningMixin, subnets: Sequence[Subnet]
    ) -> List[Subnet]:
        """Those of some subnets that are calibrated, in order."""
        if self.full == 'calibrated':
            return list(subnets)
        return [s for s in subnets if s != model.sampler.primary]

    def batches(self, runner: Runner) -> Iterator[Any]:
        """Yield the calibration batches.

        Of ``train_dataloader`` the data set that is being trained on is read,
        where there is one: nothing is loaded twice, and a pipeline that was
        switched in the middle of training is the one that is used. Otherwise
        it is built once and kept, as such hooks leave it at the end. The
        training's random state does not advance.

        Raises:
            ConfigError: If there is no data loader to take them from.
        """
        live = None if self.dataloader else _trained_dataset(runner)
        yield from self.batches_of(runner.cfg, live)

    def batches_of(
        self,
        cfg: Config,
        dataset: Any = None,
        loader: Optional[dict] = None,
    ) -> Iterator[Any]:
        """Yield the calibration batches of a config that nobody runs.

        Args:
            cfg (Config): Its ``train_dataloader`` counts where the hook has
                none.
            dataset (Dataset, optional): A built one to read from. Defaults
                to one that is built once and kept.
            loader (dict, optional): Settings of a data loader to use in place
                of the hook's and the config's. Defaults to None.

        Raises:
            ConfigError: If there is no data loader to take them from, or no
                test pipeline to read them with.
            UsageError: If the data set cannot be built.
        """
        config = loader or self.dataloader or cfg.get('train_dataloader')
        if not isinstance(config, dict):
            raise ConfigError(
                'batch norms need images to be calibrated on: give the config '
                'a train_dataloader or BNCalibrationHook a dataloader (a dict)'
            )
        if dataset is None:
            if self._dataset is None:
                self._dataset = config['dataset']
                if isinstance(self._dataset, dict):
                    with as_usage_error(_UNREAD):
                        self._dataset = build_dataset(self._dataset)
                        # With a pipeline of its own it is read by that.
                        trained = cfg.get('train_dataloader') or {}
                        if config['dataset'] == trained.get('dataset'):
                            switch_to_last(self._dataset, cfg)
            dataset = self._dataset
        if self.is_tested:
            dataset = read_by(dataset, test_pipeline(cfg))
        name_files(dataset)
        config = dict(config, dataset=dataset)
        sampler = config.get('sampler')
        if isinstance(sampler, dict) and 'shuffle' in sampler:
            # Files are often sorted by what they show.
            config['sampler'] = dict(sampler, shuffle=True)
        yield from calibration_batches(config, self.num_batches)


def calibration_recipe(cfg: Config) -> BNCalibrationHook:
    """The hook of a config that says what subnets are calibrated on.

    Raises:
        ConfigError: If there are several.
    """
    found = [
        {k: v for k, v in hook.items() if k not in ('type', 'priority')}
        for hook in cfg.get('custom_hooks') or ()
        if Step('', hook).kind == BNCalibrationHook.__name__
    ]
    check_one_recipe(found)
    return BNCalibrationHook(**(found[0] if found else {}))


def check_one_recipe(hooks: Sequence[Any]) -> None:
    """Refuse several hooks that say what subnets are calibrated on.

    Raises:
        ConfigError: Says how many there are.
    """
    if len(hooks) > 1:
        raise ConfigError(
            f'there are {len(hooks)} hooks BNCalibrationHook, and one says '
            'what subnets are calibrated on: leave one in custom_hooks'
        )


def build_dataset(settings: Any) -> Any:
    """Build a data set from its settings, fully initialised."""
    dataset = DATASETS.build(copy.deepcopy(settings))
    if hasattr(dataset, 'full_init'):
        dataset.full_init()
    return dataset


def test_pipeline(cfg: Config) -> Compose:
    """Build the pipeline by which a config reads its test images.

    Raises:
        ConfigError: If there is none.
    """
    for _, dataset in stage_datasets(cfg, ('test',)):
        if 'pipeline' in dataset:
            return Compose(copy.deepcopy(dataset['pipeline']))
    raise ConfigError(
        "BNCalibrationHook.pipeline='test', but the config has no "
        "test_dataloader.dataset.pipeline: use pipeline='train'"
    )


def read_by(dataset: Any, pipeline: Compose) -> Any:
    """Share the annotations of a data set, but read them by a pipeline.

    Args:
        dataset: Built, a wrapper or not; it is not changed. What mixes
            samples by a pipeline of its own is left out, and what it mixes
            is read.
        pipeline (Compose): Of the samples.

    Raises:
        ConfigError: If a data set reads by itself, without a pipeline.
    """
    inner = _wrapped(dataset)
    if inner is not None and 'pipeline' in vars(dataset):
        return read_by(inner, pipeline)
    shared = copy.copy(dataset)
    if inner is not None:
        shared.dataset = read_by(inner, pipeline)
    elif isinstance(vars(dataset).get('datasets'), (list, tuple)):
        shared.datasets = [read_by(d, pipeline) for d in dataset.datasets]
    elif 'pipeline' in vars(dataset):
        shared.pipeline = pipeline
    else:
        raise ConfigError(
            f"BNCalibrationHook.pipeline='test', but {type(dataset).__name__} "
            "has no pipeline that could be replaced: use pipeline='train'"
        )
    return shared


def _trained_dataset(runner: Runner) -> Any:
    """The live data set of the train loop; None where there is no loop."""
    loop = getattr(runner, '_train_loop', None)  # the property would build it
    if not isinstance(loop, BaseLoop):
        return None
    return loop.dataloader.dataset


def calibration_batches(dataloader: dict, num_batches: int) -> Iterator[Any]:
    """Yield the first batches of a data loader, the same ones on every call.

    Random numbers come from a state of its own, which is active only while a
    batch is made: a consumer that raises or stops early leaves no trace.

    Args:
        dataloader (dict): Its settings; ``dataset`` may be a built one, which
            is neither copied nor changed.
        num_batches (int): How many at most.
    """
    config = dict(dataloader)
    config['persistent_workers'] = False  # they would outlive the loader
    if not isinstance(config['dataset'], dict):
        config['dataset'] = _Uncopied(_with_own_pipeline(config['dataset']))
    random_state = OwnRandomState()
    with random_state:
        # A new loader each time: samplers and batch samplers remember.
        iterator = iter(Runner.build_dataloader(config, seed=0))
    for _ in range(num_batches):
        with random_state:
            try:
                batch = next(iterator)
            except StopIteration:
                return
        yield batch


class _Uncopied:
    """Stands for a data set where settings are copied deeply.

    ``Runner.build_dataloader`` copies its settings, data sets of gigabytes
    too. The copy of this is the data set itself.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __deepcopy__(self, memo: dict) -> Any:
        return self.dataset


def _with_own_pipeline(dataset: Any) -> Any:
    """Share the annotations of a data set, but not its transforms.

    Transforms may remember samples (cached mosaics); those of the training
    must not change. A data set that one of them holds is shared, too.
    """
    shared = copy.copy(dataset)
    for name in ('pipeline', 'transform', 'transforms'):
        if name in vars(shared):
            pipeline = vars(shared)[name]
            memo = {id(held): held for held in _datasets_in(pipeline)}
            vars(shared)[name] = copy.deepcopy(pipeline, memo)
    inner = _wrapped(dataset)
    if inner is not None:
        shared.dataset = _with_own_pipeline(inner)
    if isinstance(vars(shared).get('datasets'), (list, tuple)):
        shared.datasets = [_with_own_pipeline(d) for d in shared.datasets]
    return shared


def _wrapped(dataset: Any) -> Any:
    """The data set inside a wrapper; None where there is none."""
    inner = vars(dataset).get('dataset')
    return inner if hasattr(inner, '__dict__') else None  # not a name, say


def _datasets_in(transforms: Any) -> Iterator[Any]:
    """Data sets that a pipeline, or a transform, holds."""
    if isinstance(transforms, Dataset):
        yield transforms
    elif isinstance(transforms, (list, tuple)):
        for transform in transforms:
            yield from _datasets_in(transform)
    else:
        for value in getattr(transforms, '__dict__', {}).values():
            if isinstance(value, (list, tuple, Compose, Dataset)):
                yield from _datasets_in(value)
