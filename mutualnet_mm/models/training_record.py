# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What a checkpoint says of the training that it comes from."""

import ast
from typing import Any, Dict, Optional, Set, Union

from ..errors import UsageError
from ..sampler import SubnetSampler
from ..subnet import Subnet
from .checkpoints import read_content
from .settings import MutualSettings


class TrainingRecord:
    """The notes that MMEngine's runner leaves beside the weights.

    Args:
        checkpoint (str or dict): File or address; or its ``meta``, where it
            has been read.

    Attributes:
        dataset_meta (dict): Names and colours of the classes, as far as the
            training noted them.

    Raises:
        UsageError: If the file cannot be read.
    """

    def __init__(self, checkpoint: Union[str, Dict[str, Any]]) -> None:
        self._meta: Any = checkpoint
        if isinstance(checkpoint, str):
            self._meta = _read_meta(checkpoint)
        self.dataset_meta: Dict[str, Any] = (
            self._meta.get('dataset_meta') or {}
        )

    def trained_subnets(self) -> Optional[Set[Subnet]]:
        """Subnets that the first step of the training was of.

        Returns:
            set[Subnet] or None: None where the file does not say, or if it
            is of a stock training.
        """
        sampler = self._sampler()
        return None if sampler is None else set(sampler.sample(0).values())

    def described(self) -> Optional[str]:
        """Say in words what the training was of, as far as the file does."""
        sampler, subnets = self._sampler(), self.trained_subnets()
        if sampler is None or subnets is None:
            return None
        if len(subnets) == 1:
            return f'{subnets.pop()} alone'
        space = sampler.space
        sizes = ', '.join(map(str, space.resolutions))
        return f'widths {space.min_width}x to {space.max_width}x at {sizes}'

    def _sampler(self) -> Optional[SubnetSampler]:
        text = self._meta.get('cfg')
        mutual = _mutual_settings(text) if isinstance(text, str) else None
        if mutual is None:
            return None
        try:
            return MutualSettings.read(mutual).sampler
        except UsageError:  # of another release
            return None


def _read_meta(checkpoint: str) -> Dict[str, Any]:
    content = read_content(checkpoint, 'checkpoint')
    meta = content.get('meta') if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


def _mutual_settings(text: str) -> Optional[Dict[str, Any]]:
    """Read ``model.mutual`` from the text of a config, which is not run.

    A checkpoint is data, and may come from anywhere.
    """
    try:
        assigned = {
            target.id: line.value
            for line in ast.parse(text).body
            if isinstance(line, ast.Assign)
            for target in line.targets
            if isinstance(target, ast.Name)
        }
        mutual = _plain(_keywords(assigned['model'])['mutual'])
    except (SyntaxError, ValueError, KeyError, TypeError):
        return None
    return mutual if isinstance(mutual, dict) else None


def _keywords(node: ast.AST) -> Dict[str, ast.AST]:
    """Arguments of ``dict(...)``, as configs are written."""
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
    ):
        return {str(k.arg): k.value for k in node.keywords}
    return {}


def _plain(node: ast.AST) -> Any:
    """Value of ``dict(...)`` or of a literal."""
    keywords = _keywords(node)
    if keywords:
        return {name: _plain(value) for name, value in keywords.items()}
    return ast.literal_eval(node)
