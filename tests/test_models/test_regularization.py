"""Dropout and its like: of stock layers, and of the full network alone."""

from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from option_steps import (
    CLASSES,
    DROPPING,
    FEATURES,
    LINEAR,
    assert_step,
    drawn,
    label_loss,
)
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.models.regularization import check_unmixed, unregularized

CASES = {
    'drop path': dict(
        type='ResNet', depth=18, base_channels=8, drop_path_rate=0.9
    ),
    'functional dropout': dict(
        type='DenseNet',
        arch=dict(growth_rate=8, depths=[2, 2], init_channels=8),
        drop_rate=0.9,
    ),
    'dropout of attention': dict(
        type='SwinTransformer',
        arch=dict(embed_dims=16, depths=[1, 1], num_heads=[1, 2]),
        out_indices=(1,),
        stage_cfgs=dict(block_cfgs=dict(attn_cfgs=dict(attn_drop=0.9))),
        drop_path_rate=0.0,
    ),
}


@pytest.mark.parametrize('name', CASES)
def test_stock_backbones_draw_nothing(enter_scope, name):
    enter_scope('mmpretrain')
    net = MODELS.build(CASES[name])
    net.train()  # not chained: stock ``train`` may return nothing
    before = {n: m.training for n, m in net.named_modules()}
    images = torch.randn(2, 3, 64, 64)

    def last():
        return net(images)[-1]

    assert not torch.equal(last(), last())
    with unregularized(net):
        assert torch.equal(last(), last())
        norms = [m for m in net.modules() if hasattr(m, 'running_mean')]
        assert all(m.training for m in norms)
    assert {n: m.training for n, m in net.named_modules()} == before
    assert not torch.equal(last(), last())


def test_layers_of_torch():
    net = nn.ModuleDict(
        dict(
            drop=nn.Dropout(0.5),
            attention=nn.MultiheadAttention(8, 2, dropout=0.5),
            loss=nn.CrossEntropyLoss(label_smoothing=0.2),
            frozen=nn.Dropout(0.5).eval(),
            other=nn.Dropout(0.0),
        )
    )
    x = torch.randn(4, 3, 8)
    with pytest.raises(MemoryError), unregularized(net):
        assert torch.equal(net['drop'](x), x)
        first, second = (net['attention'](x, x, x)[0] for _ in range(2))
        assert torch.equal(first, second)
        assert net['loss'].label_smoothing == 0
        assert net['other'].training
        raise MemoryError
    assert net['drop'].training and net['attention'].training
    assert net['loss'].label_smoothing == 0.2
    assert not net['frozen'].training


@pytest.fixture
def dropping(plain):
    """Return a function that makes narrow networks, the full one first.

    That drops half of its hidden neurons; the others are given a rate.
    """

    def make(rate):
        rates = iter([0.5])

        def build(width):
            inputs = plain.rounded(FEATURES * width)
            net = plain.wide_resnet(
                lambda c: plain.rounded(c * width), widen=1
            )
            hidden = OrderedDict(
                fc=nn.Linear(inputs, 24),
                act=nn.Hardswish(),
                drop=nn.Dropout(next(rates, rate)),
            )
            last = nn.Sequential(OrderedDict(fc=nn.Linear(24, CLASSES)))
            layers = nn.Sequential(nn.Sequential(hidden), last)
            head = nn.Sequential(OrderedDict(layers=layers))
            return plain.classifier(net, head)

        return build

    return make


@pytest.mark.parametrize('which', ['all', 'full'])
def test_dropout_of_the_full_network_alone(
    build_learner, plain, dropping, which
):
    model = build_learner(DROPPING, regularize=which)
    rate = 0.5 if which == 'all' else 0.0
    assert_step(model, drawn(), make=dropping(rate))
    modules = [m for m in model.modules() if not m.training]
    assert not modules


def smoothed(logits, share=0.1):
    scores = F.one_hot(torch.arange(len(logits)) % CLASSES, CLASSES)
    scores = (1 - share) * scores + share / CLASSES
    return -(scores * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize('supervision', ['kl', 'label'])
def test_smoothed_labels_of_the_full_network_alone(
    build_learner, plain, supervision
):
    loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    options = dict(regularize='full', supervision=supervision)
    if supervision == 'kl':
        options['label_weight'] = 0.5
    model = build_learner(dict(LINEAR, loss=loss), **options)

    def sub_loss(logits, teacher):
        if supervision == 'label':
            return label_loss(logits)
        return plain.divergence(logits, teacher) + 0.5 * label_loss(logits)

    assert_step(model, drawn(), smoothed, sub_loss=sub_loss)
    assert model.head.loss_module._eps == 0.1


def test_nothing_to_leave_out(configure):
    with pytest.raises(ConfigError, match="regularize='full'.*leave it out"):
        MODELS.build(configure(LINEAR, dict(regularize='full')))
    # Labels that only the full network learns from.
    loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    head = dict(LINEAR, loss=loss)
    with pytest.raises(ConfigError, match="regularize='full'.*leave it out"):
        MODELS.build(configure(head, dict(regularize='full')))


@pytest.mark.parametrize(
    'options', [dict(label_weight=0.5), dict(supervision='label'), {}], ids=str
)
def test_mixed_labels_cannot_be_left_out(configure, options):
    config = configure(
        DROPPING,
        dict(options, regularize='full'),
        data_preprocessor=dict(num_classes=CLASSES),
        train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
    )
    if not options:  # subnets match the prediction of mixed images
        MODELS.build(config)
        return
    with pytest.raises(ConfigError, match='batch_augments mixes.*leave it'):
        MODELS.build(config)


def test_a_recipe_that_begins_to_mix(configure):
    """While it is trained, by a hook such as ``SwitchRecipeHook``."""
    from mmpretrain.models import RandomBatchAugment
    from mmpretrain.structures import DataSample

    settings = dict(regularize='full', label_weight=0.5)
    model = MODELS.build(configure(DROPPING, settings)).train()
    images = torch.randn(4, 3, 32, 32)
    samples = [DataSample().set_gt_label(i % CLASSES) for i in range(4)]
    model.loss(images, samples)
    mixup = RandomBatchAugment(dict(type='Mixup', alpha=0.8))
    model.data_preprocessor.batch_augments = mixup
    with pytest.raises(ConfigError, match='batch_augments mixes.*leave it'):
        model.loss(images, samples)


def test_batches_of_detectors_that_are_padded(enter_scope):
    """Nothing is mixed by what a detector calls its batch augments."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    padding = dict(type='BatchFixedSizePad', size=(64, 64))
    model = nn.Module()
    model.data_preprocessor = MODELS.build(
        dict(type='DetDataPreprocessor', batch_augments=[padding])
    )
    assert model.data_preprocessor.batch_augments is not None
    check_unmixed(model, learns_labels=True)
