"""Exported networks, compared with plain ones."""

import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

import mutualnet_mm
from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import (
    AdaptiveFile,
    AdaptiveModel,
    build_model,
    build_table,
)
from mutualnet_mm.engine import calibrate
from mutualnet_mm.export.checkpoint_file import (
    load_static,
    save_static,
    save_stock,
)
from mutualnet_mm.models.sorting import check_alone
from mutualnet_mm.query_table import QueryTable, TableEntry

pytest.importorskip('mmpretrain')

FULL, HALF, SMALL = '1.0x-64', '0.5x-48', '0.25x-32'
META = dict(classes=['a', 'b', 'c', 'd'], palette=[(1, 2, 3)] * 4)


def randomise(model):
    """Weights and statistics that no initialisation makes."""
    for name, tensor in model.state_dict().items():
        if name.endswith(('running_var', 'running_mean')):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.3, 1.0)


@pytest.fixture
def make_net(classifier_config, image_batch):
    """Return a network with statistics of ``subnets`` from its own data."""

    def make(subnets=(HALF, SMALL), mutual=None, **backbone):
        pipeline = [
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=64),
            dict(type='PackInputs'),
        ]
        cfg = Config(
            dict(
                default_scope='mmpretrain',
                model=classifier_config(mutual, **backbone),
                test_dataloader=dict(
                    dataset=dict(type='CustomDataset', pipeline=pipeline)
                ),
                test_cfg=dict(type='mutualnet_mm.SubnetTestLoop'),
            )
        )
        model = build_model(cfg)
        model.init_weights()
        randomise(model)
        size = model.space.full.resolution
        images, samples = image_batch(number=8, size=size, seed=1)
        batch = dict(inputs=images, data_samples=samples)
        found = [Subnet.parse(subnet) for subnet in subnets]
        tracked = model.sampler.primary
        entries = [
            TableEntry(s, 1000 - i, 10, {'accuracy/top1': 50.0})
            for i, s in enumerate([tracked, *found])
        ]
        file = AdaptiveFile(
            config=cfg.pretty_text,
            weights=dict(model.state_dict()),
            statistics=calibrate(model, found, [batch]),
            table=QueryTable(
                entries, 'accuracy/top1', 'classification', tracked, 8
            ),
            width=(model.space.min_width, model.space.max_width),
            rounding=model.slim_state.rounding,
            calibration=dict(num_batches=1, dataloader=None),
            dataset_meta=META,
        )
        return AdaptiveModel(file)

    return make


@pytest.fixture
def net(make_net):
    return make_net()


def scores(predicted):
    return torch.stack([sample.pred_score for sample in predicted])


def expected_scores(net, subnet, batch):
    net.use(subnet)
    return scores(net.predict(*batch))


def plain_classifier(channels):
    """The stock class, built narrow from the start."""
    return MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='mmpretrain.ResNet',
                depth=18,
                stem_channels=channels,
                base_channels=channels,
            ),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LinearClsHead',
                num_classes=4,
                in_channels=8 * channels,
            ),
        )
    ).eval()


def predict(model, batch):
    with torch.no_grad():
        return scores(model(*batch, mode='predict'))


def read(file):
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize('save', [save_static, save_stock])
def test_static_form_is_a_plain_narrow_network(
    save, net, image_batch, tmp_path
):
    """Weights and statistics load into a stock class of half the channels."""
    images, _ = batch = image_batch()
    files = save(net, HALF, tmp_path / 'half.pth')
    assert files == [tmp_path / 'half.pth', tmp_path / 'half.py']
    assert sorted(tmp_path.iterdir()) == files
    weights = read(files[0])['state_dict']
    plain = plain_classifier(8)
    plain.load_state_dict(weights, strict=True)
    resized = F.interpolate(images, (48, 48), mode='bilinear', antialias=True)
    with torch.no_grad():
        expected = plain.head(plain.extract_feat(resized)).softmax(1)
    found = load_static(files[0])
    assert not found.training and set(found.state_dict()) == set(weights)
    assert torch.equal(predict(found, batch), expected)
    assert torch.equal(expected_scores(net, HALF, batch), expected)


@pytest.mark.parametrize('subnet', [FULL, HALF, SMALL])
def test_folded(subnet, net, image_batch, tmp_path):
    batch = image_batch()
    file, _ = save_static(net, subnet, tmp_path / 'a.pth', fuse_bn=True)
    found = load_static(file)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    expected = expected_scores(net, subnet, batch)
    torch.testing.assert_close(
        predict(found, batch), expected, rtol=1e-4, atol=1e-5
    )


def test_files_shrink_with_the_width(net, tmp_path):
    sizes = {}
    for subnet, channels in ((FULL, 16), (HALF, 8)):
        file, _ = save_static(net, subnet, tmp_path / 'a.pth')
        number = sum(
            v.numel() for v in plain_classifier(channels).parameters()
        )
        state = load_static(file).parameters()
        assert sum(v.numel() for v in state) == number
        sizes[subnet] = file.stat().st_size
    assert sizes[HALF] < 0.35 * sizes[FULL]


def test_layout_is_that_of_stock_checkpoints(net, tmp_path):
    file, config = save_static(net, HALF, tmp_path / 'a.pth', fuse_bn=True)
    content = read(file)
    assert set(content) == {'meta', 'state_dict'}
    meta = content['meta']
    assert meta['dataset_meta'] == META and meta['subnet'] == HALF
    assert meta['versions']['mutualnet_mm'] == mutualnet_mm.__version__
    assert meta['cfg'] == config.read_text()
    model = Config.fromfile(config).model
    assert model.type == 'mutualnet_mm.StaticSubnet' and model.fuse_bn is True
    assert (model.wraps, model.subnet) == ('ImageClassifier', HALF)
    assert model.mutual == net.cfg.model.mutual
    assert model.backbone == net.cfg.model.backbone


def test_files_say_at_which_widths_they_were_trained(net, tmp_path):
    """So that nobody sorts their channels, or tests untrained widths."""
    for save in (save_stock, save_static):
        path = tmp_path / f'{save.__name__}.pth'
        save(net, str(net.model.space.full), path)
        with pytest.raises(UsageError, match='was trained at'):
            check_alone(str(path), 1.0)


def test_full_network_is_the_stock_class(net, image_batch, tmp_path):
    batch = image_batch()
    file, config = save_stock(net, FULL, tmp_path / 'a.pth')
    found = load_static(file)
    assert type(found) is net.model.stock_class
    assert type(found.backbone) is net.model.backbone.stock_class
    assert 'mutualnet_mm' not in config.read_text()
    assert torch.equal(
        predict(found, batch), expected_scores(net, FULL, batch)
    )
    # As trained, sliced or not, and whatever is active.
    weights = read(file)['state_dict']
    assert set(weights) == set(net.file.weights)
    for name, value in net.file.weights.items():
        assert torch.equal(weights[name], value), name


@pytest.mark.sweep(1)
@pytest.mark.parametrize('save', [save_static, save_stock])
def test_stock_loop_finds_what_the_table_says(
    save, make_config, checkpoint, tmp_path
):
    table = build_table(
        make_config(), checkpoint, tmp_path, subnets=['1.0x-32', '0.5x-16']
    )
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    for entry in table.entries:
        file, config = save(net, entry.subnet, tmp_path / 'a.pth')
        cfg = Config.fromfile(config)
        assert cfg.test_cfg.type == 'TestLoop'
        cfg.merge_from_dict(
            dict(
                load_from=str(file),
                work_dir=str(tmp_path),
                experiment_name=f'{save.__name__} {entry.subnet}',
            )
        )
        found = Runner.from_cfg(cfg).test()
        for name in ('sums/squares', 'accuracy/top1'):
            assert found[name] == pytest.approx(
                entry.metrics[name], rel=1e-6
            ), name


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    'mutual, tracked, stock',
    [
        # Trained alone, in the space of all or in one of its own.
        (dict(single_subnet='0.5x-48'), '0.5x-48', False),
        (dict(widths=(0.5,), resolution=(48,)), '0.5x-48', False),
        (dict(single_subnet='1.0x-64'), '1.0x-64', True),
        (dict(single_subnet='1.0x-48'), '1.0x-48', False),
    ],
)
def test_trained_alone(
    mutual, tracked, stock, make_net, image_batch, tmp_path
):
    """Stock classes are for what their config's pipeline and sizes give."""
    net = make_net(subnets=(), mutual=mutual)
    batch = image_batch(size=net.model.space.full.resolution)
    file, _ = save_stock(net, tracked, tmp_path / 'a.pth')
    found = load_static(file)
    assert (type(found) is net.model.stock_class) == stock
    channels = 8 if tracked.startswith('0.5x') else 16
    plain_classifier(channels).load_state_dict(read(file)['state_dict'])
    assert torch.equal(
        predict(found, batch), expected_scores(net, tracked, batch)
    )


def test_full_network_of_one_trained_alone(make_net, tmp_path):
    """Its running statistics are those of another subnet."""
    net = make_net(subnets=(FULL,), mutual=dict(single_subnet=HALF))
    for save in (save_static, save_stock):
        file, _ = save(net, FULL, tmp_path / 'a.pth')
        weights = read(file)['state_dict']
        mean, variance = net.file.statistics[FULL]['backbone.bn1']
        assert torch.equal(weights['backbone.bn1.running_mean'], mean)
        assert torch.equal(weights['backbone.bn1.running_var'], variance)


def test_built_wider_than_it_is_used(make_net, tmp_path):
    net = make_net(
        subnets=(), mutual=dict(width_range=(0.25, 1.0)), max_width=2.0
    )
    file, _ = save_stock(net, FULL, tmp_path / 'a.pth')
    plain_classifier(8).load_state_dict(read(file)['state_dict'])
    net = make_net(
        subnets=(), mutual=dict(width_range=(0.5, 2.0)), max_width=2.0
    )
    file, _ = save_stock(net, '2.0x-64', tmp_path / 'a.pth')
    assert type(load_static(file)) is net.model.stock_class


@pytest.mark.parametrize(
    'subnet, name, message',
    [
        (HALF, 'half', "half': name a .pth file"),
        ('0.5x-32', 'a.pth', '0.5x-32 has no batch'),
        ('0.1x-48', 'a.pth', '0.1'),
    ],
)
def test_refused(subnet, name, message, net, tmp_path):
    for save in (save_static, save_stock):
        with pytest.raises(UsageError, match=message):
            save(net, subnet, tmp_path / name)
    assert not [*tmp_path.iterdir()]


def damage(file, config, kind):
    if kind == 'no checkpoint':
        file.unlink()
    elif kind == 'no config':
        config.unlink()
    elif kind == 'truncated':
        file.write_bytes(file.read_bytes()[:-100])
    elif kind == 'foreign':
        torch.save([1, 2], file)
    elif kind == 'of another subnet':
        config.write_text(config.read_text().replace(HALF, SMALL))
    elif kind == 'of another space':
        larger = re.sub(
            r'(resolution=.\s*)64,', r'\g<1>72, 64,', config.read_text()
        )
        config.write_text(larger)
    elif kind == 'no Python':
        config.write_text('model = dict(')
    elif kind == 'no model':
        config.write_text('work_dir = None')
    elif kind == 'unknown class':
        config.write_text(config.read_text().replace('StaticSubnet', 'No'))
    elif kind == 'of other colours':
        other = Config.fromfile(config)
        other.model.data_preprocessor = dict(mean=[1.0, 2.0, 3.0])
        other.dump(config)
    elif kind == 'no config inside':
        content = read(file)
        content['meta']['cfg'] = 'model = dict('
        torch.save(content, file)


@pytest.mark.parametrize(
    'kind, message',
    [
        ('no checkpoint', r"a.pth' does not exist: .* is a .pth file and"),
        ('no config', r"a.py' does not exist: .* is a .pth file and"),
        ('truncated', r"a.pth' is damaged, or not an exported network"),
        (
            'foreign',
            r"a.pth' is damaged, or not an exported network: TypeError",
        ),
        (
            'of another subnet',
            r"a.pth' is of subnet=0.5x-48, but .* says 0.25x-32: put the two",
        ),
        ('of another space', r"a.pth' is of mutual=.*64, 48.* says .*72, 64"),
        ('no Python', r"a.py' cannot be read: SyntaxError: "),
        ('no model', r"a.py' cannot be read: AttributeError: "),
        ('unknown class', r"a.pth' was written with another model.type than"),
        ('of other colours', r'with another model.data_preprocessor than'),
        ('no config inside', r"config in .*a.pth' cannot be read: SyntaxErr"),
    ],
)
def test_damaged(kind, message, net, tmp_path):
    file, config = save_static(net, HALF, tmp_path / 'a.pth')
    damage(file, config, kind)
    with pytest.raises(UsageError, match=message) as error:
        load_static(file)
    assert '\n' not in str(error.value)


def test_of_another_resolution(make_net, image_batch, tmp_path):
    """Weights of the same shapes: nothing else tells them apart."""
    net = make_net(subnets=('0.25x-48', SMALL))
    file, _ = save_static(net, '0.25x-48', tmp_path / 'a.pth')
    _, config = save_static(net, SMALL, tmp_path / 'b.pth')
    config.replace(file.with_suffix('.py'))
    with pytest.raises(UsageError, match='is of subnet=0.25x-48, but'):
        load_static(file)
    net = make_net(subnets=('1.0x-48',))
    file, _ = save_static(net, '1.0x-48', tmp_path / 'a.pth')
    _, config = save_stock(net, FULL, tmp_path / 'b.pth')
    config.replace(file.with_suffix('.py'))
    with pytest.raises(UsageError, match='=1.0x-48, but .* says None'):
        load_static(file)


def test_weights_without_their_config(net, tmp_path):
    """Such as a ``state_dict`` alone, which people pass around."""
    file, _ = save_static(net, HALF, tmp_path / 'a.pth')
    torch.save(dict(state_dict=read(file)['state_dict']), file)
    assert str(load_static(file).subnet) == HALF


def test_infinite_numbers_are_kept(net, tmp_path):
    net.cfg.model.head.topk = (1, float('inf'))
    file, config = save_static(net, HALF, tmp_path / 'a.pth')
    again = Config.fromfile(config).model.head
    assert again.topk == (1, float('inf'))
    assert read(file)['meta']['cfg'] == config.read_text()


def test_what_is_interrupted_leaves_the_old_files(net, tmp_path, monkeypatch):
    files = save_static(net, HALF, tmp_path / 'a.pth')
    before = [file.read_bytes() for file in files]
    monkeypatch.setattr(
        torch, 'save', lambda *args: (_ for _ in ()).throw(OSError('full'))
    )
    with pytest.raises(UsageError, match='cannot be written: full'):
        save_static(net, SMALL, tmp_path / 'a.pth')
    assert [file.read_bytes() for file in files] == before


def test_a_full_disk(net, tmp_path, full_disk):
    with full_disk(20_000), pytest.raises(UsageError, match='File too large'):
        save_static(net, SMALL, tmp_path / 'small.pth')
    assert list(tmp_path.iterdir()) == []
