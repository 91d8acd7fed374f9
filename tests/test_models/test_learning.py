"""Options beyond the paper, against a step with separate narrow networks.

The reference is computed with the networks of plain_networks.py and losses
of plain PyTorch, in double precision.
"""

import copy
from collections import OrderedDict
from weakref import WeakSet

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError, Subnet, SubnetSpace, UsageError
from mutualnet_mm.models.learning import Learning

CLASSES, RESOLUTIONS, FEATURES = 4, (32, 24, 16), 64
LINEAR = dict(type='LinearClsHead')
TAGS = ['full', 'min', 'rand1', 'rand2']


def images_of(number=6, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 3, size, size, generator=generator).double()


def samples_of(number=6):
    from mmpretrain.structures import DataSample

    return [DataSample().set_gt_label(i % CLASSES) for i in range(number)]


def label_loss(logits):
    labels = torch.arange(len(logits)) % CLASSES
    return F.cross_entropy(logits, labels)


@pytest.fixture
def build(configure, plain):
    """Return a classifier in double precision, with the given options."""

    def make(head=LINEAR, seed=2, **options):
        # Of this seed's first step, no subnet sees the full resolution.
        model = MODELS.build(configure(head, dict(options, seed=seed)))
        return plain.randomise(model).double().train()

    return make


@pytest.fixture
def assert_step(plain):
    """Compare one step of a model with separate networks."""

    def narrow(width):
        net = plain.wide_resnet(lambda c: plain.rounded(c * width), widen=1)
        fc = nn.Linear(plain.rounded(FEATURES * width), CLASSES)
        head = nn.Sequential(OrderedDict(fc=fc))
        return plain.classifier(net, head)

    def compare(model, subnets, full_loss=label_loss, make=narrow, **how):
        weights = how.get('weights', {})
        images, samples = images_of(), samples_of()
        state = {k: v.clone() for k, v in model.state_dict().items()}
        torch.manual_seed(1)  # of dropout
        losses, gradients, buffers = plain.one_step(
            make, state, images, subnets, full_loss, **how
        )
        torch.manual_seed(1)
        logged = model.loss(images, samples)
        shown = {k[:-6] for k in logged if k.endswith('/total')}
        assert shown == set(subnets) - {'full'}
        for tag in shown:  # without their weights
            found = logged[f'{tag}/total'].item()
            assert found == pytest.approx(losses[tag].item(), rel=1e-6), tag
        total, _ = model.parse_losses(logged)
        expected = sum(v * weights.get(k, 1) for k, v in losses.items())
        assert total.item() == pytest.approx(expected.item(), rel=1e-6)
        total.backward()
        # Stock losses come in single precision, whatever the network has.
        floor = 1e-9 * max(g.norm() for g in gradients.values())
        for key, parameter in model.named_parameters():
            error = (parameter.grad - gradients[key]).norm()
            assert error <= 1e-6 * gradients[key].norm() + floor, key
        for key, value in model.named_buffers():
            torch.testing.assert_close(value, buffers[key], msg=key)

    return compare


def drawn(plain):
    return plain.drawn(0, (0.25, 1.0), RESOLUTIONS, seed=2)


@pytest.mark.parametrize(
    'weights',
    [
        'width',
        dict(full=2.0, rand=0.25),
        dict(min=0.5),
        None,
    ],
    ids=str,
)
def test_weights(build, assert_step, plain, weights):
    subnets = drawn(plain)
    expected = dict.fromkeys(TAGS, 1.0)
    if weights == 'width':
        expected = {tag: width for tag, (width, _) in subnets.items()}
    for tag in TAGS:
        if isinstance(weights, dict):
            expected[tag] = weights.get(tag.rstrip('12'), 1.0)
    assert_step(build(weights=weights), subnets, weights=expected)


def test_width_counts_relative_to_the_full_one(build, assert_step, plain):
    subnets = plain.drawn(0, (0.25, 0.8), RESOLUTIONS, seed=2)
    model = build(width_range=(0.25, 0.8), weights='width')
    # Widths are of the backbone's own channels.
    expected = {tag: width / 0.8 for tag, (width, _) in subnets.items()}
    weights = [
        model.learning.weight(t, s, 0.8)
        for t, s in model.sampler.sample(0).items()
    ]
    assert weights == pytest.approx(list(expected.values()))


def test_weights_of_a_list_of_widths(build, assert_step):
    model = build(
        width_range=None,
        widths=(0.5, 1.0),
        resolution=(32,),
        weights=dict(fixed=0.5),
    )
    subnets = dict(full=(1.0, 32), fixed1=(0.5, 32))
    assert_step(model, subnets, weights=dict(fixed1=0.5))


def log_softmax(x):
    return x - x.exp().sum(1, keepdim=True).log()


def alpha(logits, teacher):
    """The larger of two divergences of each image, after AlphaNet.

    The gradient of the one of -1 is the mean over the student's own classes
    of the clipped ratio times that of the logarithm; the value is logged.
    """
    q, p = log_softmax(logits).exp(), log_softmax(teacher).exp()
    total = 0
    for i in range(len(logits)):
        kl = sum(p[i, c] * (p[i, c] / q[i, c]).log() for c in range(CLASSES))
        ratio = [min(5.0, (q[i, c] / p[i, c]).item()) for c in range(CLASSES)]
        mean = sum(q[i, c].item() * ratio[c] for c in range(CLASSES))
        value = (mean - 1) / 2
        if value > kl:
            kl = sum(
                q[i, c].item() * ratio[c] * q[i, c].log()
                for c in range(CLASSES)
            )
            kl = kl + value - kl.item()
        total = total + kl / len(logits)
    return total


@pytest.mark.parametrize('scale', [1.0, 8.0])
def test_alpha_divergence(build, assert_step, plain, scale):
    """With predictions near to each other, and far away."""
    model = build(divergence='alpha')
    with torch.no_grad():
        model.head.fc.weight.mul_(scale)
    assert_step(model, drawn(plain), sub_loss=alpha)


def from_large_to_small(subnets):
    """By width squared times resolution squared; the full one first."""
    return dict(
        sorted(subnets.items(), key=lambda item: -(np.prod(item[1]) ** 2))
    )


@pytest.mark.parametrize('label_weight', [0, 0.5])
@pytest.mark.parametrize('seed', [2, 3])
def test_next_larger_teacher(build, assert_step, plain, label_weight, seed):
    subnets = plain.drawn(0, (0.25, 1.0), RESOLUTIONS, seed=seed)
    ordered = from_large_to_small(subnets)
    assert list(ordered) != list(subnets)
    model = build(teacher='next', label_weight=label_weight, seed=seed)

    def loss(logits, teacher):
        kl = plain.divergence(logits, teacher)
        return kl + label_weight * label_loss(logits)

    assert_step(model, ordered, sub_loss=loss, chained=True)


def test_labels_beside_the_full_teacher(build, assert_step, plain):
    def loss(logits, teacher):
        return alpha(logits, teacher) + 2 * label_loss(logits)

    weights = dict(rand1=0.5, rand2=0.5)
    model = build(divergence='alpha', label_weight=2, weights=dict(rand=0.5))
    assert_step(model, drawn(plain), sub_loss=loss, weights=weights)


def test_video_is_ordered_by_frames_too():
    space = SubnetSpace((0.5, 1.0), (32, 16), (8, 4, 2))
    names = dict(
        full='1.0x-32-8', min='0.5x-32-8', rand1='0.9x-32-2', rand2='0.9x-16-8'
    )
    subnets = {tag: Subnet.parse(name) for tag, name in names.items()}
    # 0.25, 0.2025 and 0.2025: a tie keeps its order.
    for teacher, tags in (('full', TAGS), ('next', TAGS)):
        assert list(Learning(teacher).ordered(subnets, space)) == tags
    subnets['rand2'] = Subnet.parse('0.9x-16-4')
    subnets['min'] = Subnet.parse('0.5x-16-2')
    found = Learning('next').ordered(subnets, space)
    assert list(found) == ['full', 'rand1', 'rand2', 'min']


@pytest.mark.parametrize('step, ramp', [(19, 0), (20, 0.5), (21, 1), (39, 1)])
def test_start(build, assert_step, plain, step, ramp):
    """Half of 40 steps, and 2 in which the subnets' weight rises."""
    hub = MessageHub.get_instance('run')
    hub.update_info_dict(dict(iter=step, max_iters=40))
    subnets = plain.drawn(step, (0.25, 1.0), RESOLUTIONS, seed=2)
    if not ramp:
        subnets = dict(full=subnets['full'])
    model = build(start=0.5, weights=dict(rand=0.25))
    weights = dict(min=ramp, rand1=ramp / 4, rand2=ramp / 4)
    assert_step(model, subnets, weights=weights)


def test_start_in_a_loop_of_ones_own(build):
    model = build(start=0.5)
    with pytest.raises(UsageError, match="'max_iters'") as error:
        model.loss(images_of(), samples_of())
    assert '\n' not in str(error.value)
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 4)
    model = build(start=0.5)
    drawn = [model.loss(images_of(), samples_of()) for _ in range(4)]
    assert ['min/total' in logged for logged in drawn] == [0, 0, 1, 1]


def logits_of(plain, state, images):
    """Class scores of the full network of a state."""
    net = plain.wide_resnet(plain.rounded, widen=1)
    head = plain.linear_head(FEATURES, CLASSES)
    net = plain.fill(plain.classifier(net, head).double(), state).train()
    with torch.no_grad():
        return net(images)


@pytest.mark.parametrize('options', [{}, dict(label_weight=0.5)], ids=str)
def test_averaged_teacher(build, assert_step, plain, options):
    """Of the weights that each of three steps began with."""
    model = build(teacher='ema', **options)
    images, samples = images_of(), samples_of()
    averages = None
    for step in range(3):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        averages = averages or state
        averages = {
            k: v if not v.is_floating_point() else 0.997 * v + 0.003 * state[k]
            for k, v in averages.items()
        }
        if step < 2:
            model.loss(images, samples)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
    teacher = logits_of(plain, averages, images)
    wrong = logits_of(plain, model.state_dict(), images)
    assert (teacher - wrong).abs().max() > 0.1

    def loss(logits, aim):
        kl = plain.divergence(logits, aim)
        return kl + options.get('label_weight', 0) * label_loss(logits)

    subnets = plain.drawn(2, (0.25, 1.0), RESOLUTIONS, seed=2)
    assert_step(model, subnets, sub_loss=loss, teacher=teacher)
    model.load_state_dict(model.state_dict())
    assert not any('teacher' in key for key in model.state_dict())


def test_average_beside_stock_weights(build, configure, tmp_path):
    """Files of weights alone hold it; the stock class does not mind."""
    model = build(teacher='ema')
    for _ in range(2):
        model.loss(images_of(), samples_of())
        with torch.no_grad():
            model.head.fc.bias.add_(1)
    moved, cpu = [], torch.Tensor.cpu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'cpu', lambda t: moved.append(t) or cpu(t))
        state = model.state_dict()  # hooks ask for it in every iteration
        assert not moved
        torch.save(state, tmp_path / 'weights.pth')
        assert len(moved) == len([*model.parameters()])
    loaded = torch.load(tmp_path / 'weights.pth', weights_only=True)
    MODELS.build(configure(LINEAR, stock=True)).load_state_dict(loaded)
    twin = build(teacher='ema')
    twin.load_state_dict(loaded)
    names = [name for name, _ in twin.named_parameters()]
    assert list(twin._teacher.averages) == names
    for name, mean in twin._teacher.averages.items():
        assert torch.equal(mean, model._teacher.averages[name]), name
    # A copy goes on by itself.
    copied = copy.deepcopy(twin)
    copied._teacher.follow(copied, 2)
    first = model.head.fc.bias - 2
    for net, rise in ((twin, 0.003), (copied, 0.997 * 0.003 + 0.003 * 2)):
        mean = net._teacher.averages['head.fc.bias']
        torch.testing.assert_close(mean, first + rise)


def test_averaged_teacher_leaves_the_other_passes_alone(build):
    """Their draws of dropout, and the casts that autocast keeps for a step."""
    found = []
    for teacher in ('full', 'ema'):
        torch.manual_seed(0)
        model = build(DROPPING, teacher=teacher).float()
        MessageHub.get_instance('run').update_info('iter', 1)
        if teacher == 'ema':
            weights = dict(model.named_parameters())
            model._teacher.averages = {
                n: torch.randn_like(w) for n, w in weights.items()
            }
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16):
            logged = model.loss(images_of().float(), samples_of())
        model.parse_losses(logged)[0].backward()
        assert all(p.grad is not None for p in model.parameters())
        found.append(logged)
    assert torch.equal(found[0]['full/loss'], found[1]['full/loss'])
    assert found[0]['min/total'] != found[1]['min/total']


def test_a_training_that_lost_its_average(build):
    model = build(teacher='ema')
    MessageHub.get_instance('run').update_info('iter', 5)
    with pytest.raises(UsageError, match="teacher='ema': step 5") as error:
        model.loss(images_of(), samples_of())
    assert '\n' not in str(error.value)


DROPPING = dict(
    type='StackedLinearClsHead',
    mid_channels=[24],
    dropout_rate=0.5,
    act_cfg=dict(type='HSwish'),
)


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
    build, assert_step, plain, dropping, which
):
    model = build(DROPPING, regularize=which)
    rate = 0.5 if which == 'all' else 0.0
    assert_step(model, drawn(plain), make=dropping(rate))
    modules = [m for m in model.modules() if not m.training]
    assert not modules


def smoothed(logits, share=0.1):
    scores = F.one_hot(torch.arange(len(logits)) % CLASSES, CLASSES)
    scores = (1 - share) * scores + share / CLASSES
    return -(scores * logits.log_softmax(1)).sum(1).mean()


@pytest.mark.parametrize('supervision', ['kl', 'label'])
def test_smoothed_labels_of_the_full_network_alone(
    build, assert_step, plain, supervision
):
    loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1)
    options = dict(regularize='full', supervision=supervision)
    if supervision == 'kl':
        options['label_weight'] = 0.5
    model = build(dict(LINEAR, loss=loss), **options)

    def sub_loss(logits, teacher):
        if supervision == 'label':
            return label_loss(logits)
        return plain.divergence(logits, teacher) + 0.5 * label_loss(logits)

    assert_step(model, drawn(plain), smoothed, sub_loss=sub_loss)
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


class Saved:
    """What a graph keeps for its backward."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()  # or an output would keep its graph


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(teacher='next', label_weight=0.5, weights='width'),
        dict(teacher='next', divergence='alpha'),
        dict(teacher='ema', label_weight=0.5),
    ],
    ids=str,
)
def test_no_two_graphs_live_at_once(build, options):
    """Each pass begins when nothing is left of the one before."""
    model, living, left = build(**options), WeakSet(), []
    activate = model.activate

    def watched(*args, **kwargs):
        left.append(len(living))
        return activate(*args, **kwargs)

    def keep(tensor):
        saved = Saved(tensor)
        living.add(saved)
        return saved

    model.activate = watched
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda s: s.tensor):
        model.loss(images_of(), samples_of())
    passes = 5 if options.get('teacher') == 'ema' else 4
    assert left == [0] * passes


WRONG = {
    'other networks': (dict(regularize='min'), "regularize='min'", "'full'"),
    'start of one': (
        dict(start=0.5, single_subnet='0.5x-24'),
        'start=0.5',
        '0.5x-24 is trained alone',
    ),
    'another teacher': (dict(teacher='min'), "teacher='min'", "'next'"),
    'teacher of labels': (
        dict(teacher='next', supervision='label'),
        "teacher='next'",
        "supervision='kl'",
    ),
    'labels of labels': (
        dict(label_weight=1, supervision='label'),
        'label_weight=1',
        "supervision='kl'",
    ),
    'below zero': (dict(label_weight=-1), 'label_weight=-1', 'from 0'),
    'no weight': (dict(label_weight=True), 'label_weight=True', 'from 0'),
    'nothing drawn': (
        dict(stratified=True, num_random=0),
        'stratified=True',
        'num_random',
    ),
    'no range': (
        dict(stratified=True, widths=(0.5, 1.0)),
        'stratified=True',
        'width_range',
    ),
    'no switch': (dict(stratified=2), 'stratified=2', 'True or False'),
    'another divergence': (dict(divergence='js'), "'js'", "'alpha'"),
    'divergence of labels': (
        dict(divergence='alpha', supervision='label'),
        "divergence='alpha'",
        "supervision='kl'",
    ),
    'another word': (dict(weights='macs'), "weights='macs'", "'width'"),
    'an empty dict': (dict(weights={}), 'weights={}', "'width'"),
    'zero': (dict(weights=dict(min=0)), "weights['min']=0", 'include_min'),
    'no number': (dict(weights=dict(min='1')), "['min']='1'", 'above 0'),
    'nan': (dict(weights=dict(min=np.nan)), "['min']=nan", 'above 0'),
    'another kind': (dict(weights=dict(fixed=2)), "'fixed'", 'min, rand'),
    'one network': (
        dict(single_subnet='0.5x-24', weights='width'),
        "weights='width'",
        '0.5x-24 is trained alone',
    ),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_cannot_be(configure, name):
    options, *parts = WRONG[name]
    with pytest.raises(ConfigError) as error:
        MODELS.build(configure(LINEAR, options))
    text = str(error.value)
    assert '\n' not in text
    for part in ('mutual.', *parts):
        assert part in text


PLAIN = dict(
    teacher='full',
    label_weight=0,
    stratified=False,
    start=0,
    regularize='all',
    divergence='kl',
    weights=None,
)


def test_defaults_can_be_written_out(build):
    """As a config does that takes back what it inherits."""
    images, samples = images_of(), samples_of()
    found = []
    for options in ({}, PLAIN):
        torch.manual_seed(0)
        model = build(**options)
        model.parse_losses(model.loss(images, samples))[0].backward()
        found.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize('step, tags', [(4, []), (5, TAGS[1:])])
def test_detectors(build_detector, load_batch, step, tags):
    """Weights and a later start go with labels, too."""
    hub = MessageHub.get_instance('run')
    hub.update_info_dict(dict(iter=step, max_iters=10))
    weights = dict(full=2.0, rand=0.5)
    model = build_detector().train()
    data = model.data_preprocessor(load_batch(), True)
    shown = []
    for options in ({}, dict(weights=weights, start=0.5)):
        net = build_detector(options).train()
        net.load_state_dict(model.state_dict())
        torch.manual_seed(1)  # of the proposals that are sampled
        logged = net.loss(**copy.deepcopy(data))
        shown.append(net.parse_losses(logged)[1])
    plain, found = shown
    assert [k[:-6] for k in found if k.endswith('/total')] == tags
    full = plain['loss'] - sum(plain[f'{tag}/total'] for tag in TAGS[1:])
    expected = 2 * full
    for tag in tags:
        assert found[f'{tag}/total'] == plain[f'{tag}/total']
        weight = 1 if tag == 'min' else 0.5
        expected = expected + weight * plain[f'{tag}/total']
    torch.testing.assert_close(found['loss'], expected, rtol=1e-5, atol=0)
