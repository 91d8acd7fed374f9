# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The test loop that measures a query table."""

from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

from mmengine.runner import Runner
from torch import Tensor

from ..errors import UsageError
from ..files import only_user
from ..models.checkpoints import check_finite
from ..progress_bars import progress_bar
from ..query_table.fingerprints import (
    config_fingerprints,
    weights_fingerprint,
)
from ..query_table.parts import (
    check_free,
    finished_in,
    merge_parts,
    read_parts,
)
from ..query_table.progress import Progress
from ..shards import Shard, split
from ..subnet import Subnet
from .answers import AnswerBook
from .calibration import SubnetStatistics, move_statistics
from .coco_matches import recorded_evaluations, resampled_precision
from .content import content_fingerprint
from .hooks import build_dataset
from .label_precision import resampled_label_precision
from .loops import RUNNING, Candidate, SubnetTestLoop
from .metric_state import MetricState
from .plain_metrics import plain_numbers
from .ranking import better_direction, say_so
from .subset import keep_random, limit_truth

_MERGING = 600
"""Seconds to wait for another part that merges, which takes far less."""


class TableLoop(SubnetTestLoop):
    """Tests a grid of subnets, keeps what is finished and shows how far it is.

    Takes up the results and statistics that an interrupted run left in
    ``folder``; at most the predictions of one group are lost. The hooks of
    iterations are not called.

    As a part of several, see :meth:`take_part`, it tests what is its own and
    no part has finished yet, in a folder of its own inside of ``folder``. If
    nothing is left to any part then, what all have finished is merged.

    Args:
        runner (Runner): As for the stock loop.
        dataloader (dict): As for the stock loop.
        evaluator (dict or list): As for the stock loop.
        folder (str or Path): Folder of the finished results.
        step (float): Step of the grid's widths. Defaults to 0.05.
        subnets (Sequence[str], optional): In place of the grid.
        num_images (int, optional): Test on so many images alone, chosen at
            random. Defaults to all.
        metric (str, optional): What is to rank the subnets. Defaults to the
            first metric of the evaluator.
        **kwargs: ``group_size`` and ``fp16`` of the base class.

    Attributes:
        bank (dict): Statistics of all subnets; of the full one, where it is
            calibrated, too.
        weights (dict): Copy, on the CPU, of those evaluated.
        progress (Progress): With the metrics of the finished subnets, and
            the answers of those of a classifier.
        why_no_answers (str, optional): Why none were kept of those that were
            tested now.
        left (list[Subnet]): Those that other parts have not finished; none
            if the results are whole.

    Raises:
        UsageError: If ``folder`` holds results of anything else, or if
            another process is at work on what this one would test.
    """

    progress: Progress

    def __init__(
        self,
        runner: Runner,
        dataloader: dict,
        evaluator: Union[dict, list],
        folder: Union[str, Path],
        step: float = 0.05,
        subnets: Optional[Sequence[str]] = None,
        num_images: Optional[int] = None,
        metric: Optional[str] = None,
        **kwargs: Any,
    ) -> None:
        drawn_from = None
        if num_images is not None:
            dataset = build_dataset(dataloader['dataset'])
            drawn_from = len(dataset)
            keep_random(dataset, num_images)
            dataloader = dict(dataloader, dataset=dataset)
        super().__init__(runner, dataloader, evaluator, subnets, **kwargs)
        if num_images is not None:
            limit_truth(self.evaluator, self.dataloader.dataset)
        if subnets is None and self.model.sampler.single_subnet is None:
            self.subnets = self.model.space.grid(step)
        self.folder = folder
        number = len(self.dataloader.dataset)
        # Of all, too: more of them may have come into the same folder, of
        # which others are drawn.
        self._images = (
            number
            if drawn_from in (None, number)
            else f'{number} of {drawn_from}'
        )
        self.metric = metric
        self.bank: SubnetStatistics = {}
        self.weights: Dict[str, Tensor] = {}
        self.why_no_answers: Optional[str] = None
        self.left: List[Subnet] = []
        self._shard: Optional[Shard] = None
        self._books: Dict[str, AnswerBook] = {}

    def take_part(self, shard: Shard, costs: Sequence[float]) -> None:
        """Test one part of the subnets, and merge if it is the last.

        Args:
            shard (Shard): Which part of how many.
            costs (Sequence[float]): Of each of ``subnets``; parts are of
                about equal cost, see :func:`~.shards.split`.

        Raises:
            UsageError: If there are more parts than subnets.
        """
        primary = self.model.sampler.primary
        is_twice = primary in self.recipe.chosen(self.model, [primary])
        costs = [
            cost * (2 if is_twice and subnet == primary else 1)
            for cost, subnet in zip(costs, self.subnets)
        ]
        own = split(costs, shard.number)[shard.part - 1]
        self._shard, self._whole = shard, self.subnets
        self.subnets = [self.subnets[i] for i in own]

    @property
    def own_folder(self) -> Path:
        """Path: Where this process keeps what it finishes."""
        folder = Path(self.folder)
        return folder if self._shard is None else folder / self._shard.folder

    def ranking(self) -> str:
        """Name the metric that ranks.

        Raises:
            UsageError: If ``metric`` is unknown, or if the evaluator gave
                none at all. What is finished stays.
        """
        names = self._metrics()
        if not names:
            raise UsageError(
                'the test_evaluator gave no metric for any subnet so far: '
                'nothing was detected, or the evaluator only writes files'
            )
        if self.metric is not None and self.metric not in names:
            raise UsageError(
                f'metric {self.metric!r} is unknown, the test_evaluator '
                f'gives {", ".join(names)}: what is finished is kept for a '
                'run with one of these'
            )
        name = self.metric or names[0]
        if self.better(name) == 'less':
            raise UsageError(
                f'the less of {name} is the better, by '
                "default_hooks.checkpoint or MMEngine's words for metrics, "
                'and a table ranks by what is better where it is more: rank '
                'by another metric, such as its negative, for which what is '
                f'finished is kept. If more is better, say so: {say_so(name)}'
            )
        return name

    def better(self, metric: str) -> Optional[str]:
        """Whether the ``'greater'`` or the ``'less'`` of a metric is better.

        None where neither the config nor MMEngine knows.
        """
        hooks = self.runner.cfg.get('default_hooks') or {}
        first = self._metrics()[0]
        return better_direction(hooks.get('checkpoint') or {}, metric, first)

    def _metrics(self) -> List[str]:
        """Names of the metrics that the evaluator gives."""
        results = self.progress.results
        full = results.get(str(self.model.sampler.primary))
        return list(full or next(filter(None, results.values()), ()))

    def _run_all(self) -> Dict[str, float]:
        self.weights = {
            name: tensor.detach().cpu().clone()
            for name, tensor in self.model.state_dict().items()
        }
        check_finite(self.weights, 'the checkpoint')
        settings = {
            **config_fingerprints(self.runner.cfg),
            'checkpoint': weights_fingerprint(self.weights),
            'number of images': self._images,
            'content of the test set': content_fingerprint(
                self.dataloader.dataset
            ),
        }
        if self._shard is None:
            check_free(Path(self.folder))
            self.progress = merge_parts(Path(self.folder), settings)
            return self._test_all([])
        with only_user(self.folder):  # no one tests all of them
            others = read_parts(
                Path(self.folder), settings, self._shard.folder
            )
            self.progress = Progress(self.own_folder, settings)
        metrics = self._test_all(others)
        self._merge(settings)
        return metrics

    def _merge(self, settings: Dict[str, Any]) -> None:
        """Merge all parts, unless one of them is still at work."""
        parts = read_parts(Path(self.folder), settings)
        finished = finished_in(parts)
        self.left = [s for s in self._whole if str(s) not in finished]
        primary = self.model.sampler.primary
        # Calibrated, the full network is tested in both ways.
        if (
            primary in self._whole
            and RUNNING not in finished
            and any(part.statistics.get(str(primary)) for part in parts)
        ):
            self.left.append(primary)
        if self.left:
            return
        with only_user(self.folder, wait=_MERGING):
            self.progress = merge_parts(Path(self.folder), settings)
        device = next(self.model.parameters()).device
        self.bank = move_statistics(self.progress.statistics, device)

    def _test_all(self, others: List[Progress]) -> Dict[str, float]:
        """Test what neither this process nor others have finished.

        Args:
            others (list[Progress]): Of other parts.
        """
        if any(self.progress.results.values()):
            self.ranking()  # an unknown one is refused before any work
        finished = {**finished_in(others), **self.progress.results}
        self._find_statistics(others)
        candidates = self._candidates(self.bank)
        left = [c for c in candidates if c.name not in finished]
        primary = str(self.model.sampler.primary)
        groups = self._groups(left)
        with progress_bar() as bar:
            number = len(groups) * len(self.dataloader)
            subnets = len({candidate.subnet for candidate in left})
            what = 'subnet' if subnets == 1 else 'subnets'
            task = bar.add_task(f'evaluating {subnets} {what}', total=number)
            self._advance = lambda: bar.advance(task)
            for group in groups:
                scores = self._evaluate(group, call_hooks=False)
                # An unknown metric ends the run when the group is kept.
                if any(scores.values()) or primary in scores:
                    self.ranking()
        finished.update(self.progress.results)
        # What the log shows: the full network, else the first subnet.
        first = primary if primary in finished else str(self.subnets[0])
        prefix = '' if first == primary else f'{first}/'
        return {
            f'{prefix}{name}': value
            for name, value in finished[first].items()
            if value is not None
        }

    def _find_statistics(self, others: List[Progress]) -> None:
        device = next(self.model.parameters()).device
        bank = self.progress.statistics
        known = {k: v for o in others for k, v in o.statistics.items()}
        new = [
            s
            for s in self.subnets
            if str(s) not in bank and str(s) not in known
        ]
        found = move_statistics(
            self._calibrate(new, self.recipe.batches(self.runner)), 'cpu'
        )
        if found:
            bank = {**bank, **found}
            self.progress.keep_statistics(bank)
        self.bank = move_statistics({**known, **bank}, device)

    def _evaluate(
        self, candidates: List[Candidate], call_hooks: bool
    ) -> Dict[str, Dict[str, float]]:
        names = [c.name for c in candidates if c.name != RUNNING]
        self._books = {name: AnswerBook(self.model) for name in names}
        return super()._evaluate(candidates, call_hooks)

    def _run_batch(
        self, batch: Any, candidates: Sequence[Candidate]
    ) -> Iterator[Any]:
        for candidate, outputs in super()._run_batch(batch, candidates):
            if candidate.name in self._books:
                self._books[candidate.name].add(outputs)
            yield candidate, outputs
        self._advance()

    def _score(self, name: str, state: MetricState) -> Dict[str, float]:
        metrics = self.evaluator.metrics
        kept = [list(results) for results in state.results]  # cleared below
        with recorded_evaluations(metrics) as evaluations:
            found = super()._score(name, state)
        if name != RUNNING:
            resampled = {
                **resampled_precision(evaluations, found, metrics),
                **resampled_label_precision(kept, found, metrics),
            }
            if resampled:
                self.progress.keep_resampled(name, resampled)
        if name in self._books:
            self._keep_answers(name, self._books.pop(name))
        self.progress.add(name, plain_numbers(found))
        return found

    def _keep_answers(self, name: str, book: AnswerBook) -> None:
        answers = book.finish()
        if answers is None:
            self.why_no_answers = book.why_not
        else:
            self.progress.keep_answers(name, answers)
