# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Changes of the settings of a config."""

import copy
from dataclasses import dataclass
from typing import Any, Sequence

from mmengine.config import Config


@dataclass(frozen=True)
class Change:
    """One setting that differs from the stock config's.

    Args:
        key (str): Place of the setting, ``'model.backbone.norm_eval'``.
        value: What it is now; what is put behind a list if ``appends``.
        why (str): In a few words.
        appends (bool): Whether the stock list stays in front. Defaults to
            False.
    """

    key: str
    value: Any
    why: str
    appends: bool = False


def apply_changes(cfg: Config, changes: Sequence[Change]) -> Config:
    """Return a copy of a config with the changes made."""
    cfg = copy.deepcopy(cfg)
    options = {c.key: c.value for c in changes if not c.appends}
    for change in changes:
        if change.appends:
            stock = list(cfg.get(change.key) or ())
            options[change.key] = [*stock, change.value]
    cfg.merge_from_dict(options)
    return cfg
