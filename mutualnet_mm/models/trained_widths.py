# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a checkpoint was trained for, noted beside its weights."""

import logging
import re
from typing import Any, Iterable, Mapping, Optional, Sequence, Tuple

from mmengine.logging import print_log

from ..errors import UsageError
from ..subnet import Subnet, SubnetSpace
from ..widths import each_width
from .misfits import check_backbone_filled, warn_of_random
from .resolution_norms import check_same_norms, own_norms
from .resumed import note_training, warn_of_changes
from .wraps import Stock

_NOTED = ('widths', 'norms', 'mutual', 'max_iters')


class TrainedWidths(Stock):
    """Refuses checkpoints, and subnets of them, without trained weights.

    A part of :class:`~.mutual.MutualLearningMixin`.
    """

    # What lay beside the weights of a loaded checkpoint, until this model
    # trains: the widths that it was trained for, the resolutions that its
    # batch norms have parameters of their own for, and its training.
    _loaded: Optional[Mapping[str, Any]] = None
    # Weights that have another shape in the checkpoint, while it is loaded.
    _misshapen: Sequence[str]

    def check_trained(self, subnets: Iterable[Subnet]) -> None:
        """Refuse subnets that the loaded checkpoint was never trained for.

        Raises:
            UsageError: Names the first such subnet. Checkpoints that do not
                say what they were trained for pass, with a warning where a
                subnet is narrower than the full network.
        """
        loaded, subnets = self._loaded or {}, list(subnets)
        narrow = [s for s in subnets if s.width < self.space.max_width]
        if narrow and loaded and loaded.get('widths') is None:
            print_log(
                'the checkpoint does not say at which widths it was trained. '
                'If that was the full one alone, as by a stock config, '
                f'{narrow[0]} means nothing: train it by the adaptive config '
                'first, with load_from for a start',
                logger='current',
                level=logging.WARNING,
            )
        low, high = loaded.get('widths') or (0.0, float('inf'))
        for subnet in subnets:
            widths = each_width(subnet.width)
            stages = (loaded.get('mutual') or {}).get('stages', len(widths))
            if len(widths) > stages:
                raise UsageError(
                    'the checkpoint was trained with one width for all '
                    f'stages, so {subnet} is not: leave it out'
                )
            if not low <= min(widths) <= max(widths) <= high:
                raise UsageError(
                    f'the checkpoint was trained at widths from {low} to '
                    f'{high}, so {subnet} has no trained weights: leave it '
                    'out, and set mutual.width_range (or widths) as in the '
                    'training'
                )
            norms = loaded.get('norms')
            if norms and not _has_norms(norms, self.space, subnet):
                raise UsageError(
                    'the checkpoint has batch norms for each of the '
                    f'resolutions {", ".join(map(str, norms))}, which the '
                    f'config does not use for {subnet}: set mutual.norm='
                    "'per-resolution', and resolution as in the training"
                )

    def check_tested(
        self,
        inputs: Any,
        data_samples: Any = None,
        mode: str = 'tensor',
        **kwargs: Any,
    ) -> None:
        """Refuse to run the full network where another was trained alone.

        Args:
            inputs: As of the stock ``forward``, and so are the others.
            data_samples: Defaults to None.
            mode (str): Defaults to ``'tensor'``.
            **kwargs: Of the stock model.

        Raises:
            UsageError: If no subnet is active, as in stock loops.
        """
        del data_samples, kwargs
        primary, state = self.sampler.primary, self.slim_state
        is_full = state.width == self.space.max_width and state.scale == 1
        if (
            mode != 'loss'
            and is_full
            and primary != self.space.full
            and not state.is_active
            and not getattr(inputs, 'is_meta', False)  # of shapes alone
        ):
            raise UsageError(
                f'{primary} is trained alone (mutual.single_subnet), and this '
                f'would run {self.space.full}, whose other weights are '
                'random: set val_cfg=dict(type="mutualnet_mm.SubnetValLoop") '
                'and test_cfg=dict(type="mutualnet_mm.SubnetTestLoop"), or '
                f'run it within model.activate({str(primary)!r})'
            )

    def _load_from_state_dict(
        self, state_dict: dict, prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        """Refuse weights of which few fit: loaders only log what does not.

        Raises:
            UsageError: As :func:`~.misfits.check_backbone_filled`.
        """
        # As the whole model, on its own or in a parallel wrapper.
        if prefix in ('', 'module.'):
            inside = {
                key[len(prefix) :]: value
                for key, value in state_dict.items()
                if key.startswith(prefix)
            }
            self._misshapen = check_backbone_filled(self, inside)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, *args
        )
        self._loaded = {k: local_metadata.get(k) for k in _NOTED}

    def begin_step(self, step: int) -> None:
        """Compare the training of a loaded checkpoint with one that goes on.

        Here, since no hook is told whether a runner resumes, and all tools
        pass here. One that starts from the weights begins at step 0.

        Args:
            step (int): Number of the step that begins.

        Raises:
            UsageError: As :func:`check_same_norms`.
        """
        loaded, self._loaded = self._loaded, None
        if loaded is not None and step > 0:
            check_same_norms(self, loaded)
            warn_of_changes(self, loaded, step)


def _has_norms(
    norms: Tuple[int, ...], space: SubnetSpace, subnet: Subnet
) -> bool:
    """Whether a subnet runs with the batch norms of its resolution."""
    full, norms = space.resolutions[:1], tuple(norms)
    own = space.resolutions if space.norm == 'per-resolution' else full
    return full == norms[:1] and subnet.resolution in {*own}.intersection(
        norms
    )


def name_random(model: Any, incompatible: Any) -> None:
    """Name the weights that a loaded checkpoint left as they were.

    After all layers have loaded: some know their weights by older names.

    Args:
        model (nn.Module): Whose hook after loading this is; the static form
            of a subnet has it, too.
        incompatible: Its ``missing_keys`` count.
    """
    misshapen = vars(model).pop('_misshapen', ())
    missing = (re.sub(r'^module\.', '', k) for k in incompatible.missing_keys)
    random = {*missing, *misshapen}
    names = [
        name
        for name in model.state_dict()
        if name in random and not name.endswith('num_batches_tracked')
    ]
    if names:
        warn_of_random(model, names)


def save_widths(
    model: Any,
    state_dict: dict,
    prefix: str,
    local_metadata: dict,
) -> None:
    """Note beside the weights what they are trained for."""
    del state_dict, prefix
    space, norms = model.space, own_norms(model)
    local_metadata['widths'] = space.min_width, space.max_width
    if norms:
        local_metadata['norms'] = norms
    if hasattr(model, 'learning'):  # a static form has none
        note_training(model, local_metadata)
