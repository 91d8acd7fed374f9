"""Classes by their names and numbers."""

import pytest
import torch

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.classes import (
    chosen_class,
    class_names,
    find_class,
)


def test_names_of_classes(make_config, tmp_path):
    cfg = make_config()
    path = str(tmp_path / 'named.pth')
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('a', 'b')))), path)
    names = class_names(cfg, path)
    assert names == ['a', 'b']
    assert [find_class(c, names, 2) for c in ('b', '0')] == [1, 0]
    with pytest.raises(UsageError, match="no class 'c': give 'a' to 'b', or"):
        find_class('c', names, 2)
    digits = list('0123')
    with pytest.raises(UsageError, match="'cat': give a number from 0 to 3"):
        find_class('cat', digits, 4)
    torch.save(dict(state_dict={}), path)
    assert class_names(cfg, path) is None
    with pytest.raises(UsageError, match="'2': give a number from 0 to 1"):
        find_class('2', None, 2)


def test_names_that_a_config_has(make_config, tmp_path):
    cfg, path = make_config(), str(tmp_path / 'x.pth')
    torch.save(dict(state_dict={}), path)
    dataset = cfg.test_dataloader.dataset
    dataset.metainfo = None
    assert class_names(cfg, path) is None
    (tmp_path / 'names.txt').write_text('a\nb\n')
    dataset.metainfo = dict(classes=str(tmp_path / 'names.txt'))
    assert class_names(cfg, path) == ['a', 'b']
    cfg.test_dataloader = [cfg.test_dataloader]
    assert class_names(cfg, path) == ['a', 'b']
    dataset.metainfo = dict(classes='nowhere.txt')
    with pytest.raises(ConfigError, match=r"'nowhere\.txt' cannot be read"):
        class_names(cfg, path)


@pytest.mark.parametrize('number', [2, 4, 7])
def test_names_of_another_data_set(number, make_config, checkpoint, tmp_path):
    """A network of four classes."""
    content = torch.load(checkpoint, weights_only=False)
    names = [f'n{i}' for i in range(number)]
    content['meta'] = dict(dataset_meta=dict(classes=names))
    path = str(tmp_path / 'named.pth')
    torch.save(content, path)
    network = TrainedNetwork(make_config(), path, ['1.0x-32'])
    assert chosen_class(network, path, '1') == (
        names if number == 4 else None,
        1,
    )
