from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config.adaptive import derive
from mutualnet_mm.config.changes import apply_changes
from mutualnet_mm.config.stock_traits import StockTraits
from mutualnet_mm.config.subnet_settings import (
    default_frames,
    default_resolutions,
)


@pytest.mark.parametrize(
    'full, task, divisor, expected',
    [
        # The paper's.
        (224, 'classification', 1, (224, 192, 160, 128)),
        (224, 'action', 1, (224, 178, 142)),
        (800, 'detection', 32, (800, 640, 480, 320)),
        # Padded to multiples: none in between.
        (640, 'detection', 128, (640, 512, 384, 256)),
        (300, 'detection', 1, (300, 256, 192, 128)),
        (256, 'detection', 128, (256, 128)),
        (384, 'classification', 1, (384, 320, 288, 224)),
        (32, 'classification', 1, (32, 28, 24, 20)),
        (56, 'action', 1, (56, 45, 36)),
        (5, 'classification', 1, (5, 4, 3)),
    ],
)
def test_default_resolutions(full, task, divisor, expected):
    assert default_resolutions(full, task, divisor) == expected


@pytest.mark.parametrize(
    'full, expected',
    [
        (8, (8, 5, 3)),  # the paper's Slow and SlowFast
        (4, (4, 3, 2)),
        (16, (16, 10, 6)),
        (3, (3, 2, 1)),
        (1, (1,)),
    ],
)
def test_default_frames(full, expected):
    assert default_frames(full) == expected


def stock(**settings):
    """A detector that is never built."""
    resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
    loader = dict(batch_size=2, dataset=dict(pipeline=[resize]))
    settings = dict(
        model=dict(
            type='RetinaNet',
            backbone=dict(type='ResNet', depth=50, frozen_stages=1),
        ),
        train_dataloader=loader,
        test_dataloader=loader,
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(),
        **settings,
    )
    return Config(settings)


DETECTOR = StockTraits(
    'model', 'detection', divisor=32, frozen=dict(frozen_stages=-1)
)
CLIPS = StockTraits('model', 'action', of_clips=True)


def settings(cfg, traits=DETECTOR, **given):
    """Derived settings by their places."""
    return {c.key: c.value for c in derive(cfg, traits, **given)}


def test_a_detector():
    hook = dict(type='mutualnet_mm.BNCalibrationHook', num_batches=128)
    assert settings(stock()) == {
        'custom_imports': dict(
            imports=['mutualnet_mm'], allow_failed_imports=False
        ),
        'model.type': 'mutualnet_mm.MutualLearning',
        'model.wraps': 'RetinaNet',
        'model.mutual.width_range': (0.25, 1.0),
        'model.mutual.resolution': (800, 640, 480, 320),
        'model.backbone.type': 'mutualnet_mm.Slimmable',
        'model.backbone.wraps': 'ResNet',
        'model.backbone.frozen_stages': -1,
        'sync_bn': 'torch',
        'val_cfg.type': 'mutualnet_mm.SubnetValLoop',
        'test_cfg.type': 'mutualnet_mm.SubnetTestLoop',
        'test_cfg.subnets': ['1.0x-800', '0.25x-320'],
        'custom_hooks': hook,
    }


@pytest.mark.parametrize(
    'takes, found, said',
    [
        ((800, 640), (800, 640), 'not run at 480, 320'),
        ((800,), (800,), 'not run at 640, 480, 320'),
        # What does not run at the full size either is not judged.
        ((), (800, 640, 480, 320), 'and parts'),
    ],
)
def test_sizes_that_the_backbone_does_not_take(takes, found, said):
    traits = replace(DETECTOR, takes=takes.__contains__)
    changes = {c.key: c for c in derive(stock(), traits)}
    change = changes['model.mutual.resolution']
    assert change.value == found
    assert change.why.endswith(said)
    given = settings(stock(), traits, resolution=[800, 320])
    assert given['model.mutual.resolution'] == (800, 320)


def test_what_is_given():
    found = settings(stock(), width=[0.5, 2.0], resolution=[640, 320])
    assert found['model.mutual.width_range'] == (0.5, 2.0)
    assert found['model.mutual.resolution'] == (640, 320)
    assert found['test_cfg.subnets'] == ['2.0x-640', '0.5x-320']


def test_clips():
    cfg = stock()
    cfg.train_dataloader.dataset.pipeline.insert(
        0, dict(type='SampleFrames', clip_len=32)
    )
    assert settings(cfg, CLIPS)['model.mutual.frames'] == (32, 20, 12)
    found = settings(cfg, CLIPS, frames=[4, 2], resolution=[32])
    assert found['model.mutual.width_range'] == (0.63, 1.0)
    assert found['test_cfg.subnets'] == ['1.0x-32-4', '0.63x-32-2']
    # Of two branches, what the Slow one sees.
    cfg.model.backbone.resample_rate = 8
    assert settings(cfg, CLIPS)['model.mutual.frames'] == (4, 3, 2)


@pytest.mark.parametrize(
    'stride, takes, found',
    [
        (1, (32, 20), (32, 20)),
        (1, (32,), (32,)),
        (1, (), (32, 20, 12)),
        # Subnets count the frames of the Slow branch, the backbone all.
        (8, (32, 16), (4, 2)),
    ],
)
def test_lengths_that_the_backbone_does_not_take(stride, takes, found):
    cfg = stock()
    cfg.train_dataloader.dataset.pipeline.insert(
        0, dict(type='SampleFrames', clip_len=32)
    )
    cfg.model.backbone.resample_rate = stride

    def run(side, frames=None):
        return side == 800 and (frames is None or frames in takes)

    traits = replace(CLIPS, takes=run)
    assert settings(cfg, traits)['model.mutual.frames'] == found


@pytest.mark.parametrize(
    'given, fixed, changed',
    [
        ({}, False, {'backbone': 16}),
        (dict(frames=[16, 8]), False, {'backbone': 16}),
        # Not what the pipeline delivers, which is for its checks to say.
        (dict(frames=[8, 4]), False, {}),
        ({}, True, {}),
    ],
)
def test_segments_are_counted_alike(given, fixed, changed):
    """The stock config of TSM with MobileOne has 8, 16 and 16."""
    cfg = stock()
    cfg.train_dataloader.dataset.pipeline.insert(
        0, dict(type='SampleFrames', clip_len=1, num_clips=16)
    )
    traits = replace(
        CLIPS,
        of_segments=True,
        of_one_length=fixed,
        segments=dict(backbone=8, cls_head=16),
    )
    found = settings(cfg, traits, **given)
    places = {f'model.{name}.num_segments': n for name, n in changed.items()}
    counted = {k: v for k, v in found.items() if k.endswith('num_segments')}
    assert counted == places


def test_a_wrapped_detector():
    cfg = stock()
    cfg.model = dict(type='Wrapper', detector=cfg.model)
    found = settings(cfg, StockTraits('model.detector', 'detection'))
    assert found['model.detector.wraps'] == 'RetinaNet'
    assert not any(key.startswith('model.backbone') for key in found)


@pytest.mark.parametrize(
    'written, imports',
    [
        (dict(imports=['mine']), ['mutualnet_mm', 'mine']),
        (dict(imports='mine'), ['mutualnet_mm', 'mine']),
        (dict(imports=['a', 'mutualnet_mm']), ['mutualnet_mm', 'a']),
    ],
)
def test_own_imports_stay(written, imports):
    found = settings(stock(custom_imports=written))['custom_imports']
    assert found == dict(imports=imports, allow_failed_imports=False)


def test_checkpoints_of_the_stock_training_stay():
    """What is inherited would be trained over."""
    found = settings(stock(work_dir='work_dirs/mine'))
    assert found['work_dir'] == str(Path('work_dirs/mine/mutual'))
    assert 'work_dir' not in settings(stock())


@pytest.mark.parametrize(
    'size, number', [(None, 32), (1, 256), (3, 86), (8, 32), (64, 32)]
)
def test_small_batches_are_more(size, number):
    """No less than 256 images calibrate a subnet, on a single device."""
    cfg = stock()
    cfg.train_dataloader.batch_size = size
    assert settings(cfg)['custom_hooks']['num_batches'] == number


def test_synchronised_only_where_it_helps():
    no_norms = StockTraits('model', 'detection', batch_norms=False)
    own = StockTraits('model', 'detection', synchronised=True)
    large = stock()
    large.train_dataloader.batch_size = 32
    for cfg, traits in (
        (stock(), no_norms),
        (stock(), own),
        (large, DETECTOR),
        (stock(sync_bn='mmcv'), DETECTOR),
    ):
        assert 'sync_bn' not in settings(cfg, traits)
    assert 'custom_hooks' not in settings(stock(), no_norms)
    assert 'custom_hooks' in settings(stock(), own)


def test_frozen_parts_learn():
    cfg = stock()
    norm = dict(type='BN', requires_grad=False, eps=0)
    cfg.model.backbone.norm_cfg = norm
    cfg.model.roi_head = dict(shared_head=dict(norm_eval=True))
    found = settings(cfg)
    assert found['model.backbone.norm_cfg.requires_grad'] is True
    assert found['model.backbone.norm_cfg.eps'] == 1e-5
    assert found['model.roi_head.shared_head.norm_eval'] is False


def test_loops_of_other_kinds_stay():
    cfg = stock()
    cfg.val_cfg.type = 'TeacherStudentValLoop'
    cfg.test_cfg = None
    assert not [key for key in settings(cfg) if '_cfg.' in key]


def test_changes_are_made_in_a_copy():
    hook = dict(type='EMAHook')
    cfg = stock(custom_hooks=[hook])
    before = cfg.to_dict()
    changes = derive(cfg, DETECTOR)
    made = apply_changes(cfg, changes)
    assert cfg.to_dict() == before
    assert made.model.backbone == dict(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=50,
        frozen_stages=-1,
    )
    assert made.custom_hooks[0] == hook and len(made.custom_hooks) == 2
    # Nothing but what is listed differs.
    for change in changes:
        for tree in (made, before):
            *parents, name = change.key.split('.')
            node = tree
            for parent in parents:
                node = node.get(parent) or {}
            node.pop(name, None)
    made = made.to_dict()
    assert made['model'].pop('mutual') == {}
    assert made == before


@pytest.mark.parametrize(
    'change, given, message',
    [
        (dict(type='mutualnet_mm.MutualLearning'), {}, 'already: give the st'),
        (dict(wraps='RetinaNet'), {}, 'is of type MutualLearning already'),
        ({}, dict(frames=[8, 4]), 'are for videos, but this is a model of d'),
        ({}, dict(width=[0.5]), r'width_range=\(0.5,\): give the least and'),
        ({}, dict(resolution=[320, 800]), 'name the full .largest. one first'),
    ],
)
def test_refusals(change, given, message):
    cfg = stock()
    cfg.model.update(change)
    with pytest.raises(ConfigError, match=message):
        derive(cfg, DETECTOR, **given)


def test_unknown_sizes():
    cfg = stock()
    cfg.train_dataloader = cfg.test_dataloader = None
    with pytest.raises(ConfigError, match='no step of the pipelines says a s'):
        derive(cfg, DETECTOR)
    with pytest.raises(ConfigError, match='says how long clips are'):
        derive(cfg, CLIPS, resolution=[224])
    assert derive(cfg, DETECTOR, resolution=[224])


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(width=0.5), r'mutual.width_range=0.5: give a list'),
        (dict(resolution=224), 'mutual.resolution=224: give a list'),
        (dict(resolution=[224], frames=8), 'mutual.frames=8: give a list'),
    ],
)
def test_one_number_is_no_range(given, message):
    traits = CLIPS if 'frames' in given else DETECTOR
    cfg = Config(dict(model=dict(type='A', backbone=dict(type='B'))))
    with pytest.raises(ConfigError, match=message):
        derive(cfg, traits, **{**dict(resolution=[64]), **given})
    with pytest.raises(ConfigError, match='frames=8 are for videos'):
        derive(cfg, DETECTOR, resolution=[64], frames=8)
