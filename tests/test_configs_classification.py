"""Every classification config runs, made small; each recipe is the paper's."""

import copy
import re
import shutil
import subprocess
import textwrap
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs
from mutualnet_mm.slimmable.channels import make_divisible
from mutualnet_mm.slimmable.verify import already_verified

pytest.importorskip('mmpretrain')

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('classification/*.py'))
INETS = [name for name in NAMES if re.match(r'inet-mobilenet-v1_', name)]
RECIPES = {  # total batch, learning rate, epochs, weight decay
    '*-mobilenet-v[12]*_8xb*_in1k*': (1024, 0.5, 250, 1e-4),
    '*-mobilenet-v3-*_in1k': (1024, 0.4, 150, 1e-4),
    '*resnet50_*_in1k': (512, 0.2, 120, 1e-4),
    '*wrn28-10_*_cifar*': (128, 0.1, 200, 5e-4),
    '*_1xb256_*': (256, 0.1, 100, 1e-4),
}
# With recipes of their own: mmpretrain's, and those made for a CPU.
OTHERS = (
    *('mutual-vgg16bn_*', 'mutual-resnet14_*', 'mutual-resnet18-thin_*'),
    'mutual-wrn10-2_*',
)


def matches(name, patterns):
    return [key for key in patterns if fnmatch(name, key)]


def read(name):
    return Config.fromfile(CONFIGS / f'classification/{name}.py')


_read_once = lru_cache(maxsize=None)(read)


def load(name):
    return copy.deepcopy(_read_once(name))


def shrink_network(model):
    """Fewer channels and layers of the same kind."""
    backbone, depth = model.backbone, model.backbone.get('depth')
    if 'MobileNetV1' in backbone.type:
        backbone.widen_factor = backbone.get('widen_factor', 1.0) / 4
        model.head.in_channels = make_divisible(1024 * backbone.widen_factor)
    elif depth == 28:
        backbone.update(depth=10, widen_factor=1)
        model.head.in_channels = 64
    elif depth == 50:
        backbone.update(base_channels=16, stem_channels=16)
        model.head.in_channels = 512


def shrink_images(cfg, full):
    """Bring every resolution of the config down, the full one to ``full``."""
    mutual = cfg.model.get('mutual')
    if mutual:
        ratio = full / mutual.resolution[0]
        mutual.resolution = [round(ratio * r) for r in mutual.resolution]
        cfg.test_cfg.subnets = [
            str(Subnet(s.width, round(ratio * s.resolution)))
            for s in map(Subnet.parse, cfg.test_cfg.subnets or ())
        ]
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'RandomResizedCrop':
                step.scale = full
            elif step.type == 'ResizeEdge':
                step.scale = full + 8
            elif step.type == 'CenterCrop':
                step.crop_size = full


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Folder of photographs, another of 32 x 32 images, one of each class."""
    root = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for kind, shape in (('photo', (80, 90, 3)), ('cifar', (32, 32, 3))):
        for name in 'ab':
            (root / kind / name).mkdir(parents=True)
            image = rng.integers(0, 256, shape, np.uint8)
            cv2.imwrite(str(root / kind / name / '0.png'), image)
    return root


@pytest.fixture
def run(pictures, tmp_path, monkeypatch):
    """Train an epoch of one iteration, then test as the config says."""

    def train_and_test(cfg):
        make_small(cfg, pictures)
        cfg.work_dir = str(tmp_path)
        cfg.train_cfg.max_epochs = 1
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.update(interval=2, save_last=False)
        cfg.custom_hooks = [
            dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
        ]
        # It is written five times, which takes longer than the training.
        monkeypatch.setattr(Config, 'pretty_text', cfg.pretty_text)
        runner = Runner.from_cfg(cfg)
        runner.train()
        assert runner.iter == 1
        loss = runner.message_hub.get_scalar('train/loss').current()
        assert np.isfinite(loss)
        return runner.test()

    return train_and_test


def make_small(cfg, pictures):
    """Take a small network, and an image of each class as data."""
    shrink_network(cfg.model)
    types = {step.type for step in cfg.test_dataloader.dataset.pipeline}
    if 'CenterCrop' in types:
        shrink_images(cfg, 64)
    is_cifar = types == {'PackInputs'}
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        steps = list(loader.dataset.pipeline)
        if steps[0].type != 'LoadImageFromFile':  # CIFAR holds the images
            steps.insert(0, dict(type='LoadImageFromFile'))
        loader.dataset = dict(
            type='CustomDataset',
            data_root=str(pictures / ('cifar' if is_cifar else 'photo')),
            pipeline=steps,
        )


@pytest.mark.sweep(8)
@pytest.mark.parametrize('name', NAMES)
def test_config(name, run):
    cfg = load(name)
    metrics = run(cfg)
    assert 'accuracy/top1' in metrics
    for subnet in cfg.test_cfg.get('subnets', [])[1:]:
        assert f'{subnet}/accuracy/top1' in metrics


@pytest.mark.parametrize('name', INETS)
def test_inet_of_another_size(name, run, monkeypatch):
    monkeypatch.setenv('WIDTH', '0.5')
    monkeypatch.setenv('RESOLUTION', '160')
    cfg = read(name)
    assert cfg.model.mutual.widths == (0.5,)
    assert cfg.model.mutual.resolution == (160,)
    assert cfg.work_dir.endswith('0.5x-160')
    sizes = [
        step.get('scale', step.get('crop_size'))
        for loader in (cfg.train_dataloader, cfg.test_dataloader)
        for step in loader.dataset.pipeline
    ]
    assert [size for size in sizes if size] == [160, 182, 160]
    assert cfg.val_dataloader == cfg.test_dataloader
    metrics = run(cfg)
    assert list(metrics) == ['accuracy/top1', 'accuracy/top5']


@pytest.mark.sweep(12)
@pytest.mark.parametrize(
    'name', [name for name in NAMES if not matches(name, OTHERS)]
)
def test_recipe(name):
    (key,) = matches(name, RECIPES)
    total, lr, epochs, decay = RECIPES[key]
    gpus, per_gpu = map(int, re.search(r'_(\d+)xb(\d+)', name).groups())
    cfg = load(name)
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[loader].batch_size == per_gpu
    assert gpus * per_gpu == cfg.auto_scale_lr.base_batch_size == total
    optimizer = cfg.optim_wrapper.optimizer.to_dict()
    optimizer.pop('_scope_', None)
    assert optimizer == dict(
        type='SGD', lr=lr, momentum=0.9, nesterov=True, weight_decay=decay
    )
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes

    length = 3  # iterations of an epoch
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    scheduler = PARAM_SCHEDULERS.build(
        cfg.param_scheduler,
        default_args=dict(optimizer=wrapper, epoch_length=length),
    )
    rates = []
    for _ in range(epochs * length):
        rates.append(wrapper.get_lr()['lr'][0])
        scheduler.step()
    angles = np.linspace(0, np.pi, epochs * length, endpoint=False)
    np.testing.assert_allclose(rates, lr / 2 * (1 + np.cos(angles)))


@pytest.mark.sweep(1)
@pytest.mark.parametrize('version', ['v1', 'v2', 'v3-large'])
def test_what_decays(version, enter_scope):
    """Weights of dense convolutions and of the classifier, nothing else."""
    enter_scope('mmpretrain')
    cfg = load(f'mutual-mobilenet-{version}_8xb128_in1k')
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {
        parameter: group['weight_decay']
        for group in optimizer.param_groups
        for parameter in group['params']
    }
    for name, parameter in model.named_parameters():
        shape = parameter.shape
        is_dense = len(shape) == 4 and shape[1] > 1
        is_linear = len(shape) == 2
        assert decay[parameter] == (1e-4 if is_dense or is_linear else 0), name
    if version == 'v1':  # stem, 13 pointwise convolutions, classifier
        assert sum(value > 0 for value in decay.values()) == 15


def test_wide_resnet_decays_whole(enter_scope):
    enter_scope('mmpretrain')
    cfg = load('mutual-wrn28-10_1xb128_cifar10')
    shrink_network(cfg.model)
    model = MODELS.build(cfg.model)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).param_groups
    assert [group['weight_decay'] for group in groups] == [5e-4]


def test_cut_network_is_trained_as_stock(enter_scope, image_batch):
    """Two steps of it and of the stock classifier end at the same weights."""
    enter_scope('mmpretrain')
    cfg = load('cut-mobilenet-v1_8xb128_in1k')
    shrink_network(cfg.model)
    shrink_images(cfg, 64)
    model = MODELS.build(cfg.model)
    model.init_weights()
    stock = cfg.model.to_dict()
    del stock['wraps'], stock['mutual']
    stock['type'] = 'ImageClassifier'
    stock['backbone']['type'] = 'mutualnet_mm.MobileNetV1'
    stock = MODELS.build(stock)
    stock.load_state_dict(model.state_dict())
    losses = {}
    for network in (model, stock):
        wrapper = build_optim_wrapper(network, cfg.optim_wrapper)
        network.train()
        for seed in range(2):
            inputs, samples = image_batch(seed=seed)
            data = dict(inputs=inputs, data_samples=samples)
            log = network.train_step(data, wrapper)
            losses.setdefault(seed, []).append(log['loss'])
    assert all(ours == theirs for ours, theirs in losses.values())
    for key, value in stock.state_dict().items():
        torch.testing.assert_close(
            model.state_dict()[key], value, rtol=0, atol=0
        )


def test_costs_of_scaling_up(enter_scope):
    enter_scope('mmpretrain')
    wide = load('mutual-mobilenet-v1-2x_8xb128_in1k-320px').model
    deep = load('inet-mobilenet-v1-d14-w12_8xb128_in1k-288px').model
    with already_verified():  # made small, by other tests
        wide, deep = MODELS.build(wide), MODELS.build(deep)
    assert count_macs(wide, '1.6x-288') / 1e9 == pytest.approx(2.35, abs=0.005)
    assert count_macs(deep, '1.0x-288') / 1e9 == pytest.approx(2.24, abs=0.005)


def test_autoaugment_of_cifar():
    """The policy is the one that torchvision has, in its magnitudes."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    expected = AutoAugment(AutoAugmentPolicy.CIFAR10)
    space = expected._augmentation_space(10, (32, 32))
    policies = Config.fromfile(
        CONFIGS / '_base_/datasets/cifar_autoaugment.py'
    ).cifar_policies
    names = dict(Color='ColorTransform')
    axes = dict(X='horizontal', Y='vertical')
    keys = dict(Rotate='angle', Posterize='bits', Solarize='thr')
    # There in pixels, here a part of the image; there of 255, here of 256.
    units = dict(Translate=1 / 32, Solarize=256 / 255)
    assert len(policies) == len(expected.policies)
    for pair, published in zip(policies, expected.policies):
        for found, (name, prob, level) in zip(pair, published):
            kind = name.rstrip('XY')
            assert found.pop('type') == names.get(kind, kind)
            assert found.pop('prob') == prob
            assert found.pop('direction', None) == axes.get(name[len(kind) :])
            if level is not None:
                value = float(space[name][0][level]) * units.get(kind, 1)
                key = keys.get(kind, 'magnitude')
                assert found.pop(key) == pytest.approx(value, abs=1e-5)
            assert not found


@pytest.mark.subprocess
def test_lists_of_indoor67(tmp_path, enter_scope):
    """The commands of the base config number the classes of both lists."""
    if not all(map(shutil.which, ('bash', 'awk', 'cut', 'sort', 'tr'))):
        pytest.skip('needs bash and awk')
    enter_scope('mmpretrain')
    root = tmp_path / 'data/indoor67'
    root.mkdir(parents=True)
    train = [
        'kitchen/a b.jpg',
        'bar/1.jpg',
        'kitchen/2.jpg',
        'tv_studio/1.jpg',
    ]
    (root / 'TrainImages.txt').write_text('\r\n'.join(train))
    (root / 'TestImages.txt').write_text('tv_studio/3.jpg\nbar/4.jpg\n')
    base = CONFIGS / '_base_/datasets/transfer_indoor67_bs256.py'
    commands = re.search(r'\(bash\):\n(.*?)"""', base.read_text(), re.S)[1]
    subprocess.run(
        ['bash', '-ec', textwrap.dedent(commands)], cwd=tmp_path, check=True
    )
    cfg = load('mutual-mobilenet-v1_1xb256_indoor67')
    expected = dict(
        train=list(zip(train, (1, 0, 1, 2))),
        test=[('tv_studio/3.jpg', 2), ('bar/4.jpg', 0)],
    )
    for split, pairs in expected.items():
        config = cfg[f'{split}_dataloader'].dataset
        config.update(data_root=str(tmp_path / config.data_root), pipeline=[])
        samples = list(DATASETS.build(config))
        assert [(s['img_path'], s['gt_label']) for s in samples] == [
            (str(root / 'Images' / path), label) for path, label in pairs
        ]


def test_food101_is_the_official_archive(tmp_path, enter_scope):
    enter_scope('mmpretrain')
    (tmp_path / 'meta').mkdir()
    for split in ('train', 'test'):
        (tmp_path / f'meta/{split}.txt').write_text(f'waffles/{split}\n')
        config = load('mutual-mobilenet-v1_1xb256_food101')
        config = config[f'{split}_dataloader'].dataset
        config.update(data_root=str(tmp_path), pipeline=[])
        (sample,) = DATASETS.build(config)
        assert sample['img_path'].endswith(f'images/waffles/{split}.jpg')
        assert sample['gt_label'] == 100


def test_every_config_is_documented():
    text = (CONFIGS.parent / 'docs/configs.md').read_text()
    rows = re.findall(r'^\| `(\S+)` \|.*\|.*\|$', text, re.M)
    assert sorted(rows) == NAMES
