import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import build_model
from mutualnet_mm.models.build import listed_subnets


@pytest.fixture
def config(classifier_config):
    """Return a whole config around the small classifier."""

    def make(**others):
        model = classifier_config()
        return Config(dict(default_scope='mmpretrain', model=model, **others))

    return make


def test_the_preprocessor_of_the_config(config):
    cfg = config(data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6]))
    model = build_model(cfg)
    assert model.data_preprocessor.mean.flatten().tolist() == [1, 2, 3]
    assert 'data_preprocessor' not in cfg.model  # what is given stays


def test_stock_models_are_refused(config):
    cfg = config()
    cfg.model = dict(type='ImageClassifier', backbone=dict(type='LeNet5'))
    with pytest.raises(ConfigError, match="model.type='ImageClassifier'"):
        build_model(cfg)


@pytest.mark.parametrize(
    'others, expected',
    [
        (dict(), ['1.0x-64', '0.25x-32']),
        (dict(test_cfg=None), ['1.0x-64', '0.25x-32']),
        (dict(test_cfg=dict(subnets=None)), ['1.0x-64', '0.25x-32']),
        (dict(test_cfg=dict(subnets='0.5x-48')), ['0.5x-48']),
        (
            dict(test_cfg=dict(subnets=['0.5x-48', '1x-64', '0.50x-48'])),
            ['0.5x-48', '1.0x-64'],
        ),
    ],
    ids=str,
)
def test_listed_subnets(config, others, expected):
    cfg = config(**others)
    found = listed_subnets(cfg, build_model(cfg))
    assert found == [Subnet.parse(text) for text in expected]


def test_a_listed_subnet_outside_of_the_range(config):
    cfg = config(test_cfg=dict(subnets=['0.1x-64']))
    with pytest.raises(ConfigError, match='0.1x-64'):
        listed_subnets(cfg, build_model(cfg))
