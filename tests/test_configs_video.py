"""Every video config runs, made small; each recipe is the paper's."""

import copy
import math
import re
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import person_networks
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import (
    _load_checkpoint_with_prefix,
    load_state_dict,
)

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs
from mutualnet_mm.slimmable.verify import already_verified

pytest.importorskip('mmaction')
pytest.importorskip('decord')

CONFIGS = Path(__file__).parents[1] / 'configs'
NAMES = sorted(path.stem for path in CONFIGS.glob('video/*.py'))
KINETICS = [name for name in NAMES if '_k400' in name]
INETS = [name for name in NAMES if name.startswith('inet-')]
TUNED = {  # fine-tuned configs, and where their weights come from
    'slow_r50_4xb2-8x8_charades': 'mutual-slow_r50_8xb8-8x8_k400',
    'slow_r50_8xb4-8x8_ava21': 'mutual-slow_r50_8xb8-8x8_k400',
    'slowfast_r50_4xb2-4x16_charades': 'mutual-slowfast_r50_8xb8-4x16_k400',
    'slowfast_r50_8xb4-4x16_ava21': 'mutual-slowfast_r50_8xb8-4x16_k400',
}
PAPER = [name for name in NAMES if name in TUNED or '_k400' in name]
RECIPES = {  # batch, learning rate, epochs, warm-up, from, weight decay
    '*slow_*_k400*': (64, 0.1, 196, 34, 0.01, 1e-4),
    '*slowfast_*_k400*': (64, 0.1, 196, 34, 0.01, 1e-4),
    '*i3d_*_k400*': (64, 0.1, 196, 34, 0.01, 1e-4),
    '*x3d-m_*_k400*': (128, 0.1, 300, 35, 0.01, 5e-5),
    '*_charades': (8, 0.01875, 57, 4, 5e-5, 1e-4),
    '*_ava21': (32, 0.05, 20, 5, 0.005, 1e-5),
}
STEPS = {'*_charades': (41, 49), '*_ava21': (10, 15)}
SPACES = {  # resolutions, frames; frames and interval of the clips
    '*slow_*': ((224, 178, 142), (8, 5, 3), (8, 8)),
    '*slowfast_*': ((224, 178, 142), (4, 3, 2), (32, 2)),
    '*i3d_*': ((224, 178, 142), (32, 20, 12), (32, 2)),
    '*x3d-m_*': ((224, 192, 160, 142), (16, 12, 9, 6), (16, 5)),
}
SIZE = 32


def only(table, name):
    (found,) = (value for key, value in table.items() if fnmatch(name, key))
    return found


def read(name):
    return Config.fromfile(CONFIGS / f'video/{name}.py')


_read_once = lru_cache(maxsize=None)(read)


def load(name):
    return copy.deepcopy(_read_once(name))


def pipeline(cfg, stage):
    return cfg[f'{stage}_dataloader'].dataset.pipeline


def sampling(cfg, stage):
    """The step that samples frames."""
    first = pipeline(cfg, stage)[0]
    return first.transforms[1] if 'transforms' in first else first


def shrink_network(model):
    """Fewer channels and layers of the same kind."""
    backbone = model.backbone
    depth = backbone.get('slow_pathway', backbone).get('depth', 50)
    if depth != 50:  # small as it is
        return
    if 'X3D' in backbone.type:
        backbone.update(gamma_w=0.5, gamma_d=0.2)
        channels = int(2.25 * 16 * 8)
    elif 'SlowFast' in backbone.type:
        blocks = dict(stage_blocks=(1, 1, 1, 1))
        backbone.slow_pathway.update(blocks, base_channels=16)
        backbone.fast_pathway.update(blocks, base_channels=2)
        channels = 32 * (16 + 2)
    else:
        backbone.update(stage_blocks=(1, 1, 1, 1), base_channels=8)
        if 'SlowOnly' not in backbone.type:
            backbone.inflate = [stage[:1] for stage in backbone.inflate]
        channels = 32 * 8
    head = model.get('cls_head') or model.roi_head.bbox_head
    head.in_channels = channels


def scaled(size, full):
    """A size where the full one becomes SIZE."""
    if isinstance(size, (list, tuple)):
        return type(size)(scaled(item, full) for item in size)
    return size if size < 0 else round(size * SIZE / full)


def shrink_clips(cfg):
    """Bring every size in pixels down, the full one to SIZE."""
    mutual = cfg.model.get('mutual', {})
    full = mutual.get('resolution', (224,))[0]

    def reduce(text):
        subnet = Subnet.parse(text)
        size = scaled(subnet.resolution, full)
        return str(Subnet(subnet.width, size, subnet.frames))

    if mutual:
        mutual.resolution = scaled(mutual.resolution, full)
        if mutual.get('single_subnet'):
            mutual.single_subnet = reduce(mutual.single_subnet)
        for loop in (cfg.val_cfg, cfg.test_cfg):
            if loop.get('subnets'):
                loop.subnets = list(map(reduce, loop.subnets))
    loaders = ('train', 'val', 'test')
    # The stages share steps, which must not be scaled twice.
    steps = {id(s): s for stage in loaders for s in pipeline(cfg, stage)}
    for step in steps.values():
        for key in {'scale', 'crop_size', 'scale_range', 'size'} & {*step}:
            step[key] = scaled(step[key], full)


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Folder of two short videos, with lists of one and of many labels."""
    root = tmp_path_factory.mktemp('clips')
    rng = np.random.default_rng(0)
    code = cv2.VideoWriter_fourcc(*'mp4v')
    for name in 'ab':
        file = cv2.VideoWriter(str(root / f'{name}.mp4'), code, 30, (64, 48))
        for _ in range(40):
            file.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
        file.release()
    (root / 'single.txt').write_text('a.mp4 0\nb.mp4 1\n')
    (root / 'multi.txt').write_text('a.mp4 0 2\nb.mp4 1 2 156\n')
    return root


@pytest.fixture(scope='module')
def ava(tmp_path_factory):
    """Frames of two videos and their annotations, as AVADataset reads them."""
    return person_networks.write_ava(tmp_path_factory.mktemp('ava'))


def use_clips(cfg, root):
    kind = 'single' if 'mutual' in cfg.model else 'multi'
    for stage in ('train', 'val', 'test'):
        cfg[f'{stage}_dataloader'].dataset.update(
            ann_file=str(root / f'{kind}.txt'),
            data_root=None,
            data_prefix=dict(video=str(root)),
        )


class AtStart(Hook):
    """Keeps the weights that training starts from."""

    def before_train(self, runner):
        state = runner.model.state_dict()
        self.weights = {key: value.clone() for key, value in state.items()}


@pytest.fixture
def make_runner(clips, tmp_path, request, monkeypatch):
    """Return a runner of the config, made small."""

    def make(cfg):
        shrink_network(cfg.model)
        shrink_clips(cfg)
        if cfg.train_dataloader.dataset.type == 'AVADataset':
            ava = request.getfixturevalue('ava')
            person_networks.use_ava(cfg, ava)
        else:
            use_clips(cfg, clips)
            sampling(cfg, 'test').num_clips = 2
        for stage in ('train', 'val', 'test'):
            loader = cfg[f'{stage}_dataloader']
            loader.update(num_workers=0, persistent_workers=False)
            loader.batch_size = min(2, loader.batch_size)
            # It collects all garbage, each time.
            loader.dataset.serialize_data = False
        cfg.work_dir = str(tmp_path)
        monkeypatch.chdir(tmp_path)  # where AVA's metric writes
        cfg.train_cfg.max_epochs = 1
        cfg.default_hooks.logger.interval = 1
        cfg.default_hooks.checkpoint.update(
            interval=2, save_last=False, save_best=None
        )
        if 'custom_hooks' in cfg:
            cfg.custom_hooks[0].num_batches = 1
        # It is written several times, which takes longer than the training.
        monkeypatch.setattr(Config, 'pretty_text', cfg.pretty_text)
        return Runner.from_cfg(cfg)

    return make


def train_and_test(runner, metric):
    """Train an epoch of one iteration with validation, then test."""
    seen = []

    class Seen(Hook):
        def after_val_epoch(self, runner, metrics=None):
            seen.append(metrics)

    runner.register_hook(Seen())
    runner.train()
    assert runner.iter == 1
    loss = runner.message_hub.get_scalar('train/loss').current()
    assert np.isfinite(loss)
    (validated,) = seen
    for metrics in (validated, runner.test()):
        values = [v for key, v in metrics.items() if key.endswith(metric)]
        assert values and np.isfinite(values).all()
        yield metrics


@pytest.mark.sweep(4)
@pytest.mark.parametrize('name', [n for n in NAMES if n not in TUNED])
def test_config(name, make_runner):
    cfg = load(name)
    runner = make_runner(cfg)
    space, metric = runner.model.space, 'acc/top1'
    validated, tested = train_and_test(runner, metric)
    expected = cfg.val_cfg.get(
        'subnets', (str(space.full), str(space.smallest))
    )
    for metrics, subnets in (
        (validated, expected),
        (tested, cfg.test_cfg.subnets),
    ):
        assert {key for key in metrics if key.endswith(metric)} == {
            metric if s == str(space.full) else f'{s}/{metric}'
            for s in subnets
        }


def build(name, stock=False):
    """The config's model, made small, in its own class or the stock one."""
    cfg = load(name)
    shrink_network(cfg.model)
    shrink_clips(cfg)
    model = cfg.model.to_dict()
    if stock:
        del model['wraps'], model['mutual']
        prefix, backbone = 'mutualnet_mm.Slimmable', model['backbone']
        assert backbone['type'].startswith(prefix)
        backbone['type'] = backbone['type'][len(prefix) :]
        model['type'] = 'Recognizer3D'
    model = MODELS.build(model)
    model.init_weights()
    for layer in model.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
            torch.nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return model


@pytest.fixture
def checkpoint(enter_scope, tmp_path):
    """Return a mutually trained network and the file of its weights."""
    enter_scope('mmaction')

    def make(name):
        model = build(name)
        file = str(tmp_path / 'mutual.pth')
        torch.save(dict(state_dict=model.state_dict()), file)
        return model, file

    return make


@pytest.mark.sweep(2)
@pytest.mark.parametrize('name', TUNED)
def test_fine_tuning(name, make_runner, checkpoint):
    """The backbone starts from all of the full network's weights."""
    if 'ava' in name:
        pytest.importorskip('mmdet')
        pytest.importorskip('mmcv.ops')
    cfg = load(name)
    assert cfg.load_from == f'work_dirs/{TUNED[name]}/epoch_196.pth'
    trained, cfg.load_from = checkpoint(TUNED[name])
    runner = make_runner(cfg)
    start = AtStart()
    runner.register_hook(start)
    metric = 'overall' if 'ava' in name else 'mean_average_precision'
    list(train_and_test(runner, metric))
    backbone = trained.backbone.state_dict()
    for key, value in backbone.items():
        assert torch.equal(start.weights[f'backbone.{key}'], value), key
    weights = _load_checkpoint_with_prefix('backbone.', cfg.load_from)
    load_state_dict(runner.model.backbone, weights, strict=True)


def test_fine_tuning_without_checkpoint(make_runner):
    runner = make_runner(load('slow_r50_4xb2-8x8_charades'))
    with pytest.raises(FileNotFoundError, match='epoch_196.pth'):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(
    'name', [n for n in NAMES if re.fullmatch(r'mutual-.*_k400', n)]
)
def test_stock_network_takes_the_full_one(name, checkpoint):
    """Strictly, and sees then what the full network sees."""
    trained, file = checkpoint(name)
    stock = build(name, stock=True)
    load_checkpoint(stock, file, strict=True)
    length = sampling(load(name), 'train').clip_len
    views = torch.randn(2, 3, length, SIZE, SIZE + 5)
    found = []
    for network in (stock, trained):
        network.eval()
        with torch.no_grad():
            features = network.backbone(views)
            scores = network.cls_head(features)
        features = features if isinstance(features, tuple) else (features,)
        found.append((*features, scores))
    assert len(found[0]) == len(found[1]) == 2 + ('slowfast' in name)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize('name', INETS)
def test_inet_of_another_size(name, make_runner, monkeypatch):
    monkeypatch.setenv('WIDTH', '0.75')
    monkeypatch.setenv('RESOLUTION', '142')
    monkeypatch.setenv('FRAMES', '2')
    cfg = read(name)
    assert cfg.model.mutual.single_subnet == '0.75x-142-2'
    assert cfg.work_dir.endswith('0.75x-142-2')
    runner = make_runner(cfg)
    drawn = runner.model.sampler.sample(0)
    assert drawn == dict(full=Subnet(0.75, 20, 2))
    for metrics in train_and_test(runner, 'acc/top1'):
        # Its names are the stock ones: no other subnet is evaluated.
        assert {key.partition('/')[0] for key in metrics} == {'acc'}


@pytest.mark.parametrize('name', INETS)
def test_inet_is_trained_as_stock(name, enter_scope):
    """Two steps of it and of the stock network end at the same weights."""
    enter_scope('mmaction')
    from mmaction.structures import ActionDataSample

    cfg = load(name)
    model, stock = build(name), build(name, stock=True)
    stock.load_state_dict(model.state_dict())
    length = sampling(cfg, 'train').clip_len
    samples = [ActionDataSample().set_gt_label(i) for i in range(2)]
    losses = []
    for network in (model, stock):
        torch.manual_seed(0)  # of dropout
        network.train()
        wrapper = build_optim_wrapper(network, cfg.optim_wrapper)
        for _ in range(2):
            inputs = [
                torch.randint(0, 256, (1, 3, length, SIZE, SIZE)).byte()
                for _ in samples
            ]
            data = dict(inputs=inputs, data_samples=samples)
            losses.append(network.train_step(data, wrapper)['loss'])
    assert losses[:2] == losses[2:]
    state = model.state_dict()
    for key, value in stock.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0)


@pytest.mark.parametrize('name', PAPER)
def test_recipe(name):
    total, lr, epochs, warm_up, start, decay = only(RECIPES, name)
    gpus, per_gpu = map(int, re.search(r'_(\d+)xb(\d+)', name).groups())
    cfg = load(name)
    assert cfg.train_dataloader.batch_size == per_gpu
    assert gpus * per_gpu == cfg.auto_scale_lr.base_batch_size == total
    assert not cfg.auto_scale_lr.enable
    optimizer = cfg.optim_wrapper.optimizer.to_dict()
    optimizer.pop('_scope_', None)
    assert optimizer == dict(
        type='SGD', lr=lr, momentum=0.9, weight_decay=decay
    )
    assert cfg.train_cfg.max_epochs == epochs

    length = 3  # iterations of an epoch
    wrapper = build_optim_wrapper(torch.nn.Linear(1, 1), cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(
            dict(scheduler),
            default_args=dict(optimizer=wrapper, epoch_length=length),
        )
        for scheduler in cfg.param_scheduler
    ]
    rates = []
    for i in range(epochs * length):
        rates.append(wrapper.get_lr()['lr'][0])
        for scheduler in schedulers:
            if not scheduler.by_epoch or i % length == length - 1:
                scheduler.step()
    np.testing.assert_allclose(
        rates,
        [
            expected_rate(name, i / length, epochs, lr)
            * expected_warm_up(name, i, length, warm_up, start / lr)
            for i in range(epochs * length)
        ],
        atol=1e-12,
    )


def expected_rate(name, epoch, epochs, lr):
    if '_k400' in name:
        return lr / 2 * (1 + math.cos(math.pi * epoch / epochs))
    first, second = only(STEPS, name)
    return lr * 0.1 ** ((epoch >= first) + (epoch >= second))


def expected_warm_up(name, i, length, epochs, start):
    """The part of the rate; AVA's grows with the epochs, as mmaction2's."""
    if name.endswith('_ava21'):
        i, length = i // length, 1
    return min(1, start + (1 - start) * i / (epochs * length - 1))


@pytest.mark.parametrize('name', KINETICS)
def test_space(name):
    resolution, frames, _ = only(SPACES, name)
    cfg = load(name)
    mutual = cfg.model.mutual.to_dict()
    alone = mutual.pop('single_subnet', None)
    assert mutual == dict(
        width_range=(0.63, 1.0),
        resolution=resolution,
        frames=frames,
        num_random=2,
        include_min=False,
    )
    full = str(Subnet(1.0, resolution[0], frames[0]))
    smallest = str(Subnet(0.63, resolution[-1], frames[-1]))
    subnets = cfg.test_cfg.subnets
    if name in INETS:
        assert [alone] == subnets == cfg.val_cfg.subnets == [full]
    else:
        assert (subnets[0], subnets[-1]) == (full, smallest)
        assert len({*subnets}) == 6


@pytest.mark.parametrize('name', PAPER)
def test_clips_and_views(name):
    _, _, clip = only(SPACES, name)
    cfg = load(name)
    for stage in ('train', 'val', 'test'):
        step = sampling(cfg, stage)
        assert (step.clip_len, step.frame_interval) == clip
        assert step.get('test_mode', False) == (stage != 'train')
        assert step.get('target_fps') == (30 if 'x3d' in name else None)
    if name.endswith('_ava21'):
        return
    sizes = {
        stage: [
            (step.type, step.get('scale', step.get('crop_size')))
            for step in pipeline(cfg, stage)
            if 'Crop' in step.type or 'Resize' in step.type
        ]
        for stage in ('train', 'val', 'test')
    }
    short_edge = ('Resize', (-1, 256))
    views = ('CenterCrop', 224) if '10view' in name else ('ThreeCrop', 256)
    assert sizes == dict(
        train=[
            short_edge,
            ('RandomResizedCrop', None),
            ('Resize', (224, 224)),
        ],
        val=[short_edge, ('CenterCrop', 224)],
        test=[short_edge, views],
    )
    clips = [sampling(cfg, s).get('num_clips', 1) for s in sizes]
    assert clips == [1, 1, 10]
    expected = 'score' if name.endswith('_charades') else 'prob'
    assert cfg.model.cls_head.average_clips == expected


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    ('name', 'subnet', 'expected'),
    [
        ('mutual-slow_r50_8xb8-8x8_k400', '1.0x-224-8', 41.74),
        ('mutual-slowfast_r50_8xb8-4x16_k400', '1.0x-224-4', 27.64),
        ('mutual-x3d-m_8xb16-16x5_k400', '1.0x-224-16', 4.73 + 0.017),
    ],
)
def test_costs(name, subnet, expected, enter_scope):
    """In 10^9; of X3D, poolings of SE and the head add 0.015 and 0.002."""
    enter_scope('mmaction')
    with already_verified():  # made small, by other tests
        model = MODELS.build(load(name).model)
    assert count_macs(model, subnet) / 1e9 == pytest.approx(
        expected, abs=0.005
    )


def test_every_config_is_documented():
    text = (CONFIGS.parent / 'docs/configs_video.md').read_text()
    rows = re.findall(r'^\| `(\S+)` \|.*\|.*\|$', text, re.M)
    assert sorted(rows) == NAMES
