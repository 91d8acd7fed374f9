"""Models that start from a trained network, its channels sorted."""

import copy

import pytest
import torch
from dense_heads import retina_head
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.runner import Runner
from torch import nn

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.config import check_training
from mutualnet_mm.config.stock_errors import named_stock_errors
from mutualnet_mm.models.checkpoints import load_trained
from mutualnet_mm.models.sorting import (
    describe_sorted,
    sort_checkpoint,
    sort_model,
)
from mutualnet_mm.slimmable import slim_batch_norms


def randomise(net, seed=5):
    generator = torch.Generator().manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.weight.data.uniform_(0.5, 1.5, generator=generator)
            layer.bias.data.normal_(generator=generator)
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            std = layer.weight[0].numel() ** -0.5
            layer.weight.data.normal_(0, std, generator=generator)
    return net


def stock_config(config):
    """The stock model of an adaptive config."""
    config = copy.deepcopy(config)
    config['type'] = config.pop('wraps')
    config.pop('mutual')
    backbone = config['backbone']
    backbone['type'] = backbone.pop('wraps', None) or 'ResNet'
    return config


@pytest.fixture
def trained(classifier_config, tmp_path):
    """A stock classifier with trained weights, and its checkpoint."""
    stock = randomise(MODELS.build(stock_config(classifier_config())))
    path = tmp_path / 'trained.pth'
    meta = dict(epoch=7, dataset_meta=dict(classes=['a', 'b', 'c', 'd']))
    torch.save(
        dict(
            meta=meta,
            state_dict=stock.state_dict(),
            optimizer=dict(state={}),
            message_hub=dict(),
        ),
        path,
    )
    return stock.eval(), str(path)


def double(net):
    net = copy.deepcopy(net).double()
    net.eval()  # not chained: stock backbones' ``train`` may not
    return net


def scores(model, images):
    with torch.no_grad():
        return double(model)(images.double(), mode='tensor')


def by_mean(norm):
    return norm.weight.detach() / norm.weight.detach().mean()


def falls(values):
    return bool((values.diff() <= 1e-6).all())


def streams_fall(backbone, stages=(1, 2, 3, 4)):
    """Whether the sums of the residual blocks are in order, by ``bn``."""
    found = []
    for stage in stages:
        blocks = getattr(backbone, f'layer{stage}')
        norms = [block.bn2 for block in blocks]
        if blocks[0].downsample is not None:
            norms.append(blocks[0].downsample[1])
        else:  # what comes in is added, too
            norms.append(backbone.bn1)
        found.append(falls(sum(map(by_mean, norms))))
        assert all(falls(block.bn1.weight) for block in blocks) or not any(
            found
        )
    return all(found)


def equal(a, b):
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


# ---- The whole model


def test_classifier_with_its_head(trained, classifier_config):
    """Channels of the last stage, too: the head's columns go with them."""
    stock, path = trained
    model = MODELS.build(classifier_config())
    model.load_state_dict(stock.state_dict())
    head = model.head.fc.weight.clone()
    report = sort_model(model)
    images = torch.randn(2, 3, 64, 64)
    equal(scores(model, images), scores(stock, images))
    assert streams_fall(model.backbone)
    assert not torch.equal(head, model.head.fc.weight)
    assert not any(found.stays for found in report)
    assert describe_sorted(report)[0].endswith('in 12 coupled groups')


def test_norms_of_each_resolution(classifier_config):
    """They move with their channels, whatever is in them."""
    config = classifier_config()
    config['mutual'] = dict(config['mutual'], norm='per-resolution')
    model = randomise(MODELS.build(config))
    for name, parameter in model.named_parameters():
        if '.at_' in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    before = copy.deepcopy(model)
    sort_model(model)
    for resolution in model.space.resolutions:
        subnet = Subnet(1.0, resolution)
        images = torch.randn(2, 3, resolution, resolution).double()
        found = []
        for net in map(double, (before, model)):
            with net.activate(subnet, running(net)), torch.no_grad():
                found.append(net(images, mode='tensor'))
        equal(*found)


def running(model):
    """Running statistics, as those of a subnet."""
    return {
        name: (layer.running_mean, layer.running_var)
        for name, layer in slim_batch_norms(model)
    }


def test_detector_with_its_neck(detector_config):
    model = randomise(MODELS.build(detector_config()))
    before = copy.deepcopy(model)
    report = sort_model(model)
    images = torch.randn(1, 3, 64, 96)
    maps = [double(m).extract_feat(images.double()) for m in (before, model)]
    for pair in zip(*maps):
        equal(*pair)
    assert streams_fall(model.backbone)
    assert not any(found.stays for found in report)
    state, old = model.state_dict(), before.state_dict()
    changed = {k for k in state if not torch.equal(state[k], old[k])}
    behind = {k for k in changed if not k.startswith('backbone.')}
    assert behind == {f'neck.lateral_convs.{i}.conv.weight' for i in range(4)}


def test_detector_without_a_neck(enter_scope):
    """What its head takes is not traced: those channels stay."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    model = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='SingleStageDetector',
            mutual=dict(resolution=(64, 48)),
            data_preprocessor=dict(
                type='DetDataPreprocessor', pad_size_divisor=32
            ),
            backbone=dict(
                type='mutualnet_mm.Slimmable',
                wraps='mmdet.ResNet',
                depth=18,
                base_channels=16,
                norm_eval=False,
                frozen_stages=-1,
                out_indices=(3,),
            ),
            bbox_head=retina_head(),
        )
    )
    randomise(model)
    before = copy.deepcopy(model)
    report = sort_model(model)
    images = torch.randn(1, 3, 64, 96)
    for old, new in zip(scores(before, images), scores(model, images)):
        equal(new[0], old[0])
    assert streams_fall(model.backbone, (1, 2, 3))
    kept = [found for found in report if found.stays]
    assert [found.channels for found in kept] == [128]
    assert '128 channels left as they were' in describe_sorted(report)[1]


def test_recognizer(slow_model, enter_scope):
    enter_scope('mmaction')
    config = slow_model(resolution=(32, 24), frames=(4, 2))
    model = randomise(MODELS.build(config))
    before = copy.deepcopy(model)
    sort_model(model, 'l1')
    clips = torch.randn(1, 1, 3, 4, 32, 32).double()
    outputs = [
        double(m)(clips, mode='tensor', stage='head') for m in (before, model)
    ]
    equal(outputs[1], outputs[0])
    weights = [m.cls_head.fc_cls.weight for m in (before, model)]
    assert not torch.equal(*weights)


# ---- From a config


def initialised(config):
    model = MODELS.build(config)
    model.init_weights()
    return model


@pytest.mark.parametrize('by', ['bn', 'l1'])
@pytest.mark.parametrize('place', ['model', 'backbone', 'both'])
def test_sort_of_init_cfg(trained, classifier_config, place, by):
    stock, path = trained
    init = dict(type='Pretrained', checkpoint=path, sort=by)
    config = classifier_config()
    if place != 'backbone':
        config['init_cfg'] = init
    if place != 'model':
        config['backbone']['init_cfg'] = init
    model = initialised(copy.deepcopy(config))
    images = torch.randn(2, 3, 64, 64)
    pooled = [
        double(m).extract_feat(images.double())[0] for m in (stock, model)
    ]
    # The channels of the last map are in another order.
    equal(*(x.sort(1)[0] for x in pooled))
    assert not torch.equal(*pooled)
    if place != 'backbone':
        equal(scores(model, images), scores(stock, images))
    if by == 'bn':
        assert streams_fall(model.backbone)
    else:
        rows = model.backbone.layer2[0].conv1.weight.detach()
        assert falls(rows.abs().flatten(1).sum(1))
    # As the config says, and not a second time.
    state = copy.deepcopy(model.state_dict())
    model.init_weights()
    if place == 'model':
        for key, value in model.state_dict().items():
            assert torch.equal(value, state[key])


def test_a_backbone_alone(trained, classifier_config):
    """Who takes its maps is not known: these are bit for bit in order."""
    stock, path = trained
    settings = dict(
        classifier_config()['backbone'],
        init_cfg=dict(type='Pretrained', checkpoint=path, sort='bn'),
    )
    net = initialised(settings)
    x = torch.randn(2, 3, 64, 64).double()
    with torch.no_grad():
        maps = [double(m)(x)[0] for m in (stock.backbone, net)]
    equal(*maps)
    assert streams_fall(net, (1, 2, 3))
    assert not falls(by_mean(net.layer4[0].bn2))


def test_what_is_not_finite_is_named(trained, classifier_config):
    model = initialised(classifier_config())
    with torch.no_grad():
        model.backbone.layer1[0].conv1.weight[0] = float('nan')
    with pytest.raises(ConfigError, match='is not finite.*check its weights'):
        sort_model(model)


@pytest.mark.parametrize('sort', [{}, dict(sort=None)], ids=str)
def test_without_sort_nothing_is_sorted(trained, classifier_config, sort):
    stock, path = trained
    init = dict(type='Pretrained', checkpoint=path, **sort)
    model = initialised(dict(classifier_config(), init_cfg=init))
    for key, value in stock.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])


def test_a_transformer(enter_scope, tmp_path):
    """Hidden neurons of each MLP."""
    from tiny_transformers import VIT

    enter_scope('mmpretrain')
    settings = dict(arch=VIT, img_size=48)
    stock = MODELS.build(dict(settings, type='VisionTransformer'))
    for layer in stock.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
    torch.save(stock.state_dict(), tmp_path / 'vit.pth')
    net = initialised(
        dict(
            settings,
            type='mutualnet_mm.Slimmable',
            wraps='VisionTransformer',
            init_cfg=dict(
                type='Pretrained',
                checkpoint=str(tmp_path / 'vit.pth'),
                sort='l1',
            ),
        )
    )
    first = net.layers[0].ffn.layers[0][0].weight.detach()
    assert falls(first.abs().sum(1))
    assert not torch.equal(first, stock.layers[0].ffn.layers[0][0].weight)


@pytest.mark.parametrize(
    'model, backbone, message',
    [
        ('l2', None, "sort='l2'"),
        (None, 'gamma', "sort='gamma'"),
        ('bn', 'l1', "sort='bn', that of its backbone 'l1'"),
    ],
)
def test_wrong_settings(trained, classifier_config, model, backbone, message):
    config = classifier_config()
    init = dict(type='Pretrained', checkpoint=trained[1])
    if model:
        config['init_cfg'] = dict(init, sort=model)
    if backbone:
        config['backbone']['init_cfg'] = dict(init, sort=backbone)
    with pytest.raises(ConfigError, match=message):
        MODELS.build(config)


@pytest.mark.parametrize('place', ['model', 'backbone'])
def test_sort_of_nothing(classifier_config, place):
    config = classifier_config()
    part = config if place == 'model' else config['backbone']
    part['init_cfg'] = dict(type='Pretrained', checkpoint=None, sort='bn')
    with pytest.raises(ConfigError, match='names no checkpoint'):
        MODELS.build(config)


@pytest.mark.parametrize('place', ['model', 'backbone', 'head'])
def test_stock_parts_cannot_be_sorted(trained, classifier_config, place):
    """It must not pass without an error."""
    config = stock_config(classifier_config())
    part = config if place == 'model' else config[place]
    part['init_cfg'] = dict(
        type='Pretrained', checkpoint=trained[1], sort='bn'
    )
    with pytest.raises(
        ConfigError, match="'sort': channels are sorted by.*Slimmable"
    ), named_stock_errors():
        initialised(config)


def test_load_from_beside_sort(trained, classifier_config):
    """It would take the place of what was sorted."""
    config = classifier_config()
    config['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=trained[1], sort='bn'
    )
    cfg = Config(
        dict(
            model=config,
            load_from='other.pth',
            train_cfg=dict(by_epoch=True, max_epochs=1),
            train_dataloader=dict(),
            optim_wrapper=dict(type='OptimWrapper'),
        )
    )
    with pytest.raises(ConfigError, match='model.backbone.init_cfg has sort'):
        check_training(cfg)
    cfg.resume = True
    check_training(cfg)


# ---- Networks with trained subnets


def mutual_file(config, path, meta):
    model = MODELS.build(config)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return str(path)


@pytest.mark.parametrize('place', ['model', 'backbone', 'tool'])
def test_trained_subnets_are_not_taken_apart(
    classifier_config, tmp_path, place
):
    path = mutual_file(classifier_config(), tmp_path / 'mutual.pth', {})
    config = classifier_config()
    init = dict(type='Pretrained', checkpoint=path, sort='bn')
    if place == 'model':
        config['init_cfg'] = init
    elif place == 'backbone':
        config['backbone']['init_cfg'] = init
    with pytest.raises(UsageError, match='was trained at widths 0.25x to 1.0'):
        model = initialised(config)
        sort_checkpoint(model, path, tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    'mutual, several',
    [
        ('dict(resolution=(64, 48))', True),
        ('dict(resolution=(64,), num_random=0, include_min=False)', False),
        ('dict(resolution=(64,), width_range=None, widths=(1.0,))', False),
        ('dict(resolution=(64,), width_range=None, widths=(0.5, 1.0))', True),
        # Their channels are among those of the widest: no others learned.
        ("dict(resolution=(64,), single_subnet='0.5x-64')", True),
        ('dict(resolution=(64,), width_range=None, widths=(0.5,))', True),
    ],
)
def test_what_the_training_was_of(
    classifier_config, tmp_path, mutual, several
):
    """The config in the file counts before the space of the model."""
    meta = dict(cfg=f'model = dict(mutual={mutual})\n')
    path = mutual_file(classifier_config(), tmp_path / 'a.pth', meta)
    model = MODELS.build(classifier_config())
    if several:
        with pytest.raises(UsageError, match='sorting would take them apart'):
            sort_checkpoint(model, path, tmp_path / 'out.pth')
    else:
        sort_checkpoint(model, path, tmp_path / 'out.pth')
        assert (tmp_path / 'out.pth').exists()


def test_it_is_still_noted_what_was_trained(classifier_config, tmp_path):
    """Sorting trains no narrow subnet."""
    alone = dict(width_range=None, widths=(1.0,), num_random=0)
    path = mutual_file(classifier_config(alone), tmp_path / 'a.pth', {})
    sort_checkpoint(
        MODELS.build(classifier_config()), path, tmp_path / 'b.pth'
    )
    model = MODELS.build(classifier_config())
    load_trained(model, str(tmp_path / 'b.pth'))
    model.check_trained([model.space.full])
    with pytest.raises(UsageError, match='no trained weights'):
        model.check_trained([model.space.smallest])


def test_subnets_of_a_stock_checkpoint_mean_nothing(
    trained, classifier_config, monkeypatch
):
    """Whether it was trained at their widths, it does not say."""
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.models.trained_widths.print_log',
        lambda text, **settings: said.append(text),
    )
    model = MODELS.build(classifier_config())
    load_trained(model, trained[1])
    model.check_trained([model.space.full])
    assert not said
    model.check_trained([model.space.full, model.space.smallest])
    (line,) = said
    assert f'{model.space.smallest} means nothing' in line
    again = MODELS.build(classifier_config())
    again.load_state_dict(model.state_dict())  # as a mutual training saves it
    again.check_trained([model.space.smallest])
    assert len(said) == 1


# ---- In a training


def test_resume_takes_what_was_saved(trained, configure, tmp_path):
    """A training starts from sorted channels, and goes on as it stopped."""
    config = configure(dict(type='LinearClsHead'))
    stock = randomise(
        MODELS.build(configure(dict(type='LinearClsHead'), stock=True))
    )
    torch.save(dict(state_dict=stock.state_dict()), tmp_path / 'stock.pth')
    config['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(tmp_path / 'stock.pth'), sort='bn'
    )

    def runner(iterations, resume):
        return Runner(
            model=copy.deepcopy(config),
            work_dir=str(tmp_path / 'work'),
            train_dataloader=dict(
                dataset=dict(type='NoiseImages'),
                sampler=dict(type='DefaultSampler', shuffle=False),
                batch_size=4,
            ),
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.5)),
            default_hooks=dict(
                checkpoint=dict(
                    type='CheckpointHook', interval=1, by_epoch=False
                )
            ),
            resume=resume,
            default_scope='mmpretrain',
            experiment_name=f'sorted{iterations}{resume}',
        )

    first = runner(1, False)
    first.train()
    saved = copy.deepcopy(first.model.state_dict())
    second = runner(1, True)
    second.train()  # at its end already
    for key, value in second.model.state_dict().items():
        assert torch.equal(value, saved[key]), key
    # A wide rate has brought the channels out of order again.
    other = copy.deepcopy(second.model)
    sort_model(other)
    assert any(
        not torch.equal(value, saved[key])
        for key, value in other.state_dict().items()
    )
