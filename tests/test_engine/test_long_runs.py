"""Long trainings: memory and open files stay as they are, nothing is kept.

``pytest tests/test_engine/test_long_runs.py -m nightly``: 2,000 steps.
"""

import gc
import itertools
import os
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from programs import forget_instances

from mutualnet_mm.apis import AdaptiveModel

STATUS = Path('/proc/self')
_numbers = itertools.count()


def open_files():
    return len(os.listdir(STATUS / 'fd'))


def resident_bytes():
    pages = int((STATUS / 'statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE')


def living():
    """Number of objects, and bytes of all tensors."""
    gc.collect()
    objects = gc.get_objects()
    tensors = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in objects
        if type(t) in (torch.Tensor, torch.nn.Parameter)
        and t.device.type == 'cpu'
        and t.layout == torch.strided
    }
    return len(objects), sum(tensors.values())


class Watch(Hook):
    """Notes what is taken after each validation."""

    priority = 'LOWEST'

    def __init__(self):
        self.rows = []

    def after_val_epoch(self, runner, metrics=None):
        objects, tensors = living()
        self.rows.append(
            (runner.iter, objects, tensors, resident_bytes(), open_files())
        )


def config(make_config, steps, every):
    """Of a small classifier with all hooks of a usual training."""
    cfg = make_config(experiment_name=f'long{next(_numbers)}')
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler')
    cfg.val_dataloader = cfg.test_dataloader
    cfg.val_evaluator = [dict(type='Accuracy')]
    cfg.val_cfg = dict(
        type='mutualnet_mm.SubnetValLoop', subnets=['1.0x-32', '0.25x-16']
    )
    cfg.train_cfg = dict(by_epoch=False, max_iters=steps, val_interval=every)
    cfg.default_hooks = dict(
        logger=dict(
            type='LoggerHook', interval=every, log_metric_by_epoch=False
        ),
        checkpoint=dict(
            type='CheckpointHook',
            by_epoch=False,
            interval=every,
            max_keep_ckpts=1,
        ),
    )
    cfg.log_processor = dict(by_epoch=False)
    cfg.custom_hooks = [
        dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2),
        dict(type='EMAHook'),
    ]
    return cfg


def train(cfg):
    """Return what was noted, and weak references to what must not live on."""
    runner = Runner.from_cfg(cfg)
    watch = Watch()
    runner.register_hook(watch)
    runner.train()
    model = runner.model
    parts = [runner, model, model.slim_state, model.backbone, model.sampler]
    parts += [runner.train_loop, runner.val_loop, *runner.hooks]
    parts += [*model.parameters()]
    return watch.rows, [weakref.ref(part) for part in parts]


def rise(rows, column):
    """Change for each step, by a line through the later half."""
    later = np.array(rows[len(rows) // 2 :], dtype=float)
    return np.polyfit(later[:, 0], later[:, column], 1)[0]


@pytest.mark.skipif(not STATUS.is_dir(), reason='no /proc here')
@pytest.mark.parametrize(
    'steps, every',
    [
        (9, 3),
        pytest.param(2000, 100, marks=pytest.mark.nightly),
    ],
)
def test_training_takes_no_more_and_more(make_config, steps, every, capsys):
    rows, parts = train(config(make_config, steps, every))
    assert len(rows) == steps // every
    with capsys.disabled():
        if steps > 100:
            print()
            for row in rows:
                print(*row)
    later = rows[len(rows) // 2 :]
    # Nothing of the steps is kept: tensors, files, objects.
    assert len({row[2] for row in later}) == 1, later
    assert len({row[4] for row in later}) == 1, later
    # The message hub keeps a few numbers of each log.
    assert rise(rows, 1) < 5, later
    if steps > 100:
        # Less than 10 MB in 2,000 steps; a network has 3.
        assert rise(rows, 3) < 5000, later
    forget_instances()  # mmengine's: its hub, its loggers
    gc.collect()
    kept = [type(part()).__name__ for part in parts if part() is not None]
    assert not kept


def test_networks_that_are_gone_leave_nothing(request):
    """Opened, switched, made static and closed again."""
    import adaptive_networks as nets

    pytest.importorskip('mmpretrain')
    subnets = nets.KINDS['classifier'][1]
    file = nets.adaptive_file('classifier', request)
    image = np.zeros((32, 32, 3), np.uint8)

    def use():
        net = AdaptiveModel(file)
        other = net.handle()
        other.make_static(subnets[:2])
        for subnet in subnets:
            net.use(subnet)
            other.use(subnet)
            net(image), other(image)
        with other.latency_controller(1e6):
            other(image)
        parts = [net, other, net.model, other.model, net.inputs]
        parts += [other._static, net._origin.slim_state]
        return [weakref.ref(part) for part in parts]

    use()
    before = living()
    parts = use()
    after = living()
    assert not any(part() for part in parts)
    assert after[1] == before[1]
    # A tenth of what the two networks have.
    assert after[0] - before[0] < 500
