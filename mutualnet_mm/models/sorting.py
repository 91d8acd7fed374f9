# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Start from a trained network, its important channels in front."""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from mmengine.logging import print_log
from mmengine.model.weight_init import PretrainedInit

from ..config.init_cfg import init_configs
from ..errors import ConfigError, UsageError
from ..files import atomic_write, check_apart
from ..slimmable import SortedChannels, sort_channels
from ..slimmable.importance import check_measure
from ..tensor_files import save_tensors
from .checkpoints import load_trained, read_trained, split_sort
from .shared_width import sliced_parts
from .training_record import TrainingRecord
from .wraps import Stock


def sort_model(model: Any, by: str = 'bn') -> List[SortedChannels]:
    """Sort the channels of a model, in place; what it computes stays.

    Those of the backbone, and the columns of the neck or head that take them.
    Where a head takes the backbone's maps without a neck, as in some
    detectors, the channels of these maps stay as they are.

    Args:
        model (MutualLearningMixin): With trained weights.
        by (str): ``'bn'`` or ``'l1'``, see
            :data:`~mutualnet_mm.slimmable.importance.MEASURES`. Defaults to
            ``'bn'``.

    Returns:
        list[SortedChannels]: As :func:`~mutualnet_mm.slimmable.sort_channels`
        returns it.

    Raises:
        ConfigError: If there is no such measure, or if what the model
            computes would be something else.
    """
    parts, settings = sliced_parts(model)
    return sort_channels(parts, by, **settings)


def sort_checkpoint(
    model: Any,
    checkpoint: str,
    out: Union[str, Path],
    by: str = 'bn',
) -> Tuple[List[SortedChannels], List[str]]:
    """Write a checkpoint of the same network with its channels sorted.

    It holds ``state_dict``, by which the stock model loads, too, and
    ``meta``. What else a training keeps, such as the state of its optimizer,
    belongs to the old order and is left out. Where a training kept an average
    of its weights (``EMAHook``), ``state_dict`` is that average.

    Args:
        model (MutualLearningMixin): That the checkpoint is for, as it is
            built. Gets its weights.
        checkpoint (str): File or address, of a network trained alone.
        out (str or Path): File to write. One that exists is replaced.
        by (str): As for :func:`sort_model`. Defaults to ``'bn'``.

    Returns:
        tuple: What was done with the channels, and the names of weights that
        the model does not have, which are left out.

    Raises:
        UsageError: If the checkpoint does not fit, is of a network with
            trained subnets or is ``out`` itself; if ``out`` cannot be
            written; or as for :func:`sort_model`.
    """
    check_measure(by)
    check_apart(out, checkpoint, 'the checkpoint')
    source: Any
    source, meta = read_trained(checkpoint)
    check_alone(checkpoint, model.slim_state.max_width)
    ignored = load_trained(model, checkpoint)
    report = sort_model(model, by)
    weights: Any = OrderedDict(model.state_dict())
    # Those of the model say what it is built for, not trained for.
    weights._metadata = source._metadata
    with atomic_write(out) as file:
        save_tensors(
            dict(meta=dict(meta, sorted_by=by), state_dict=weights), file
        )
    return report, ignored


def check_alone(checkpoint: str, full_width: float) -> None:
    """Refuse to sort the channels of a network with trained subnets.

    Args:
        checkpoint (str): File or address that it is started from.
        full_width (float): That the network is built at.

    Raises:
        UsageError: If it was trained at other widths, as far as it says. One
            that is narrower has its channels among the leading ones.
    """
    weights, meta = read_trained(checkpoint)
    record = TrainingRecord(meta)
    subnets, said = record.trained_subnets(), record.described()
    if subnets is not None:
        narrow = {subnet.width for subnet in subnets} != {full_width}
    else:
        own = getattr(weights, '_metadata', {}).get('', {})
        low, high = own.get('widths') or (full_width, full_width)
        narrow, said = low < full_width, f'widths {low}x to {high}x'
    if narrow:
        raise UsageError(
            f'checkpoint {checkpoint!r} was trained at {said}: its subnets '
            'have their channels in front already, and sorting would take '
            'them apart; give a network that was trained alone, at full '
            'width, or do not sort'
        )


def describe_sorted(report: Sequence[SortedChannels]) -> List[str]:
    """Say what was sorted, and what was not and why, a line for each."""
    groups = [found for found in report if not found.stays]
    channels = sum(found.channels for found in groups)
    lines = [f'{channels} channels sorted, in {len(groups)} coupled groups']
    kept: Dict[str, List[SortedChannels]] = {}
    for found in report:
        if found.stays:
            kept.setdefault(found.stays, []).append(found)
    for reason, groups in kept.items():
        names = [*dict.fromkeys(n for found in groups for n in found.layers)]
        more = f' and {len(names) - 3} others' if len(names) > 3 else ''
        number = sum(found.channels for found in groups)
        what = f'{number} channels left as they were: ' if number else ''
        lines.append(f'{what}{reason} ({", ".join(names[:3])}{more})')
    return lines


def log_sorted(report: Sequence[SortedChannels]) -> None:
    """Log what was sorted, and what was not."""
    for line in describe_sorted(report):
        print_log(line, logger='current')


class SortsChannels(Stock):
    """Sorts the channels of the weights that a model starts from.

    A part of :class:`~.mutual.MutualLearningMixin`. Where the ``Pretrained``
    ``init_cfg`` of the model or of its backbone has a ``sort``, the channels
    of both are sorted after all has been initialised. A checkpoint that is
    loaded afterwards, to resume a training, is taken as it is.
    """

    _sort: Optional[str] = None
    _starts: Sequence[Optional[str]] = ()

    def take_sort(self, settings: Dict[str, Any]) -> None:
        """Take ``sort`` out of the model's own ``init_cfg``.

        Args:
            settings (dict): Arguments of the stock class; changed in place.
        """
        rest: List[Mapping[str, Any]] = []
        starts = []
        for config in init_configs(settings.get('init_cfg')):
            if config.get('type') in ('Pretrained', PretrainedInit):
                config, by = split_sort(config)
                self._sort = by or self._sort
                starts.append(config.get('checkpoint'))
            rest.append(config)
        self._starts = starts
        if starts:  # one of them may have had a sort of None
            settings['init_cfg'] = rest

    def share_sort(self) -> None:
        """Sort the channels of the backbone together with the model's.

        Raises:
            ConfigError: If both are to be sorted by something else.
        """
        asked = getattr(self.backbone, 'sort_by', None)
        if self._sort is not None and asked not in (None, self._sort):
            raise ConfigError(
                f'init_cfg of the model has sort={self._sort!r}, that of its '
                f'backbone {asked!r}: they are sorted together, say one'
            )
        self._sort = self._sort or asked
        self.backbone.sorts_alone = False

    def init_weights(self) -> None:
        """Initialise as the stock model does, then sort."""
        is_init = getattr(self, 'is_init', False)
        if self._sort is None or is_init:
            super().init_weights()
            return
        for checkpoint in self._starts:
            if checkpoint is not None:
                check_alone(checkpoint, self.slim_state.max_width)
        super().init_weights()
        log_sorted(sort_model(self, self._sort))
