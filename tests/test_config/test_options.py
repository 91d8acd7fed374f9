import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError, UsageError, cli
from mutualnet_mm.config import draw_predictions, options


@pytest.mark.parametrize('settings', [None, dict(enable=False)])
def test_learning_rates_of_no_known_batch_size(settings):
    cfg = Config(dict(auto_scale_lr=settings))
    with pytest.raises(ConfigError, match='--auto-scale-lr needs the batch'):
        options.scale_learning_rate(cfg)


def test_optimizer_wrappers_that_would_be_replaced():
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(ConfigError, match='ApexOptimWrapper'):
        options.use_mixed_precision(cfg)
    assert cfg.optim_wrapper == dict(type='ApexOptimWrapper')


def test_given_randomness_counts():
    """The stock tool ignores it where the config has some, without a word."""
    cfg = Config(dict(randomness=dict(seed=1, deterministic=True)))
    options.set_randomness(cfg)
    assert cfg.randomness == dict(seed=1, deterministic=True)
    options.set_randomness(cfg, seed=0, diff_rank_seed=True)
    assert cfg.randomness == dict(
        seed=0, deterministic=True, diff_rank_seed=True
    )


def test_loaders_without_workers():
    """Torch refuses to keep workers that there are not."""
    loader = dict(num_workers=0)
    cfg = Config(dict(default_scope='mmpretrain', test_dataloader=loader))
    options.set_loaders(cfg)
    assert 'persistent_workers' not in cfg.test_dataloader


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmaction'])
def test_several_loaders(scope):
    """Which take turns, as in training on images and videos."""
    loaders = [dict(num_workers=2), dict(num_workers=0)]
    cfg = Config(dict(default_scope=scope, train_dataloader=loaders))
    options.set_loaders(cfg, pin_memory=False, persistent_workers=False)
    for loader in cfg.train_dataloader:
        assert loader.pin_memory is False
        assert loader.persistent_workers is False
        assert ('collate_fn' in loader) == (scope == 'mmpretrain')


@pytest.mark.parametrize(
    'scope, hook, interval, message',
    [
        ('mmdet', None, None, "visualization=dict.type='DetVisualizationHoo"),
        ('mmpretrain', None, None, "=dict.type='VisualizationHook'"),
        ('mmdet', 'DetVisualizationHook', 5, '--interval 5: DetVis'),
        ('mmaction', 'VisualizationHook', None, "mmaction2's Visualization"),
        ('mmdet', 'NoHook', None, "type='NoHook' is not in the hook registry"),
    ],
)
def test_hooks_that_do_not_draw(scope, hook, interval, message):
    pytest.importorskip(scope)
    hooks = {} if hook is None else dict(visualization=dict(type=hook))
    cfg = Config(dict(default_scope=scope, default_hooks=hooks))
    with pytest.raises(ConfigError, match=message):
        draw_predictions(cfg, 'shown', interval=interval)


@pytest.mark.parametrize(
    'given, message',
    [
        ('--interval 5', '--interval 5: nothing is drawn, add --show-dir or'),
        ('--wait-time 9', '--wait-time 9.0: no window is shown, add --show'),
        ('--wait-time 2 --show-dir a', '--wait-time 2.0: no window is shown'),
    ],
)
def test_how_nothing_is_drawn(given, message):
    args = cli.testing_parser('Test.').parse_args(
        ['a.py', 'a.pth', *given.split()]
    )
    with pytest.raises(UsageError, match=message):
        cli.set_testing(Config(dict(test_cfg=dict())), args)
