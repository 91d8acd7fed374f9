"""Checkpoints of the published code, converted: the logits are the same.

``published_networks.py`` is that code's structure, with its names, written
apart from the package.
"""

import copy
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, Tuple

import cv2
import numpy as np
import published_networks as published
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from programs import run_program

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.apis import build_model, convert_checkpoint, load_config
from mutualnet_mm.cli import config_parser
from mutualnet_mm.models.checkpoints import load_trained
from mutualnet_mm.slimmable import BatchNormCollector

TOOL = Path(__file__).parents[2] / 'tools/convert_checkpoint.py'
OURS = 'mutualnet_mm.'
IMAGENET = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
CIFAR = dict(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7], to_rgb=False)
CLASSES = 10


class Case(NamedTuple):
    """A published network, and the config for it."""

    kind: type
    listed: Tuple[float, ...]
    others: Tuple[float, ...]
    backbone: dict
    inputs: int
    colours: dict = IMAGENET
    options: dict = {}


CASES = dict(
    mobilenet_v1=Case(
        published.MobileNetV1,
        (0.25, 0.5, 0.975, 1.0),
        (0.31, 0.66),
        dict(type=f'{OURS}SlimmableMobileNetV1'),
        1024,
    ),
    wide=Case(
        published.MobileNetV1,
        (1.0, 2.0),
        (1.3, 1.6),
        dict(
            type=f'{OURS}SlimmableMobileNetV1', widen_factor=2.0, max_width=2.0
        ),
        2048,
        options=dict(top=2.0),
    ),
    mobilenet_v2=Case(
        published.MobileNetV2,
        (0.35, 0.7, 0.9, 1.0),
        (0.38, 0.83),
        dict(type=f'{OURS}SlimmableMobileNetV2'),
        1280,
    ),
    resnet=Case(
        published.ResNet,
        (0.9, 1.0),
        (0.93,),
        dict(type=f'{OURS}SlimmableResNet', depth=50),
        2048,
    ),
    wide_resnet=Case(
        published.WideResNet,
        (0.5, 1.0),
        (0.63, 0.9),
        dict(type=f'{OURS}SlimmableWideResNet', depth=10, widen_factor=2),
        128,
        CIFAR,
    ),
)


@pytest.fixture
def configure(enter_scope):
    enter_scope('mmpretrain')

    def make(name, width_range=None, mutual=None, head=None, **backbone):
        case = CASES[name]
        ends = width_range or (min(case.listed), max(case.listed))
        return Config(
            dict(
                default_scope='mmpretrain',
                custom_imports=dict(
                    imports=['mutualnet_mm'], allow_failed_imports=False
                ),
                data_preprocessor=dict(case.colours, num_classes=CLASSES),
                model=dict(
                    type=f'{OURS}MutualLearning',
                    wraps='ImageClassifier',
                    mutual=dict(
                        width_range=ends,
                        resolution=(64, 32),
                        **(mutual or {}),
                    ),
                    backbone=dict(case.backbone, **backbone),
                    neck=dict(type='GlobalAveragePooling'),
                    head=dict(
                        dict(
                            type='LinearClsHead',
                            num_classes=CLASSES,
                            in_channels=case.inputs,
                        ),
                        **(head or {}),
                    ),
                ),
            )
        )

    return make


@pytest.fixture(scope='module')
def nets():
    """Published networks of random weights, made once."""
    made = {}

    def make(name):
        if name not in made:
            case = CASES[name]
            net = case.kind(case.listed, classes=CLASSES, **case.options)
            made[name] = published.randomise(net)
        return made[name]

    return make


@pytest.fixture
def save(tmp_path):
    def write(net, **settings):
        path = str(tmp_path / 'published.pt')
        published.save(net, path, **settings)
        return path

    return write


@pytest.fixture
def out(tmp_path):
    return str(tmp_path / 'converted.pth')


def images_of(name, seed=1):
    size = 32 if name == 'wide_resnet' else 64
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, size, size, generator=generator)


def loaded(cfg, path):
    content = torch.load(path, weights_only=True)
    model: Any = build_model(cfg)
    model.load_state_dict(content['state_dict'], strict=True)
    model.eval()
    return model, content


@pytest.mark.sweep(3)
@pytest.mark.parametrize('name', CASES)
@torch.no_grad()
def test_bit_equal_logits(configure, nets, save, out, name):
    """With given statistics, and with those of a batch at other widths."""
    net, cfg, images = nets(name), configure(name), images_of(name)
    path = save(net, optimizer={}, last_epoch=249)
    done = convert_checkpoint(cfg, path, out)
    assert done.num_weights == len([*net.parameters()])
    assert not done.calibrated
    model, content = loaded(cfg, out)
    for width in CASES[name].listed:
        subnet = f'{width}x-64'
        given = content['statistics'].get(subnet)
        assert (given is None) == (width == max(CASES[name].listed))
        with model.activate(subnet, given):
            found = model(images, mode='tensor')
        assert torch.equal(found, net.at(width)(images)), width
    for width in CASES[name].others:
        with model.activate(f'{width}x-64'), BatchNormCollector(model).watch():
            found = model(images, mode='tensor')
        expected = net.at(width).train()(images)
        net.eval()
        assert torch.equal(found, expected), width
        assert expected.std(0).min() > 1e-3  # the images are told apart


def test_what_is_written(configure, nets, save, out):
    """Loads strictly in all ways, and into the stock class."""
    cfg = configure('mobilenet_v2', head=dict(topk=(1,)))
    convert_checkpoint(cfg, save(nets('mobilenet_v2')), out)
    load_trained(build_model(cfg), out)
    stock = dict(cfg.model, type=cfg.model['wraps'])
    del stock['wraps'], stock['mutual']
    stock['backbone'] = dict(type='MobileNetV2')
    content = torch.load(out, weights_only=True)
    MODELS.build(stock).load_state_dict(content['state_dict'], strict=True)
    metadata = content['state_dict']._metadata
    assert metadata['']['widths'] == (0.35, 1.0)
    assert metadata['backbone']['rounding'] == 'paper'


@pytest.mark.parametrize('prefix', ['', 'module.', 'module.module.'])
@pytest.mark.parametrize('more', [{}, dict(optimizer={})])
def test_forms_of_files(configure, nets, save, out, prefix, more):
    net = nets('wide_resnet')
    path = save(net, prefix=prefix, **more)
    convert_checkpoint(configure('wide_resnet'), path, out)
    weights = torch.load(out, weights_only=True)['state_dict']
    for theirs, ours in [
        ('conv1', 'backbone.conv1'),
        ('block2.layer.0.convShortcut', 'backbone.layer2.0.shortcut'),
        ('bn1', 'backbone.norm'),
        ('fc', 'head.fc'),
    ]:
        weight = net.get_submodule(theirs).weight
        assert torch.equal(weights[f'{ours}.weight'], weight), ours


@pytest.mark.parametrize(
    'form, dtype',
    [
        (lambda w: w, torch.float16),
        (lambda w: dict(net=w), torch.bfloat16),
        (lambda w: dict(model=dict(state_dict=w)), torch.float64),
        (lambda w: dict(state_dict=dict(model=w)), torch.float32),
    ],
    ids=['half', 'another name', 'nested, double', 'nested the other way'],
)
def test_other_forms_of_files(configure, nets, tmp_path, out, form, dtype):
    """The very numbers, in single precision."""
    weights = {
        k: v.to(dtype) if v.is_floating_point() else v
        for k, v in nets('wide_resnet').state_dict().items()
    }
    path = str(tmp_path / 'published.pt')
    torch.save(form(weights), path, _use_new_zipfile_serialization=False)
    convert_checkpoint(configure('wide_resnet'), path, out)
    found = torch.load(out, weights_only=True)
    assert {
        v.dtype for v in found['state_dict'].values() if v.is_floating_point()
    } == {torch.float32}
    for key, ours in [
        ('fc.weight', 'head.fc.weight'),
        ('bn1.bn.1.running_var', 'backbone.norm.running_var'),
    ]:
        assert torch.equal(found['state_dict'][ours], weights[key].float())


@pytest.mark.parametrize(
    'form, message',
    [
        (
            lambda w: dict(model=w, model_ema=w),
            'holds 2 sets of published weights, model and model_ema: save',
        ),
        (
            lambda w: dict(state_dict=w, ema=dict(model=w), epoch=3),
            'state_dict and ema.model: save',
        ),
        (
            lambda w: {**{f'module.{k}': v for k, v in w.items()}, **w},
            'holds conv1.weight twice, with and without module.',
        ),
        (lambda w: dict(w, epoch=3), 'damaged: epoch is of int, and weights'),
    ],
    ids=['average', 'average, nested', 'prefixes', 'a number beside'],
)
def test_files_that_may_mean_several(
    configure, nets, tmp_path, out, form, message
):
    path = str(tmp_path / 'published.pt')
    torch.save(form(nets('wide_resnet').state_dict()), path)
    with pytest.raises(UsageError, match=message) as error:
        convert_checkpoint(configure('wide_resnet'), path, out)
    assert '\n' not in str(error.value) and not Path(out).exists()


def test_the_published_file_stays(configure, nets, save):
    path = save(nets('wide_resnet'))
    before = Path(path).read_bytes()
    with pytest.raises(UsageError, match='is the published checkpoint itself'):
        convert_checkpoint(configure('wide_resnet'), path, path)
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda w: w.pop('features.3.body.0.weight'),
            'the MobileNetV1 of the config: backbone.layer2.1.depthwise_conv.'
            'conv.weight of the config would stay random$',
        ),
        (
            lambda w: [w.pop(k) for k in [*w] if k.startswith('classifier')],
            'head.fc.weight and 1 more of the config would stay random$',
        ),
        (
            lambda w: w.update({'features.0.0.bias': torch.ones(32)}),
            'backbone.conv1.conv.bias of the checkpoint would be left over$',
        ),
        (
            lambda w: w.update({'features.14.body.0.weight': torch.ones(1)}),
            'features.14.body.0.weight of the checkpoint would be left over$',
        ),
        (
            lambda w: w.update({'classifier.0.weight': torch.ones(9, 1024)}),
            r'head.fc.weight is \(9, 1024\) in the checkpoint, and '
            r'\(10, 1024\) in .*: set its head.num_classes',
        ),
        (
            lambda w: w.pop('features.0.1.bn.2.running_var'),
            'none of backbone.conv1.bn among those of width number 2$',
        ),
        (
            lambda w: w.update(
                {'features.0.1.bn.3.running_var': torch.ones(1)}
            ),
            r'of width number 3 .* backbone.conv1.bn are of .*32,\) and \(1,',
        ),
        (
            lambda w: w['features.0.1.bn.0.running_var'].neg_(),
            'of width number 0 .* or have a negative variance$',
        ),
        (
            lambda w: w.update({'features.0.1.running_mean': torch.ones(32)}),
            'backbone.conv1.bn has statistics by width, and others for all',
        ),
        (
            lambda w: w.update({'classifier.0.bias': torch.arange(10)}),
            'damaged: classifier.0.bias is of torch.int64, and weights are',
        ),
        (
            lambda w: w['features.0.1.weight'].fill_(float('nan')),
            'features.0.1.weight of checkpoint .* is not finite',
        ),
        (
            lambda w: w.update({'features.0.1.bn.0.weight': torch.ones(8)}),
            r'batch norms of their own \(features.0.1.bn.0.weight\)',
        ),
    ],
    ids=[
        *('missing', 'no classifier', 'bias', 'surplus', 'shape'),
        *('statistics', 'broadcast', 'negative', 'of both kinds'),
        *('whole numbers', 'nan', 'private norms'),
    ],
)
def test_other_weights(configure, nets, tmp_path, out, change, message):
    weights = copy.deepcopy(nets('mobilenet_v1').state_dict())
    change(weights)
    path = str(tmp_path / 'published.pt')
    torch.save(dict(model=weights), path)
    with pytest.raises(UsageError, match=message) as error:
        convert_checkpoint(configure('mobilenet_v1'), path, out)
    assert '\n' not in str(error.value)
    assert not Path(out).exists()


@pytest.mark.parametrize(
    'name, settings, message',
    [
        (
            'mobilenet_v1',
            dict(act_cfg=dict(type='ReLU')),
            'at width 1.0, backbone.layer1.0.depthwise_conv.bn is the first',
        ),
        (
            'mobilenet_v1',
            dict(norm_cfg=dict(type='BN', eps=1e-3)),
            'backbone.conv1.bn is the first layer',
        ),
        (
            'mobilenet_v2',
            dict(mutual=dict(rounding='hardware')),
            'channels at width .*, in the published network .*: use '
            "rounding='paper'",
        ),
        (
            'resnet',
            dict(style='caffe'),
            'at width 1.0, backbone.layer2.0.bn1 is the first layer',
        ),
        ('wide_resnet', dict(depth=16), 'layer1.1.bn1.weight and 17 more of'),
        (
            'mobilenet_v1',
            dict(width_range=(0.2, 1.0)),
            r'begins at 0.2, .* at 0.25, .*: set mutual.width_range=\(0.25, 1',
        ),
        (
            'mobilenet_v1',
            dict(width_range=(0.25, 0.9)),
            'let mutual.width_range end at 1.0',
        ),
        (
            'mobilenet_v1',
            dict(mutual=dict(single_subnet='0.5x-64')),
            'without single_subnet',
        ),
        (
            'mobilenet_v1',
            dict(
                head=dict(_delete_=True, type='StackedLinearClsHead')
                | dict(num_classes=10, in_channels=1024, mid_channels=[64])
            ),
            'under a LinearClsHead',
        ),
    ],
    ids=[
        *('activation', 'eps', 'rounding', 'stride'),
        *('depth', 'narrower', 'not the widest', 'single', 'head'),
    ],
)
def test_other_configs(configure, nets, save, out, name, settings, message):
    """Shapes do not show most of it."""
    head = settings.get('head', {})
    settings = {k: v for k, v in settings.items() if k != 'head'}
    cfg = configure(name, **settings)
    if head:
        cfg.model.head = {k: v for k, v in head.items() if k != '_delete_'}
    with pytest.raises(UsageError, match=message) as error:
        convert_checkpoint(cfg, save(nets(name)), out)
    assert '\n' not in str(error.value) and not Path(out).exists()


def test_a_width_whose_base_is_rounded(configure, save, out):
    """Built at 1.6, layers have no whole number of channels at 1."""
    net = published.MobileNetV1((1.0, 1.6), 1.6, CLASSES)
    cfg = configure('mobilenet_v1', (1.0, 1.6), widen_factor=1.6)
    cfg.model.backbone.max_width = 1.6
    cfg.model.head.in_channels = 1640
    path = save(published.randomise(net))
    with pytest.raises(ConfigError, match='channels at width.*width of 1 or'):
        convert_checkpoint(cfg, path, out)


def test_another_divisor(configure, save, out):
    """It shows in the statistics of narrower networks, and there alone."""
    net = published.WideResNet((0.9, 1.0), CLASSES, divisor=1)
    path = save(published.randomise(net))
    with pytest.raises(UsageError, match='of 14, .* trained with another one'):
        convert_checkpoint(configure('wide_resnet', (0.9, 1.0)), path, out)


@torch.no_grad()
def test_a_width_that_is_not_round(configure, save, out):
    """Found as the one that rounds to the same channels."""
    net = published.randomise(published.WideResNet((0.61803, 1.0), CLASSES))
    cfg = configure('wide_resnet', (0.5, 1.0))
    with pytest.raises(UsageError, match='begins at 0.5'):
        convert_checkpoint(cfg, save(net), out)
    cfg = configure('wide_resnet', (0.61803, 1.0))
    done = convert_checkpoint(cfg, save(net), out)
    (subnet, *_) = done.statistics
    model, content = loaded(cfg, out)
    images = images_of('wide_resnet')
    with model.activate('0.61803x-64', content['statistics'][subnet]):
        found = model(images, mode='tensor')
    assert torch.equal(found, net.at(0.61803)(images))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(mean=[103.53, 116.28, 123.675]), 'published code by one of'),
        (dict(std=[1.0, 1.0, 1.0]), r'std=\[1.0, 1.0, 1.0\], and'),
        (dict(to_rgb=False), 'set to_rgb=True'),
    ],
)
def test_other_colours(configure, nets, save, out, change, message):
    cfg = configure('mobilenet_v1')
    cfg.data_preprocessor.update(change)
    cfg.test_dataloader = dict(
        dataset=dict(pipeline=[dict(type='LoadImageFromFile')])
    )
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(cfg, save(nets('mobilenet_v1')), out)


@pytest.fixture
def folder(tmp_path):
    """Eight images of two classes."""
    rng = np.random.default_rng(0)
    for i in range(8):
        file = tmp_path / f'images/{"ab"[i % 2]}/{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 256, (64, 64, 3), np.uint8))
    return str(tmp_path / 'images')


def reading(cfg, folder):
    """Let a config calibrate on a folder, all images in one batch."""
    cfg.train_dataloader = dict(
        batch_size=8,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CustomDataset',
            data_root=folder,
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='PackInputs'),
            ],
        ),
    )
    return cfg


@torch.no_grad()
def test_statistics_that_were_reset(configure, nets, save, out, folder):
    """Those of the full network are calibrated; the others stay."""
    net = copy.deepcopy(nets('mobilenet_v2'))
    published.reset_statistics(net, kept=[0.35])
    cfg = reading(configure('mobilenet_v2'), folder)
    done = convert_checkpoint(cfg, save(net), out)
    assert done.calibrated == 1 and done.statistics == ['0.35x-64']
    files = sorted(Path(folder).rglob('*.png'))
    rgb = np.stack([cv2.imread(str(f))[..., ::-1] for f in files])
    mean, std = (np.array(IMAGENET[key]) for key in ('mean', 'std'))
    images = torch.from_numpy((rgb - mean) / std).permute(0, 3, 1, 2).float()
    model, _ = loaded(cfg, out)
    with model.activate('1.0x-64'):
        found = model(images, mode='tensor')
    # Their last batch norm is a plain one, in training mode as the others.
    expected = net.at(1.0).train()(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name', ['mobilenet_v2', 'wide_resnet'])
def test_no_statistics_by_width(configure, nets, tmp_path, out, name):
    """The last batch norm of MobileNetV2 has some even then."""
    weights = nets(name).state_dict()
    path = str(tmp_path / 'published.pt')
    torch.save({k: v for k, v in weights.items() if '.bn.' not in k}, path)
    with pytest.raises(ConfigError, match='has no statistics of the full'):
        convert_checkpoint(configure(name), path, out)


def test_nothing_to_calibrate_on(configure, nets, save, out):
    net = copy.deepcopy(nets('wide_resnet'))
    published.reset_statistics(net)
    path = save(net)
    message = f"'{path}' has no statistics of the full network, which are"
    cfg = configure('wide_resnet')
    with pytest.raises(ConfigError, match=f'{message} .*: .*train_dataloader'):
        convert_checkpoint(cfg, path, out)
    with pytest.raises(ConfigError, match=f'{message} .*nowhere.*not exist'):
        convert_checkpoint(reading(cfg, 'nowhere'), path, out)


class Meter:
    """As the published code keeps them beside the weights."""


@pytest.mark.parametrize(
    'content, message',
    [
        (None, 'does not exist'),
        (b'damaged', 'cannot be read as tensors alone'),
        (dict(model={}, meters=Meter()), "save what lies under 'model'"),
        ([1], 'is not of the published code: it holds no weights, where'),
        (dict(model=dict(a=1)), 'it holds a, where that has names such as'),
        (
            dict(meta=dict(epoch=1), state_dict=dict(fc=torch.ones(1))),
            'it holds fc, where that has names such as',
        ),
        (
            dict(state_dict={'backbone.conv1.weight': torch.ones(1)}),
            'it holds backbone.conv1.weight, where that has names such as',
        ),
        ('zip', 'is an archive of us_mobilenet_v1_calibrated.pt: unpack it'),
    ],
    ids=[
        *('none', 'damaged', 'objects', 'list', 'numbers', 'meta'),
        *('stock', 'archive'),
    ],
)
def test_other_files(configure, tmp_path, out, content, message):
    path = tmp_path / 'published.pt'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('us_mobilenet_v1_calibrated.pt', b'')
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UsageError, match=message) as error:
        convert_checkpoint(configure('mobilenet_v1'), str(path), out)
    assert '\n' not in str(error.value)


def test_tool(configure, nets, save, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configure('wide_resnet').dump('a.py')
    path = save(nets('wide_resnet'))
    done = run_program(TOOL, 'a.py', path, '--out', out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-10:] == [
        'WideResNet: 26 weights, each used once',
        'statistics of the full network: those of the checkpoint',
        'statistics beside them: 0.5x-64, 0.525x-64',
        'the published training must agree with these settings:',
        '  mutual.width_range=(0.5, 1.0)',
        '  mutual.resolution=(64, 32)',
        '  rounding=paper',
        '  data_preprocessor.mean=(125.3, 123.0, 113.9)',
        '  data_preprocessor.std=(63.0, 62.1, 66.7)',
        f'written: {out}; next: mutualnet test a.py {out}',
    ]
    done = run_program(TOOL, 'a.py', path, '--out', 'nowhere/a.pth')
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: 'nowhere/a.pth' cannot be written: make the folder"
    )


def test_the_page(configure):
    """Its configs exist, and take the options that it names."""
    root = Path(__file__).parents[2]
    page = (root / 'docs/published_checkpoints.md').read_text()
    rows = re.findall(r'^\| \S.* \| `(configs/\S+)`(.*) \|$', page, re.M)
    assert len(rows) == 6
    parser = config_parser('A tool.')
    for config, rest in rows:
        options = shlex.split(rest.replace(' with ', '').strip('`'))
        args = parser.parse_args([str(root / config), *options])
        cfg = load_config(
            args.config, args.cfg_options, launcher='none', stages=()
        )
        if options:
            assert tuple(cfg.model.mutual.width_range) == (0.35, 1.0)
            assert tuple(cfg.model.mutual.resolution) == (224,)
    assert sum('--cfg-options' in rest for _, rest in rows) == 1
