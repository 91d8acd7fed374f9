"""The time of a training that was stopped, resumed and is finished."""

import time

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mutualnet_mm.engine import training_seconds

STEP = 0.05
PER_EPOCH = 4


@MODELS.register_module(force=True)
class SlowNumber(BaseModel):
    """One weight; a step takes a while, and one of them fails."""

    def __init__(self, fails_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.fails_at, self.steps = fails_at, 0

    def forward(self, inputs, data_samples=None, mode='loss'):
        time.sleep(STEP)
        self.steps += 1
        if self.steps == self.fails_at:
            raise KeyboardInterrupt
        return dict(loss=self.weight.sum())


def train(folder, epochs, fails_at=None, **settings):
    """Train to the end; return the seconds and the steps of this run."""
    cfg = Config(
        dict(
            experiment_name=f'{folder.name} {time.perf_counter()}',
            work_dir=str(folder),
            launcher='none',
            model=dict(type='SlowNumber', fails_at=fails_at),
            train_dataloader=dict(
                batch_size=1,
                num_workers=0,
                dataset=[dict(inputs=0)] * PER_EPOCH,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[dict(type='mutualnet_mm.TrainingClock')],
            log_level='ERROR',
            **{'resume': True, **settings},
        )
    )
    runner = Runner.from_cfg(cfg)
    try:
        runner.train()
    except KeyboardInterrupt:
        assert fails_at
    return training_seconds(runner), runner.model.steps


def test_all_runs_count(tmp_path):
    start = time.perf_counter()
    whole = train(tmp_path, 3, fails_at=PER_EPOCH + 3)[0]
    elapsed = time.perf_counter() - start
    # Two steps of the second epoch are lost, and what they took.
    assert (PER_EPOCH + 2) * STEP <= whole < elapsed
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    of_first = saved['message_hub']['runtime_info']['training_seconds']
    assert PER_EPOCH * STEP <= of_first <= whole - 2 * STEP
    start = time.perf_counter()
    seconds, steps = train(tmp_path, 3)
    elapsed = time.perf_counter() - start
    assert steps == 2 * PER_EPOCH
    assert of_first + steps * STEP <= seconds < of_first + elapsed


def test_what_is_finished_adds_nothing(tmp_path):
    seconds, steps = train(tmp_path, 1)
    assert steps == PER_EPOCH
    assert train(tmp_path, 1) == (seconds, 0)


def test_weights_alone_bring_no_time(tmp_path):
    """They come from another training."""
    train(tmp_path / 'first', 1)
    start = time.perf_counter()
    seconds, _ = train(
        tmp_path / 'second',
        1,
        resume=False,
        load_from=str(tmp_path / 'first/epoch_1.pth'),
    )
    assert seconds < time.perf_counter() - start


def test_no_step_no_time(tmp_path):
    assert train(tmp_path, 0) == (0.0, 0)
