from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import build_model
from mutualnet_mm.models.build import listed_subnets, without_teacher


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


def test_settings_without_a_teacher(enter_scope):
    """Of distillation; what is deployed looks for no file of the teacher."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    from mmdet.models import LAD, SingleStageDetector

    model = SimpleNamespace()
    settings = dict(
        type='mutualnet_mm.MutualLearning',
        wraps='LAD',
        backbone=dict(depth=18),
        teacher_backbone=dict(depth=101),
        teacher_ckpt='missing.pth',
        eval_teacher=True,
    )
    kind = type('MutualLAD', (), dict(stock_class=LAD))
    found = without_teacher(settings, kind())
    assert found == dict(
        type='mutualnet_mm.MutualLearning',
        wraps='mmdet.SingleStageDetector',
        backbone=dict(depth=18),
    )
    assert issubclass(LAD, SingleStageDetector) and 'teacher_ckpt' in settings
    plain = dict(settings=1)
    assert without_teacher(plain, model) is plain


OURS = 'mutualnet_mm.'
LEARNING = f"'{OURS}MutualLearning'"
SLIMMABLE = f"'{OURS}Slimmable'"


@pytest.mark.parametrize(
    'changes, parts',
    [
        ({'type': f'{OURS}MutualLerning'}, ['MutualLerning', LEARNING]),
        ({'type': 'MutualLearning'}, ['registry', f'mean {LEARNING}']),
        ({'backbone.type': 'Slimmable'}, ['registry', f'mean {SLIMMABLE}']),
        ({'head.type': 'LinearHed'}, ["'LinearHed'", 'custom_imports']),
        ({'type': 'ImageClassifier'}, ["'wraps'", LEARNING, SLIMMABLE]),
        ({'backbone.type': 'ResNet'}, ["'wraps'", LEARNING, SLIMMABLE]),
        ({'mutal': dict()}, ["wraps='ImageClassifier'", "'mutal'"]),
        ({'backbone.depht': 18}, ["wraps='ResNet'", "'depht'"]),
        ({'backbone.mutual': dict()}, ["wraps='ResNet'", "'mutual'"]),
        ({'backbone.depth': 19}, ["wraps='ResNet'", 'invalid depth 19']),
        ({'backbone.out_indices': (7,)}, ["wraps='ResNet'", 'out_indices']),
        ({'backbone.wraps': 'LinearClsHead'}, ["wraps='LinearClsHead'"]),
        ({'backbone.wraps': None}, ['model.backbone.wraps=None']),
        ({'wraps': None}, ['error: model.wraps=None']),
        ({'head.num_class': 3}, ["argument 'num_class'", 'correct']),
    ],
    ids=str,
)
def test_slips(config, changes, parts):
    """Named in one line, with what to write."""
    cfg = config()
    cfg.model.backbone.update(type='mutualnet_mm.Slimmable', wraps='ResNet')
    cfg.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    with pytest.raises(ConfigError) as error:
        build_model(cfg)
    message = f'error: {error.value}'
    assert '\n' not in message
    for part in parts:
        assert part in message


def test_a_detector_wraps_no_classifier(detector_config):
    model = detector_config()
    model.wraps = 'mmpretrain.ImageClassifier'
    cfg = Config(dict(default_scope='mmdet', model=model))
    with pytest.raises(ConfigError, match="wraps='ImageClassifier'.*argument"):
        build_model(cfg)


def test_defects_are_no_slips(config, monkeypatch):
    """An error of ours inside of the stock constructor is not hidden."""

    def broken(*args):
        raise KeyError('defect')

    target = 'mutualnet_mm.models.backbones.slimmable.convert'
    monkeypatch.setattr(target, broken)
    with pytest.raises(KeyError, match='defect'):
        build_model(config())
