# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""How a part of a model is initialised, as MMEngine's configs say it."""

from typing import Any, List, Mapping, Sequence, Union

InitCfg = Union[Mapping[str, Any], Sequence[Mapping[str, Any]], None]


def init_configs(init_cfg: InitCfg) -> List[Mapping[str, Any]]:
    """List the initialisations of an ``init_cfg``: of one, several or none."""
    if isinstance(init_cfg, Mapping):
        return [init_cfg]
    return list(init_cfg or ())
