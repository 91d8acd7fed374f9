"""Settings of a config that choose kernels."""

import pytest
import torch
from mmengine.config import Config
from option_steps import LINEAR

from mutualnet_mm import ConfigError
from mutualnet_mm.config import check_training


@pytest.fixture
def make_runner(build_runner, configure):
    def make(mutual=None, **settings):
        return build_runner(
            model=configure(LINEAR, mutual),
            val_dataloader=None,
            val_evaluator=None,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_cfg=dict(by_epoch=False, max_iters=2),
            **settings,
        )

    return make


@pytest.fixture
def restored():
    benchmark = torch.backends.cudnn.benchmark
    cudnn = torch.backends.cudnn.deterministic
    yield
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = cudnn
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize('compiled', [True, dict(backend='eager')])
def test_compiled_steps_are_refused(make_runner, compiled):
    """By the stock runner, before the first step, and by our tool."""
    runner = make_runner(compile=compiled)
    with pytest.raises(ConfigError, match='compile of the config would'):
        runner.train()
    assert runner.iter == 0
    with pytest.raises(ConfigError, match='compile=.* would compile each'):
        check_training(Config(runner.cfg.to_dict()))
    runner.cfg.compile = False
    check_training(runner.cfg)
    runner.cfg.efficient_conv_bn_eval = ['backbone']
    with pytest.raises(ConfigError, match="eval=.'backbone'. traces layers"):
        check_training(runner.cfg)


@pytest.mark.parametrize(
    'benchmark, mutual, lines',
    [
        (True, {}, 1),
        (False, {}, 0),
        (True, dict(single_subnet='0.5x-16'), 0),
    ],
)
def test_cudnn_benchmark(
    make_runner, restored, monkeypatch, benchmark, mutual, lines
):
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.models.kernels.print_log',
        lambda text, **settings: said.append(text),
    )
    make_runner(mutual, env_cfg=dict(cudnn_benchmark=benchmark)).train()
    assert len(said) == lines
    assert all('cudnn_benchmark=True' in text for text in said)


def test_only_algorithms_that_repeat(make_runner, restored):
    found = []
    for _ in range(2):
        randomness = dict(seed=3, deterministic=True)
        runner = make_runner(randomness=randomness)
        runner.train()
        assert torch.are_deterministic_algorithms_enabled()
        found.append(runner.model.state_dict())
    for key, value in found[0].items():
        assert torch.equal(value, found[1][key]), key
