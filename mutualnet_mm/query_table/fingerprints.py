# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Hashes of configs and weights, to tell whether they are the same."""

import hashlib
import json
import re
from typing import Any, Dict, Mapping

import torch
from mmengine.config import Config
from torch import Tensor

# Settings that the metrics of a checkpoint depend on.
_SETTINGS = (
    *('custom_imports', 'default_scope', 'model', 'data_preprocessor'),
    *('custom_hooks', 'train_dataloader', 'test_dataloader'),
    *('test_evaluator',),
)
# Settings of the data loaders that the metrics do not depend on.
_SPEED = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory')


def config_fingerprints(cfg: Config) -> Dict[str, str]:
    """SHA-256 of each setting that decides what a test measures, by its name.

    The work dir, training schedules, logging and the number of workers do not
    matter, nor does the size of evaluation groups.
    """
    chosen = Config({key: cfg.get(key) for key in _SETTINGS}).to_dict()
    for loader in (chosen['train_dataloader'], chosen['test_dataloader']):
        for key in _SPEED:
            (loader or {}).pop(key, None)
    chosen['fp16'] = (cfg.get('test_cfg') or {}).get('fp16', False)
    texts = {k: json.dumps(v, default=_name) for k, v in chosen.items()}
    return {
        name: hashlib.sha256(text.encode()).hexdigest()
        for name, text in texts.items()
    }


def _name(value: Any) -> str:
    """Name a class, a function or an object, the same in every process."""
    name = getattr(value, '__qualname__', None)
    if name is not None:
        return f'{value.__module__}.{name}'
    return re.sub(r' at 0x[0-9a-fA-F]+', '', repr(value))


def weights_fingerprint(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, whatever the device."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {tensor.shape}'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
