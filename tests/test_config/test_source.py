"""Configs as source, and what cannot be written so."""

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config.source import config_source

CONTAINERS = dict(
    a=(1,),
    b=[],
    c={},
    d={0: 'x', 'not-a-name': None},
    e=[[()], [{'f': True}]],
    g="it's\n\\",
    h=1e-5,
    i={1, 2},
)


def read(text):
    return Config.fromstring(text, '.py')


def test_it_says_the_same():
    cfg = Config(dict(model=CONTAINERS, x=3))
    text = config_source(cfg)
    assert read(text).to_dict() == cfg.to_dict()
    assert text == cfg.pretty_text  # as mmengine writes what it can write


@pytest.mark.parametrize('sign', [1, -1])
def test_infinite_numbers(sign):
    end = sign * float('inf')
    cfg = Config(dict(param_scheduler=[dict(end=end)], end=(0, end)))
    found = read(config_source(cfg))
    assert found.param_scheduler[0].end == end and found.end == (0, end)
    assert cfg.end == (0, end)


def test_undefined_numbers():
    number = read(config_source(Config(dict(a=float('nan'))))).a
    assert number != number


@pytest.mark.parametrize(
    'value',
    [torch.float16, torch.nn.ReLU(), len, '{{ fileBasename }}', lambda: None],
)
def test_what_cannot_be_kept(value):
    cfg = Config(dict(a=1, model=dict(head=[dict(b=2), dict(c=value)])))
    with pytest.raises(ConfigError, match=r'model.head.1.c, .* be kept in'):
        config_source(cfg)
