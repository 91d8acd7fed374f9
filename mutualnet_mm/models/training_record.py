# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a checkpoint says of the training that it comes from."""

from typing import Any, Dict, Optional, Set

from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from ..errors import UsageError, first_line
from ..subnet import Subnet
from .settings import MutualSettings


class TrainingRecord:
    """The notes that MMEngine's runner leaves beside the weights.

    Args:
        checkpoint (str): File or address.

    Attributes:
        dataset_meta (dict): Names and colours of the classes, as far as the
            training noted them.

    Raises:
        UsageError: If the file cannot be read.
    """

    def __init__(self, checkpoint: str) -> None:
        try:
            content = CheckpointLoader.load_checkpoint(
                checkpoint, 'cpu', logger='silent'
            )
        except Exception as error:  # each storage and format has its own
            raise UsageError(
                f'checkpoint {checkpoint!r} cannot be read: '
                f'{first_line(error)}'
            ) from error
        meta = content.get('meta') if isinstance(content, dict) else None
        self._meta: Dict[str, Any] = meta if isinstance(meta, dict) else {}
        self.dataset_meta: Dict[str, Any] = (
            self._meta.get('dataset_meta') or {}
        )

    def trained_subnets(self) -> Optional[Set[Subnet]]:
        """Subnets that the first step of the training was of.

        Returns:
            set[Subnet] or None: None where the file does not say, or if it
            is of a stock training.
        """
        text = self._meta.get('cfg')
        if not isinstance(text, str):
            return None
        try:
            mutual = Config.fromstring(text, '.py').model.get('mutual')
        except Exception:  # notes of other programs, of older releases
            return None
        if not isinstance(mutual, dict):
            return None
        return set(MutualSettings.read(mutual).sampler.sample(0).values())
