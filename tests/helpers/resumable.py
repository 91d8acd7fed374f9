"""Trainings of three tasks that say all that they did, and can go on.

The stock runner keeps no random state: a hook gives each step one of its own,
for dropout and the boxes that are drawn.
"""

import itertools
import json

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from programs import forget_instances
from torch.utils.data import Dataset

from mutualnet_mm.engine import loops

STEPS = 6
IMAGES = 8
_numbers = itertools.count()


@DATASETS.register_module(force=True)
class NoiseSamples(Dataset):
    """Images or clips of noise, with a label each."""

    def __init__(self, sample, shape):
        self.sample, self.shape = sample, shape

    def __len__(self):
        return IMAGES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        inputs = torch.rand(self.shape, generator=generator) * 255
        return dict(inputs=inputs, data_samples=self._sample(index % 3))

    def _sample(self, label):
        if self.sample == 'action':
            from mmaction.structures import ActionDataSample

            return ActionDataSample().set_gt_label(label)
        from mmpretrain.structures import DataSample

        return DataSample().set_gt_label(label)


class Story(Hook):
    """Writes what happens into a file, line by line, as it happens."""

    priority = 'VERY_HIGH'

    def __init__(self, path, kill_at=None):
        self.path, self.kill_at = path, kill_at
        self.passes = None

    def tell(self, *what):
        with open(self.path, 'a') as file:
            file.write(json.dumps(what) + '\n')

    def before_train(self, runner):
        self.tell('start', runner.iter)
        activate = runner.model.activate

        def noted(subnet, *args, **settings):
            if self.passes is not None:
                self.passes.append(str(subnet))
            return activate(subnet, *args, **settings)

        runner.model.activate = noted

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        torch.manual_seed(1000 + runner.iter)
        np.random.seed(1000 + runner.iter)
        self.passes = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        passes, self.passes = self.passes, None
        self.tell('step', runner.iter, passes, outputs['loss'].item())
        if runner.iter == self.kill_at:
            from killed import die

            die()

    def after_val_epoch(self, runner, metrics=None):
        numbers = {k: float(v) for k, v in sorted(metrics.items())}
        self.tell('val', runner.iter, numbers)


def story(path):
    """What happened last at each step, and from where a process started."""
    told, starts = {}, []
    for line in path.read_text().splitlines():
        kind, step, *rest = json.loads(line)
        if kind == 'start':
            starts.append(step)
        else:
            told[kind, step] = rest
    return told, starts


def settings(model, scope, train, val, metric, by_epoch, counts, batch):
    """Config of a training of 6 steps, with all that has a state."""

    def loader(dataset, infinite=False, shuffle=False):
        kind = 'InfiniteSampler' if infinite else 'DefaultSampler'
        return dict(
            batch_size=batch,
            num_workers=0,
            sampler=dict(type=kind, shuffle=shuffle),
            dataset=dataset,
            collate_fn=dict(type='pseudo_collate'),
        )

    if by_epoch:
        length = dict(by_epoch=True, max_epochs=3, val_interval=3)
        interval = 1
    else:
        length = dict(by_epoch=False, max_iters=STEPS, val_interval=6)
        interval = 2
    return dict(
        default_scope=scope,
        model=model,
        train_dataloader=loader(train, not by_epoch, shuffle=True),
        val_dataloader=loader(val),
        val_evaluator=metric,
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
        train_cfg=length,
        optim_wrapper=dict(
            optimizer=dict(type='AdamW', lr=0.001),
            clip_grad=dict(max_norm=5.0),
            accumulative_counts=counts,
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            dict(type='CosineAnnealingLR', by_epoch=False, begin=3, T_max=3),
        ],
        custom_hooks=[
            dict(type='EMAHook', momentum=0.1),
            dict(
                type='mutualnet_mm.BNCalibrationHook',
                num_batches=2,
                dataloader=loader(train),
            ),
        ],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch=by_epoch,
                interval=interval,
                max_keep_ckpts=2,
            )
        ),
        log_level='ERROR',
        randomness=dict(seed=0),
    )


def train(config, folder, resume=False, kill_at=None, choose=None):
    """Train in a folder, from the start or from where the last one ended.

    Args:
        config (dict): As :func:`settings` returns it.
        folder (Path): It gets ``story``, and in ``bank`` the statistics.
        resume (bool): Go on from the last checkpoint, as ``--resume`` does.
        kill_at (int, optional): Die at the end of this step.
        choose (callable, optional): Prepares the config that is resumed.
    """
    forget_instances()
    name = f'resumable{next(_numbers)}'
    cfg = Config(dict(config, work_dir=str(folder), experiment_name=name))
    if resume:
        cfg.resume, cfg.load_from = True, None
        if choose is not None:
            choose(cfg)
    calibrate = loops.calibrate

    def kept(*args, **kwargs):
        bank = calibrate(*args, **kwargs)
        torch.save(bank, folder / 'bank')
        return bank

    loops.calibrate = kept
    try:
        runner = Runner.from_cfg(cfg)
        runner.register_hook(Story(folder / 'story', kill_at))
        runner.train()
    finally:
        loops.calibrate = calibrate


def result(folder):
    """All that a training left: of its last checkpoint, and statistics."""
    last = max(folder.glob('*.pth'), key=lambda p: p.stat().st_mtime_ns)
    found = torch.load(last, weights_only=False)
    bank = folder / 'bank'
    meta = found['meta']
    kept = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return dict(
        {name: found[name] for name in kept},
        place=(meta['epoch'], meta['iter']),
        note=getattr(found['state_dict'], '_metadata', {}).get(''),
        statistics=torch.load(bank) if bank.exists() else None,
    )


def differences(one, other, place=''):
    """Where two of what ``torch.save`` takes differ, bit for bit."""
    if type(one) is not type(other):
        return [f'{place}: types']
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return [] if same else [place]
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return [f'{place}: keys']
        pairs = [(k, one[k], other[k]) for k in one]
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return [f'{place}: length']
        pairs = [(i, *pair) for i, pair in enumerate(zip(one, other))]
    else:
        return [] if one == other else [f'{place}: {one} {other}']
    return [d for k, a, b in pairs for d in differences(a, b, f'{place}/{k}')]
