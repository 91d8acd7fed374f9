# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Whether more or less of a metric is better."""

from typing import Any, Mapping, Optional

from mmengine.hooks import CheckpointHook


def better_direction(
    hook: Mapping[str, Any], name: str, first: str
) -> Optional[str]:
    """What MMEngine's checkpoint hook takes for the better of a metric.

    Args:
        hook (Mapping): Its settings, ``default_hooks.checkpoint``: its rule of
            the metric counts, if it has one, else its words for metrics
            (``greater_keys`` and ``less_keys``, or MMEngine's, such as
            ``'acc'`` and ``'loss'``) that the name is or has in it.
        name (str): The metric.
        first (str): That which ``save_best='auto'`` stands for.

    Returns:
        str or None: ``'greater'`` or ``'less'``; None where neither is known.
    """
    saved, rule = hook.get('save_best'), hook.get('rule')
    names = [saved] if isinstance(saved, str) else list(saved or ())
    rules = [rule] if rule is None or isinstance(rule, str) else list(rule)
    if len(rules) == 1:
        rules *= len(names)
    told = {first if n == 'auto' else n: r for n, r in zip(names, rules)}
    words = {k: hook.get(k) for k in ('greater_keys', 'less_keys')}
    try:
        stock = CheckpointHook(save_best=name, rule=told.get(name), **words)
    except ValueError:  # none of its words is in the name
        return None
    return stock.rules[0]


def say_so(name: str) -> str:
    """How a config, or ``--cfg-options``, says that more of it is better."""
    checkpoint = dict(save_best=name, rule='greater')
    return ' '.join(
        f'default_hooks.checkpoint.{key}={value}'
        for key, value in checkpoint.items()
    )
