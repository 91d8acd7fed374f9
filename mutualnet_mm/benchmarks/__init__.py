# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What things take, against what else could be done: one file per subject."""

from typing import Any, Callable, Dict

from .calibrate import benchmark_calibrate
from .cost import benchmark_cost
from .data import benchmark_data
from .grow import benchmark_grow
from .infer import benchmark_infer
from .load import benchmark_load
from .loading import benchmark_loading
from .memory import benchmark_memory
from .rounding import benchmark_rounding
from .scale import benchmark_scale
from .step import benchmark_step
from .table import benchmark_table

BENCHMARKS: Dict[str, Callable[..., Dict[str, Any]]] = dict(
    step=benchmark_step,
    memory=benchmark_memory,
    infer=benchmark_infer,
    load=benchmark_load,
    table=benchmark_table,
    calibrate=benchmark_calibrate,
    data=benchmark_data,
    cost=benchmark_cost,
    scale=benchmark_scale,
    grow=benchmark_grow,
    loading=benchmark_loading,
    rounding=benchmark_rounding,
)
"""By the names of the sub-commands of ``mutualnet benchmark``."""

__all__ = ['BENCHMARKS']
