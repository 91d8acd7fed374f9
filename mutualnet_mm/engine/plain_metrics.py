# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The metrics of an evaluator that are numbers."""

import math
from typing import Any, Dict

from ..query_table.progress import Metrics


def plain_numbers(metrics: Dict[str, Any]) -> Metrics:
    """Plain numbers of the metrics that are one; None for NaN."""
    kept: Metrics = {}
    for name, value in metrics.items():
        try:
            number = float(value)
        except (TypeError, ValueError):  # lists by class, tables
            continue
        kept[name] = number if math.isfinite(number) else None
    return kept
