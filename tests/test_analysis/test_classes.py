"""Classes by their names and numbers."""

import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.analysis.classes import class_names, find_class


def test_names_of_classes(make_config, tmp_path):
    cfg = make_config()
    path = str(tmp_path / 'named.pth')
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), path)
    names = class_names(cfg, path)
    assert names == ['a', 'b']
    assert [find_class(c, names, 2) for c in ('b', '0')] == [1, 0]
    with pytest.raises(UsageError, match="no class 'c': give 'a' to 'b', or"):
        find_class('c', names, 2)
    torch.save(dict(state_dict={}), path)
    assert class_names(cfg, path) is None
    with pytest.raises(UsageError, match="'2': give a number from 0 to 1"):
        find_class('2', None, 2)
