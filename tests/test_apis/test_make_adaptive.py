"""Stock configs made adaptive, by name and in files."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from programs import run_program

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import make_adaptive
from mutualnet_mm.apis.make_adaptive import prove, write_adaptive
from mutualnet_mm.engine.trial import TrialError, build_trial_model

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/make_adaptive.py'

# Settings that differ from the stock config's beside those that always do.
STOCK = {
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py': dict(
        backbone=dict(norm_eval=False, frozen_stages=-1),
        resolution=(800, 640, 480, 320),
        sync_bn='torch',
        hooks=1,
    ),
    # No stage of RTMDet is frozen, 32 images are many, and its hooks stay.
    'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py': dict(
        resolution=(640, 512, 384, 256), hooks=3
    ),
    # A backbone of another project, without batch norms.
    'mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py': (
        dict(resolution=(800, 640, 480, 320), hooks=0)
    ),
    'mmpretrain::resnet/resnet18_8xb16_cifar10.py': dict(
        resolution=(32, 28, 24, 20), hooks=1
    ),
    'mmaction::recognition/x3d/x3d_s_13x6x1_facebook-kinetics400-rgb.py': dict(
        resolution=(182, 145, 115), frames=(13, 8, 5), hooks=1
    ),
}


def without_scope(value):
    """MMEngine notes where inherited settings come from."""
    if isinstance(value, dict):
        return {
            k: without_scope(v) for k, v in value.items() if k != '_scope_'
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_scope, value))
    return value


@pytest.mark.parametrize('name', STOCK)
def test_stock_configs(name, tmp_path):
    pytest.importorskip(name.partition('::')[0])
    expected = STOCK[name]
    made = make_adaptive(name, out=tmp_path / 'new.py', check=False)
    cfg = Config.fromfile(tmp_path / 'new.py')
    for key, value in made.cfg.items():
        assert without_scope(cfg[key]) == without_scope(value), key
    hooks = cfg.get('custom_hooks') or ()
    assert len(hooks) == expected['hooks']
    changed = {
        change.key.split('.')[-1]: change.value
        for change in made.changes
        if change.key.startswith('model.backbone.')
    }
    assert changed.pop('type') == 'mutualnet_mm.Slimmable'
    assert changed.pop('wraps') in name or 'wraps' not in changed
    assert changed == expected.get('backbone', {})
    mutual = dict(cfg.model.mutual)
    kind = name.split('::')[0]
    least = dict(mmpretrain=0.7, mmdet=0.25, mmaction=0.63)[kind]
    assert mutual.pop('width_range') == (least, 1.0)
    assert mutual == {
        k: expected[k] for k in ('resolution', 'frames') if k in expected
    }
    assert cfg.get('sync_bn') == expected.get('sync_bn')


SMALL = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8,
                  {backbone}),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    data_preprocessor=dict(mean=[127.0] * 3, std=[60.0] * 3))
test_dataloader = dict(dataset=dict(pipeline=[
    dict(type='CenterCrop', crop_size=64)]))
test_cfg = dict()
{more}
"""


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Write the config of a small classifier, in the current folder."""
    pytest.importorskip('mmpretrain')
    monkeypatch.chdir(tmp_path)

    def write(more='', **backbone):
        arguments = ', '.join(f'{k}={v!r}' for k, v in backbone.items())
        text = SMALL.format(backbone=arguments, more=more)
        (tmp_path / 'small.py').write_text(text)

    write()
    return write


def test_the_tool(small, tmp_path):
    done = run_program(TOOL, 'small.py')
    assert done.returncode == 0, done.stderr
    source = (tmp_path / 'mutual-small.py').read_text()
    assert done.stdout.startswith(source)
    assert "_base_ = ['small.py']" in source
    proven, written = done.stdout.splitlines()[-2:]
    assert proven.startswith('proven: the full and')
    assert written.startswith('written: mutual-small.py; next: ')
    # Once more, and with a setting of one's own: not over another's file.
    assert run_program(TOOL, 'small.py', '--no-check').returncode == 0
    again = ('small.py', '--no-check', '--width', '0.5,1.0')
    done = run_program(TOOL, *again)
    assert done.stderr.splitlines()[-1] == (
        "error: config 'mutual-small.py' is there and says something else: "
        'delete it, or write elsewhere'
    )
    done = run_program(TOOL, *again, '--resolution', '64,32', '--out', 'b.py')
    assert done.returncode == 0, done.stderr
    mutual = Config.fromfile('b.py').model.mutual
    assert mutual == dict(width_range=(0.5, 1.0), resolution=(64, 32))


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['no.py'], "error: config 'no.py' does not exist"),
        (['small.py', '--width', 'a'], "--width: 'a': write 2 numbers with"),
        (['small.py', '--width', '0'], "--width: '0': write 2 numbers with"),
        (['small.py', '--frames', '8,4'], 'error: frames=(8, 4) are for v'),
        (['small.py', '--resolution', '128'], 'but the full resolution, mut'),
        (['small.py', '--width', '1,0.5'], 'give the least and the largest'),
        (['small.py', '--out', 'no/a.py'], "make the folder '"),
    ],
)
def test_refusals_of_the_tool(small, arguments, message):
    done = run_program(TOOL, *arguments)
    assert done.returncode != 0 and 'Traceback' not in done.stderr
    assert message in done.stderr.splitlines()[-1]


def test_the_proof_needs_no_weights(small):
    small(init_cfg=dict(type='Pretrained', checkpoint='nowhere.pth'))
    made = make_adaptive('small.py')
    assert made.cfg.model.backbone.init_cfg.checkpoint == 'nowhere.pth'


@pytest.mark.parametrize(
    'more, message',
    [
        ("model['neck'] = None", 'build: LinearClsHead does not run'),
        (
            "model['head'].update(cal_acc=True, topk=(7,))",
            'loss: ValueError: Top-7 accuracy is unavailable',
        ),
    ],
)
def test_what_stands_in_the_way(small, more, message):
    """No new file is left, which would block the corrected command."""
    small(more)
    with pytest.raises(TrialError, match=message):
        make_adaptive('small.py', out='new.py')
    assert not Path('new.py').exists()
    make_adaptive('small.py', out='new.py', check=False)
    with pytest.raises(TrialError, match=message):
        make_adaptive('small.py', out='new.py')
    assert Path('new.py').exists()


def test_a_model_without_a_task(small):
    small("model = dict(type='MAE', backbone=dict(type='MAEViT'))")
    with pytest.raises(ConfigError, match='cannot be'):
        make_adaptive('small.py')


def test_a_config_in_memory(small):
    cfg = Config.fromfile('small.py')
    cfg.model.head.num_classes = 7
    made = make_adaptive(cfg, width=(0.5, 1.0), check=False)
    assert made.path is None and made.cfg.model.head.num_classes == 7
    assert cfg.model.type == 'ImageClassifier'
    with pytest.raises(ConfigError, match='in memory cannot be inherited'):
        make_adaptive(cfg, out='new.py', check=False)


class RetrievalValLoop:
    """As configs that import what they name have it."""


@pytest.mark.parametrize('kind', ['RetrievalValLoop', RetrievalValLoop])
def test_loops_that_stay_are_named(small, kind):
    cfg = Config.fromfile('small.py')
    cfg.val_cfg = dict(type=kind)
    made = make_adaptive(cfg, check=False)
    assert made.notes == [
        'val_cfg stays RetrievalValLoop: it runs the full network alone'
    ]


@pytest.mark.parametrize(
    'more, given, folder',
    [
        ('', None, 'work_dirs/mutual-small'),
        ("work_dir = 'mine'", None, 'mine/mutual'),
        ("work_dir = 'mine'", 'yours', 'yours'),
    ],
)
def test_where_the_config_of_a_run_is_written(small, more, given, folder):
    """Where the run itself is going to be."""
    small(more)
    path = write_adaptive('small.py', work_dir=given)
    assert path == Path(folder, 'adaptive/mutual-small.py')
    assert path.is_file()


def test_proof_of_a_detector(detector_config, detection_pipeline):
    """Masks, boxes, and sampled proposals."""
    model = detector_config()
    loader = dict(dataset=dict(pipeline=detection_pipeline(train=False)))
    prove(
        Config(
            dict(default_scope='mmdet', model=model, test_dataloader=loader)
        )
    )


def test_what_is_trained_in_the_proof(slow_model, enter_scope):
    """The smallest subnet is that of the fewest frames and pixels."""
    enter_scope('mmaction')
    model = slow_model(resolution=(32, 24, 16), frames=(4, 3, 2))
    cfg = Config(dict(default_scope='mmaction', model=model))
    built = build_trial_model(cfg)
    for step in (0, 1, 7):
        drawn = built.sampler.sample(step)
        assert list(drawn) == ['full', 'min']
        assert drawn['full'] == built.space.full
        smallest = drawn['min']
        assert (smallest.resolution, smallest.frames) == (16, 2)
        assert smallest.width == built.space.min_width


def test_a_backbone_that_stays_frozen_is_named(small, capsys):
    small(frozen_stages=0, norm_cfg=dict(type='GN', num_groups=2))
    build_trial_model(make_adaptive('small.py', check=False).cfg)
    assert 'do not learn' not in capsys.readouterr().err
    cfg = make_adaptive('small.py', check=False).cfg
    cfg.model.backbone.frozen_stages = 0
    build_trial_model(cfg)
    said = capsys.readouterr()
    assert (
        '3 parameters of the backbone do not learn: conv1.weight, gn1.weight, '
        'gn1.bias; an argument'
    ) in said.err + said.out


def test_proof_of_clips(slow_model, enter_scope):
    enter_scope('mmaction')
    model = slow_model(resolution=(32, 16), frames=(4, 2))
    prove(Config(dict(default_scope='mmaction', model=model)))


def test_training_a_stock_config(small, tmp_path, monkeypatch):
    """The tool trains what is derived, and leaves it in the work dir."""
    small(
        'train_dataloader, train_cfg, optim_wrapper = [dict()] * 3\n'
        'test_evaluator = dict()'
    )
    trained = []
    monkeypatch.setattr(
        'mmengine.runner.Runner.from_cfg',
        lambda cfg: SimpleNamespace(
            model=None,
            register_hook=bool,
            train=lambda: trained.append(cfg),
        ),
    )
    train = ROOT / 'tools/train.py'
    options = ('--width', '0.5,1.0', '--resolution', '64,48')
    done = run_program(train, 'small.py', '--adaptive', *options)
    assert done.returncode == 0, done.stderr
    (cfg,) = trained
    assert cfg.model.mutual == dict(
        width_range=(0.5, 1.0), resolution=(64, 48)
    )
    assert cfg.work_dir == 'work_dirs/mutual-small'
    assert Path(cfg.filename).resolve() == (
        tmp_path / 'work_dirs/mutual-small/adaptive/mutual-small.py'
    )
    # Resumed, the same; with other settings, not over the first.
    again = (train, 'small.py', '--adaptive')
    assert run_program(*again, *options, '--resume').returncode == 0
    done = run_program(*again, '--width', '0.25,1.0')
    assert 'is there and says something else' in done.stderr
    done = run_program(train, 'small.py', *options)
    assert done.stderr.splitlines()[-1].endswith('need --adaptive')


def test_wrapped_detectors_are_not_proven():
    cfg = Config(dict(model=dict(type='SoftTeacher', detector=dict())))
    with pytest.raises(TrialError, match='build: a SoftTeacher holds the ad'):
        prove(cfg)
