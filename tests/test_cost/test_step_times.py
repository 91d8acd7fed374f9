import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import UsageError
from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import measure_steps, step_times

SIZE = 32


@pytest.fixture
def config(classifier_config, tmp_path):
    """Return a config that trains the small classifier on noise."""

    def make(**mutual):
        rng = np.random.default_rng(0)
        for name in 'ab':
            (tmp_path / name).mkdir(exist_ok=True)
            for i in range(2):
                image = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                cv2.imwrite(str(tmp_path / name / f'{i}.png'), image)
        return Config(
            dict(
                default_scope='mmpretrain',
                model=classifier_config(dict(resolution=(SIZE,), **mutual)),
                data_preprocessor=dict(mean=[127] * 3, std=[50] * 3),
                train_dataloader=dict(
                    batch_size=3,
                    num_workers=2,
                    prefetch_factor=2,
                    persistent_workers=True,
                    sampler=dict(type='DefaultSampler', shuffle=True),
                    dataset=dict(
                        type='CustomDataset',
                        data_root=str(tmp_path),
                        pipeline=[
                            dict(type='LoadImageFromFile'),
                            dict(type='PackInputs'),
                        ],
                    ),
                ),
                optim_wrapper=dict(
                    optimizer=dict(type='SGD', lr=1.0, weight_decay=0.1)
                ),
            )
        )

    return make


@pytest.fixture
def spy(monkeypatch):
    """Collect the models built; the clock ticks with every forward pass."""
    models, ticks = [], []

    def build(cfg):
        model = step_times_build(cfg)
        model.backbone.register_forward_hook(lambda *_: ticks.append(1))
        model.before = [p.detach().clone() for p in model.parameters()]
        models.append(model)
        return model

    step_times_build = step_times.build_model
    monkeypatch.setattr(step_times, 'build_model', build)
    monkeypatch.setattr(step_times, 'perf_counter', lambda: len(ticks))
    return models


def test_the_first_of_several_loaders(config, spy):
    cfg = config()
    first = cfg.train_dataloader
    cfg.train_dataloader = [first, dict(first, batch_size=1)]
    assert measure_steps(cfg, pairs=1).batch_size == 3


def test_both_run_a_whole_iteration(config, spy):
    """Two random subnets, the least one and the full one: four passes."""
    times = measure_steps(config(), pairs=3)
    assert (times.mutual, times.full, times.ratio) == (4, 1, 4)
    assert (times.pairs, times.batch_size) == (3, 3)
    assert times.machine
    (model,) = spy
    # In training mode, the full network in both: two pairs more than timed.
    assert model.backbone.bn1.num_batches_tracked == 2 * (3 + 2)
    # Timed, not trained.
    assert all(map(torch.equal, model.parameters(), model.before))


def test_the_macs_are_those_of_what_was_timed(config, spy):
    times = measure_steps(config(num_random=0), pairs=2)
    (model,) = spy
    narrow, full = (count_macs(model, f'{w}x-{SIZE}') for w in (0.25, 1.0))
    assert times.ratio == 2
    assert times.macs_ratio == pytest.approx(1 + narrow / full)


def test_seconds_on_the_real_clock(config):
    seen = []

    def track(numbers):
        for number in numbers:
            seen.append(number)
            yield number

    times = measure_steps(
        config(num_random=0, include_min=False), 3, track=track
    )
    assert len(seen) == 5  # two of them not timed
    assert times.macs_ratio == 1
    assert 0 < times.full < 10 and 0.1 < times.ratio < 10


def test_errors(config):
    cfg = config()
    cfg.train_dataloader = None
    with pytest.raises(UsageError, match='train_dataloader'):
        measure_steps(cfg)
