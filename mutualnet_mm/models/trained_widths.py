# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a checkpoint was trained for, noted beside its weights."""

import re
from typing import Any, Iterable, Optional, Sequence, Tuple

from ..errors import UsageError
from ..subnet import Subnet, SubnetSpace
from .misfits import check_backbone_filled, warn_of_random
from .wraps import Stock


class TrainedWidths(Stock):
    """Refuses checkpoints, and subnets of them, without trained weights.

    A part of :class:`~.mutual.MutualLearningMixin`.
    """

    # What a loaded checkpoint was trained for, until this model trains.
    _loaded_widths: Optional[Tuple[float, float]] = None
    # Resolutions that its batch norms have parameters of their own for.
    _loaded_norms: Optional[Tuple[int, ...]] = None
    # Weights that have another shape in the checkpoint, while it is loaded.
    _misshapen: Sequence[str]

    def check_trained(self, subnets: Iterable[Subnet]) -> None:
        """Refuse subnets that the loaded checkpoint was never trained for.

        Raises:
            UsageError: Names the first such subnet. Checkpoints that do not
                say what they were trained for pass.
        """
        low, high = self._loaded_widths or (0.0, float('inf'))
        for subnet in subnets:
            if not low <= subnet.width <= high:
                raise UsageError(
                    f'the checkpoint was trained at widths from {low} to '
                    f'{high}, so {subnet} has no trained weights: leave it '
                    'out, and set mutual.width_range (or widths) as in the '
                    'training'
                )
            norms = self._loaded_norms
            if norms and not _has_norms(norms, self.space, subnet):
                raise UsageError(
                    'the checkpoint has batch norms for each of the '
                    f'resolutions {", ".join(map(str, norms))}, which the '
                    f'config does not use for {subnet}: set mutual.norm='
                    "'per-resolution', and resolution as in the training"
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
        self._loaded_widths = local_metadata.get('widths')
        self._loaded_norms = local_metadata.get('norms')


def _has_norms(
    norms: Tuple[int, ...], space: SubnetSpace, subnet: Subnet
) -> bool:
    """Whether a subnet runs with the batch norms of its resolution."""
    full, norms = space.resolutions[:1], tuple(norms)
    own = space.resolutions if space.norm == 'per-resolution' else full
    return full == norms[:1] and subnet.resolution in {*own}.intersection(
        norms
    )


def check_same_norms(model: Any, weights: Any) -> None:
    """Refuse to resume with batch norms of other resolutions.

    The optimizer knows its parameters by their order: it would have another
    number of them than it saved, or take the momenta of others.

    Args:
        model (nn.Module): That is to be trained.
        weights (Mapping): A ``state_dict``, whose ``_metadata`` count.

    Raises:
        UsageError: Says what both have. A ``state_dict`` that does not say
            what it was trained for passes.
    """
    noted = getattr(weights, '_metadata', {}).get('', {})
    found, own = tuple(noted.get('norms') or ()), _norms(model)
    if 'widths' in noted and found != own:
        raise UsageError(
            f'has batch norms for {_said(found)}, the config for '
            f'{_said(own)}, so training cannot go on: resume with mutual.norm '
            'and resolution as in the training, or start anew, with load_from '
            'and without resume'
        )


def _norms(model: Any) -> Tuple[int, ...]:
    """Resolutions with batch norms of their own; empty if all share one."""
    space: Any = getattr(model, 'space', None)  # a stock model has none
    is_own = getattr(space, 'norm', None) == 'per-resolution'
    return tuple(space.resolutions) if is_own else ()


def _said(norms: Tuple[int, ...]) -> str:
    return ', '.join(map(str, norms)) or 'all resolutions together'


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
    space, norms = model.space, _norms(model)
    local_metadata['widths'] = space.min_width, space.max_width
    if norms:
        local_metadata['norms'] = norms
