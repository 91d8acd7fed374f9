import functools

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm.query_table.fingerprints import (
    config_fingerprints,
    weights_fingerprint,
)


def make_config():
    loader = dict(batch_size=4, num_workers=2, dataset=dict(data_root='a'))
    return Config(
        dict(
            model=dict(type='A', widths=(0.5, 1.0)),
            train_dataloader=loader,
            test_dataloader=loader,
            test_evaluator=[dict(type='Accuracy')],
            test_cfg=dict(group_size=8),
            work_dir='here',
        )
    )


@pytest.mark.parametrize(
    'options, changed',
    [
        ({}, []),
        ({'work_dir': 'there'}, []),
        ({'test_cfg.group_size': 2}, []),
        ({'test_dataloader.num_workers': 0}, []),
        ({'train_dataloader.persistent_workers': True}, []),
        ({'train_dataloader': None}, ['train_dataloader']),
        ({'model.widths': (0.5, 0.9)}, ['model']),
        ({'custom_hooks': [dict(type='EMAHook')]}, ['custom_hooks']),
        ({'test_dataloader.dataset.data_root': 'b'}, ['test_dataloader']),
        ({'train_dataloader.batch_size': 8}, ['train_dataloader']),
        ({'test_evaluator.0.topk': 5}, ['test_evaluator']),
        ({'test_cfg.fp16': True}, ['fp16']),
    ],
    ids=str,
)
def test_configs(options, changed):
    config = make_config()
    before = config.pretty_text
    first = config_fingerprints(config)
    assert config.pretty_text == before
    config.merge_from_dict(options)
    for key, value in options.items():
        if value is None:
            config[key] = None
    found = config_fingerprints(config)
    assert [k for k in first if found[k] != first[k]] == changed


def test_weights():
    weights = dict(
        a=torch.rand(2, 3), b=torch.tensor(7), c=torch.rand(2).half()
    )
    first = weights_fingerprint(weights)
    turned = {k: weights[k].clone() for k in reversed(weights)}
    turned['a'] = turned['a'].t().contiguous().t()  # another memory layout
    assert weights_fingerprint(turned) == first
    for other in (
        dict(weights, a=weights['a'] + 1e-6),
        dict(weights, a=weights['a'].reshape(3, 2)),
        dict(weights, b=torch.tensor(7, dtype=torch.int32)),
        dict(a=weights['a'], b=weights['b'], d=weights['c']),
        dict(weights, d=torch.rand(1)),
    ):
        assert weights_fingerprint(other) != first


def make_function():
    def function():
        pass

    return function


def test_functions_and_objects_have_no_address():
    """Two processes have them elsewhere, and continue one table."""
    found = set()
    for _ in range(2):
        cfg = make_config()
        cfg.model.update(
            hook=make_function(), wraps=dict, made=functools.partial(print, 1)
        )
        found.add(str(config_fingerprints(cfg)))
    assert len(found) == 1
    cfg.model.wraps = list
    assert str(config_fingerprints(cfg)) not in found
