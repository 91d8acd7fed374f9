"""Plain networks, small classifiers and runs that several test files share."""

import copy
import itertools

import plain_networks
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from option_steps import LINEAR
from torch.utils.data import Dataset

NUMBER = 8
_numbers = itertools.count()


@DATASETS.register_module(force=True)
class NoiseImages(Dataset):
    """Images of noise with a label each."""

    def __len__(self):
        return NUMBER

    def __getitem__(self, index):
        from mmpretrain.structures import DataSample

        generator = torch.Generator().manual_seed(index)
        image = torch.randn(3, 32, 32, generator=generator)
        sample = DataSample().set_gt_label(index % 4)
        return dict(inputs=image, data_samples=sample)


@METRICS.register_module(force=True)
class Scores(BaseMetric):
    """Keeps every score that was predicted."""

    default_prefix = 'score'

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_score'] for sample in data_samples]

    def compute_metrics(self, results):
        scores = torch.stack(results).flatten()
        return {str(i): score.item() for i, score in enumerate(scores)}


class Recorder(Hook):
    """Keeps the weights and the subnets of every iteration."""

    def __init__(self):
        self.states, self.logged = [], []

    def after_train_iter(self, runner, batch_idx, outputs=None, **kwargs):
        state = runner.model.state_dict()
        self.states.append({k: v.clone() for k, v in state.items()})
        self.logged.append({k for k in outputs if k.endswith('/total')})


@pytest.fixture(scope='session')
def plain():
    """Return the module of plain networks."""
    return plain_networks


@pytest.fixture
def configure(enter_scope):
    """Return the config of a WRN-10-1 classifier, ours or the stock one."""
    enter_scope('mmpretrain')

    def make(head, mutual=None, stock=False, **settings):
        space = dict(resolution=(32, 24, 16))  # the default widths
        ours = dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(space, **(mutual or {})),
        )
        kind = 'WideResNet' if stock else 'SlimmableWideResNet'
        return dict(
            dict(type='ImageClassifier') if stock else ours,
            backbone=dict(
                type=f'mutualnet_mm.{kind}', depth=10, widen_factor=1
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(dict(num_classes=4, in_channels=64), **head),
            **copy.deepcopy(settings),  # stock code writes into its lists
        )

    return make


@pytest.fixture
def build_runner(tmp_path):
    """Return a runner on 8 images of noise, in a fixed order.

    It trains for three iterations and keeps a checkpoint of the last.
    """

    def loader(size, sampler='DefaultSampler'):
        return dict(
            batch_size=size,
            num_workers=0,
            sampler=dict(type=sampler, shuffle=False),
            dataset=dict(type='NoiseImages'),
        )

    def make(custom_hooks=(), **settings):
        cfg = dict(
            default_scope='mmpretrain',
            experiment_name=f'run{next(_numbers)}',
            work_dir=str(tmp_path / 'work'),
            train_dataloader=loader(4, 'InfiniteSampler'),
            val_dataloader=loader(3),
            val_evaluator=dict(type='Scores'),
            train_cfg=dict(by_epoch=False, max_iters=3, val_interval=3),
            custom_hooks=[
                *custom_hooks,
                # All images in one batch: the statistics are its own.
                dict(
                    type='mutualnet_mm.BNCalibrationHook',
                    dataloader=loader(NUMBER),
                ),
            ],
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', by_epoch=False, interval=3
                )
            ),
            log_level='ERROR',
            randomness=dict(seed=0),
        )
        return Runner.from_cfg(Config(dict(cfg, **settings)))

    return make


@pytest.fixture
def video_backbone(enter_scope):
    """Return the config of a small Slow or SlowFast network.

    Bottlenecks of 16 channels and more, an eighth of that in the Fast branch
    (basic blocks: 32), which sees 4 times as many frames as the Slow one.
    """
    pytest.importorskip('mmaction')
    enter_scope('mmaction')

    def make(kind, slimmable=True, depth=50, stride=4, speed=4, **settings):
        prefix = 'mutualnet_mm.Slimmable' if slimmable else ''
        base = 16 if depth == 50 else 32
        shape = dict(depth=depth, stage_blocks=(2, 1, 1, 1))
        slow = dict(shape, base_channels=base)
        if kind == 'slow':
            return dict(slow, type=f'{prefix}ResNet3dSlowOnly', **settings)
        slow.update(
            type='resnet3d',
            lateral=True,
            conv1_kernel=(1, 7, 7),
            inflate=(0, 0, 1, 1),
        )
        slow.update(settings.pop('slow_pathway', {}))
        fast = dict(
            shape,
            type='resnet3d',
            lateral=False,
            base_channels=base // 8,
            conv1_kernel=(5, 7, 7),
        )
        return dict(
            type=f'{prefix}ResNet3dSlowFast',
            resample_rate=stride,
            speed_ratio=speed,
            channel_ratio=8,
            slow_pathway=slow,
            fast_pathway=fast,
            **settings,
        )

    return make


@pytest.fixture
def recognizer_config(video_backbone):
    """Return the config of a small Slow or SlowFast recognizer.

    Of 20 classes: more than the 8 channels that any layer keeps. The full
    network takes 4 frames (SlowFast: 16, 4 of them slow) of 32 pixels.
    """

    def make(kind='slow', mutual=None, head=None, slimmable=True, **backbone):
        space = dict(
            width_range=(0.63, 1.0), resolution=(32, 25, 21), frames=(4, 3, 2)
        )
        two = kind == 'slowfast'
        config = dict(
            backbone=video_backbone(kind, slimmable, **backbone),
            cls_head=dict(
                dict(
                    type='SlowFastHead' if two else 'I3DHead',
                    num_classes=20,
                    in_channels=576 if two else 512,
                    dropout_ratio=0,
                    average_clips='prob',
                ),
                **(head or {}),
            ),
        )
        if not slimmable:
            return dict(config, type='Recognizer3D')
        return dict(
            config,
            type='mutualnet_mm.MutualLearning',
            wraps='Recognizer3D',
            mutual=dict(space, **(mutual or {})),
        )

    return make


@pytest.fixture
def build_recognizer(recognizer_config, plain):
    """Return a recognizer with weights and statistics that differ."""

    def make(*args, **kwargs):
        model = MODELS.build(recognizer_config(*args, **kwargs))
        plain.randomise(model)
        # So that no prediction is certain: subnets could learn nothing.
        torch.nn.init.normal_(model.cls_head.fc_cls.weight, std=0.05)
        return model

    return make


@pytest.fixture
def clip_batch(enter_scope):
    """Return preprocessed clips and samples of a recognizer."""
    pytest.importorskip('mmaction')
    enter_scope('mmaction')

    def make(number=4, frames=4, size=32, views=1, seed=0):
        from mmaction.structures import ActionDataSample

        generator = torch.Generator().manual_seed(seed)
        shape = (number, views, 3, frames, size, size)
        clips = torch.randn(shape, generator=generator)
        samples = [
            ActionDataSample().set_gt_label(i % 20) for i in range(number)
        ]
        return clips, samples

    return make


@pytest.fixture
def build_learner(configure, plain):
    """Return a WRN-10-1 in double precision, with options of ``mutual``."""

    def make(head=LINEAR, seed=2, **options):
        # Of this seed's first step, no subnet sees the full resolution.
        model = MODELS.build(configure(head, dict(options, seed=seed)))
        return plain.randomise(model).double().train()

    return make


@pytest.fixture
def train(build_runner, configure, plain, tmp_path):
    """Train on noise for six iterations, from the given one on."""

    def run(options, resume=None, max_iters=6, hooks=(), start=None):
        model = configure(LINEAR, dict(options))
        file = str(tmp_path / 'start.pth')
        if resume is None and start is None:
            torch.manual_seed(0)
            state = plain.randomise(MODELS.build(model)).state_dict()
            torch.save(dict(state_dict=state), file)
        runner = build_runner(
            model=model,
            load_from=resume or start or file,
            resume=resume is not None,
            train_cfg=dict(
                by_epoch=False, max_iters=max_iters, val_interval=max_iters
            ),
            val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=hooks,
        )
        recorder = Recorder()
        runner.register_hook(recorder)
        runner.train()
        return recorder

    return run
