"""Mutual learning with what users of mmpretrain combine it with.

The reference of each step is computed with the networks of plain_networks.py
and losses of plain PyTorch.
"""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from plain_networks import divergence as plain_divergence
from torch import nn

from mutualnet_mm import ConfigError

CLASSES, RESOLUTIONS, FEATURES = 4, (32, 24, 16), 64
LINEAR = dict(type='LinearClsHead')
MIXUP, CUTMIX = dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)
MIX = dict(data_preprocessor=dict(num_classes=CLASSES))
MULTI = dict(type='MultiLabelLinearClsHead')
STACKED = dict(
    type='StackedLinearClsHead',
    mid_channels=[24],
    dropout_rate=0.5,
    act_cfg=dict(type='HSwish'),
)
LABEL = dict(mutual=dict(supervision='label'))
SMOOTH = dict(type='LabelSmoothLoss', label_smooth_val=0.1)


def with_loss(head=LINEAR, **loss):
    return dict(head, loss=loss)


def soft(logits, scores):
    return -(scores * logits.log_softmax(1)).sum(1).mean()


def smooth(logits, scores):
    return soft(logits, 0.9 * scores + 0.1 / CLASSES)


def binary(logits, scores):
    """Binary cross entropy, summed over the classes."""
    loss = F.softplus(logits) - scores * logits
    return loss.sum() / len(logits)


def smooth_binary(logits, scores):
    return binary(logits, 0.8 * scores + 0.1)


# Head, other settings, the full network's loss and the subnets', if not KL.
RECIPES = {
    'plain': (dict(LINEAR, cal_acc=True, topk=(1, 2)), dict(), soft, None),
    'loss weight': (
        with_loss(type='CrossEntropyLoss', loss_weight=0.5),
        dict(),
        lambda logits, scores: 0.5 * soft(logits, scores),
        None,
    ),
    'mixup': (
        LINEAR,
        dict(MIX, train_cfg=dict(augments=[MIXUP])),
        soft,
        None,
    ),
    'cutmix': (
        with_loss(type='CrossEntropyLoss', use_soft=True),
        dict(
            data_preprocessor=dict(
                num_classes=CLASSES,
                batch_augments=dict(augments=[CUTMIX], probs=[1.0]),
            )
        ),
        soft,
        None,
    ),
    'mixup, label': (
        LINEAR,
        dict(MIX, train_cfg=dict(augments=[MIXUP]), **LABEL),
        soft,
        soft,
    ),
    'mixup or cutmix, smooth': (
        with_loss(**SMOOTH),
        dict(MIX, train_cfg=dict(augments=[MIXUP, CUTMIX])),
        smooth,
        None,
    ),
    'smooth': (with_loss(**SMOOTH), dict(), smooth, None),
    'smooth, label': (with_loss(**SMOOTH), LABEL, smooth, smooth),
    'soft targets': (
        with_loss(type='CrossEntropyLoss', use_soft=True),
        dict(data_preprocessor=dict(num_classes=CLASSES, to_onehot=True)),
        soft,
        None,
    ),
    'mixup or cutmix, binary': (
        with_loss(type='CrossEntropyLoss', use_sigmoid=True),
        dict(MIX, train_cfg=dict(augments=[MIXUP, CUTMIX])),
        binary,
        binary,
    ),
    'multi-label': (MULTI, dict(), binary, binary),
    'multi-label, smooth': (
        with_loss(MULTI, mode='multi_label', use_sigmoid=True, **SMOOTH),
        dict(),
        smooth_binary,
        smooth_binary,
    ),
    'stacked': (dict(STACKED, dropout_rate=0.0), dict(), soft, None),
    'stacked, dropout': (STACKED, dict(), soft, None),
    'stacked, batch norm': (
        dict(STACKED, norm_cfg=dict(type='BN1d')),
        dict(),
        soft,
        None,
    ),
}


def plain_head(head, inputs):
    """The stock heads' layers, with their names."""
    if 'mid_channels' not in head:
        fc = nn.Linear(inputs, CLASSES)
        return nn.Sequential(OrderedDict(fc=fc))
    hidden = head['mid_channels'][0]
    block = OrderedDict(fc=nn.Linear(inputs, hidden))
    if 'norm_cfg' in head:
        block['norm'] = nn.BatchNorm1d(hidden)
    block.update(act=nn.Hardswish(), drop=nn.Dropout(head['dropout_rate']))
    last = OrderedDict(fc=nn.Linear(hidden, CLASSES))
    layers = nn.Sequential(nn.Sequential(block), nn.Sequential(last))
    return nn.Sequential(OrderedDict(layers=layers))


def batch(several=False):
    from mmpretrain.structures import DataSample

    images = torch.randn(6, 3, 32, 32).unbind()
    labels = [[i % 4, (i + 1) % 4] if several else i % 4 for i in range(6)]
    samples = [DataSample().set_gt_label(label) for label in labels]
    return dict(inputs=list(images), data_samples=samples)


def scores_of(samples):
    if 'gt_score' in samples[0]:
        return torch.stack([s.gt_score for s in samples]).double()
    rows = [F.one_hot(s.gt_label, CLASSES).sum(0) for s in samples]
    return torch.stack(rows).double()


@pytest.mark.sweep(8)
@pytest.mark.parametrize('name', RECIPES)
def test_step_equals_separate_networks(configure, plain, name):
    head, settings, full_loss, sub_loss = RECIPES[name]
    # Of this seed's first step, no subnet sees the full resolution.
    mutual = dict(settings.get('mutual', {}), seed=2)
    model = MODELS.build(configure(head, **dict(settings, mutual=mutual)))
    plain.randomise(model).double().train()
    assert model.supervision == ('label' if sub_loss else 'kl')
    data = model.data_preprocessor(batch('multi' in name), True)
    images, samples = data['inputs'].double(), data['data_samples']
    scores = scores_of(samples)
    # Nothing would be tried if the images had not been mixed.
    assert bool(((scores > 0) & (scores < 1)).any()) == ('mix' in name)
    state = {k: v.clone() for k, v in model.state_dict().items()}

    def build(width):
        net = plain.wide_resnet(lambda c: plain.rounded(c * width), widen=1)
        inputs = plain.rounded(FEATURES * width)
        return plain.classifier(net, plain_head(head, inputs))

    weight = head.get('loss', {}).get('loss_weight', 1.0)
    torch.manual_seed(1)  # of the dropout: a new mask for every network
    losses, gradients, buffers = plain.one_step(
        build,
        state,
        images,
        plain.drawn(0, (0.25, 1.0), RESOLUTIONS, seed=2),
        lambda logits: full_loss(logits, scores),
        # KL compares what the losses see, dropped-out on both sides.
        (lambda logits, teacher: sub_loss(logits, scores))
        if sub_loss
        else lambda *pair: weight * plain.divergence(*pair),
    )
    torch.manual_seed(1)
    logged = model.loss(images, samples)
    for tag in ('min', 'rand1', 'rand2'):
        found = logged[f'{tag}/total'].item()
        assert found == pytest.approx(losses[tag].item(), rel=1e-6)
    total, _ = model.parse_losses(logged)
    total.backward()
    expected = sum(losses.values()).item()
    assert total.item() == pytest.approx(expected, rel=1e-6)
    # Stock losses come in single precision, whatever the network has.
    floor = 1e-9 * max(g.norm() for g in gradients.values())
    for key, parameter in model.named_parameters():
        error = (parameter.grad - gradients[key]).norm()
        assert error <= 1e-6 * gradients[key].norm() + floor, key
    for key, value in model.named_buffers():
        torch.testing.assert_close(value, buffers[key], msg=key)
    # The stock model logs the same of the full network.
    config = configure(head, stock=True, **dict(settings, mutual=None))
    stock = MODELS.build(config).double().train()
    stock.load_state_dict(state, strict=True)
    torch.manual_seed(1)
    for key, value in stock.loss(images, samples).items():
        # MMEngine calls the sum of all ``loss``.
        found = logged['full/loss' if key == 'loss' else key]
        if torch.is_tensor(value):  # accuracies are lists of tensors
            found, value = [found], [value]
        assert all(map(torch.equal, found, value)), key


def test_mixing_is_the_stock_one(configure):
    """Once a step, before the subnets' images are made of it."""
    settings = dict(MIX, train_cfg=dict(augments=[MIXUP, CUTMIX]))
    found = []
    for stock in (False, True):
        model = MODELS.build(configure(LINEAR, stock=stock, **settings))
        torch.manual_seed(3), np.random.seed(3)
        data = batch()
        data = model.data_preprocessor(data, True)
        found.append((data['inputs'], scores_of(data['data_samples'])))
    assert all(map(torch.equal, *found))


BINARY = {
    'multi-label': MULTI,
    'focal': with_loss(MULTI, type='FocalLoss'),
    'asymmetric': with_loss(type='AsymmetricLoss'),
    'cross entropy': with_loss(type='CrossEntropyLoss', use_sigmoid=True),
    'smooth': with_loss(use_sigmoid=True, **SMOOTH),
    'focal of exclusive ones': with_loss(type='FocalLoss'),
    'several heads': dict(
        type='MultiTaskHead',
        task_heads=dict(
            a=dict(type='LinearClsHead', num_classes=3),
            b=dict(type='LinearClsHead', num_classes=2),
        ),
    ),
}


@pytest.mark.parametrize('name', BINARY)
def test_classes_that_do_not_exclude_each_other(configure, name):
    """A softmax over them has no meaning, and so has KL."""
    config = configure(BINARY[name])
    assert MODELS.build(config).supervision == 'label'
    config = configure(BINARY[name], dict(supervision='kl'))
    with pytest.raises(ConfigError) as error:
        MODELS.build(config)
    text = str(error.value)
    assert "supervision='kl'" in text and "'label'" in text
    assert '\n' not in text


@pytest.mark.parametrize(
    'several, classes, spoil, expected',
    [
        (True, CLASSES, lambda head: None, 'has several labels'),
        (
            *(False, CLASSES),
            lambda head: setattr(head, 'loss_module', SigmoidLoss()),
            r'the head, LinearClsHead\(SigmoidLoss, SlimLinear\), was changed',
        ),
        (False, 1, lambda head: None, 'LinearClsHead gives one score'),
    ],
    ids=['labels', 'loss', 'one score'],
)
def test_what_no_setting_tells(configure, several, classes, spoil, expected):
    """Heads of other losses, such as those that projects bring along."""
    head = dict(LINEAR, num_classes=classes)
    model = MODELS.build(configure(head)).train()
    model.head._get_loss = lambda scores, *_: dict(loss=scores.sum())
    data = model.data_preprocessor(batch(several), True)
    spoil(model.head)
    assert model.supervision == 'kl'
    with pytest.raises(ConfigError, match=expected) as error:
        model.loss(**data)
    assert "use mutual.supervision='label'" in str(error.value)
    model = MODELS.build(configure(head, dict(supervision='label')))
    model.head._get_loss = lambda scores, *_: dict(loss=scores.sum())
    spoil(model.head)
    model.train().loss(**data)


class SigmoidLoss(nn.Module):
    use_sigmoid = True


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'head',
    [
        # A linear layer with a forward of its own.
        dict(type='ArcFaceClsHead'),
        # Divides by the norm of all of its weight.
        dict(type='CSRAClsHead', num_heads=1, lam=0.1),
    ],
    ids=lambda head: head['type'],
)
def test_head_that_follows_no_width(configure, head):
    with pytest.raises(ConfigError, match=head['type']):
        MODELS.build(configure(head))


def test_scores_that_training_shifts():
    """ArcFace's loss shows others than those that it predicts by."""
    from mmpretrain.models import ArcFaceClsHead, LinearClsHead

    from mutualnet_mm.models.tasks import classification

    heads = [kind(3, 4) for kind in (ArcFaceClsHead, LinearClsHead)]
    found = [classification._takes_margin(head) for head in heads]
    assert found == [True, False]


def test_no_head(configure):
    with pytest.raises(ConfigError, match='model.head is missing'):
        MODELS.build(dict(configure(LINEAR), head=None))


@pytest.fixture
def branches(configure):
    """Return a classifier whose head has two branches (Conformer)."""
    from mmpretrain.models import LinearClsHead

    class Branches(LinearClsHead):
        def __init__(self, returns=lambda a, b: (a, b), **settings):
            super().__init__(**settings)
            self.other = nn.Linear(self.in_channels, self.num_classes)
            self.returns = returns

        def forward(self, feats):
            feats = self.pre_logits(feats)
            return self.returns(self.fc(feats), self.other(feats))

        def _get_loss(self, cls_score, data_samples, **kwargs):
            parts = [
                super(Branches, self)._get_loss(score, data_samples, **kwargs)
                for score in cls_score
            ]
            return dict(loss=sum(part['loss'] for part in parts))

    def build(**settings):
        with MODELS.switch_scope_and_registry('mmpretrain') as registry:
            registry.register_module(module=Branches, force=True)
        return MODELS.build(configure(dict(type='Branches', **settings)))

    return build


def test_branches_of_a_head_match_each_other(branches):
    model = branches().double().train()
    data = model.data_preprocessor(batch(), True)
    images, samples = data['inputs'].double(), data['data_samples']

    def scores(subnet):
        with torch.no_grad(), model.activate(subnet, track_stats=False):
            resized = F.interpolate(
                images,
                (subnet.resolution,) * 2,
                mode='bilinear',
                align_corners=False,
            )
            return model.head(model.extract_feat(resized))

    drawn = model.sampler.sample(0)
    full = scores(drawn['full'])
    logged = model.loss(images, samples)
    for tag in ('min', 'rand1', 'rand2'):
        expected = sum(map(plain_divergence, scores(drawn[tag]), full))
        assert logged[f'{tag}/total'].item() == pytest.approx(expected.item())
    labels = torch.cat([s.gt_label for s in samples])
    expected = sum(F.cross_entropy(score, labels) for score in full)
    assert logged['full/loss'].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    'returns', [lambda a, b: (a, b[:, :2]), lambda a, b: (a, None)]
)
def test_what_is_not_scores_alone_is_no_prediction(branches, returns):
    model = branches(returns=returns)
    model.head._get_loss = lambda scores, *_: dict(loss=scores[0].sum())
    data = model.data_preprocessor(batch(), True)
    with pytest.raises(ConfigError, match='Branches shows no class scores'):
        model.loss(**data)
