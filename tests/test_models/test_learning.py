"""Options beyond the paper: each step equals separate narrow networks."""

import copy

import numpy as np
import pytest
import torch
from living_graphs import left_behind
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from option_steps import (
    CLASSES,
    LINEAR,
    RESOLUTIONS,
    TAGS,
    assert_step,
    drawn,
    images_of,
    label_loss,
    samples_of,
)

from mutualnet_mm import ConfigError, Subnet, SubnetSpace, UsageError
from mutualnet_mm.models.learning import Learning


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
def test_weights(build_learner, weights):
    subnets = drawn()
    expected = dict.fromkeys(TAGS, 1.0)
    if weights == 'width':
        expected = {tag: width for tag, (width, _) in subnets.items()}
    for tag in TAGS:
        if isinstance(weights, dict):
            expected[tag] = weights.get(tag.rstrip('12'), 1.0)
    assert_step(build_learner(weights=weights), subnets, weights=expected)


def test_width_counts_relative_to_the_full_one(build_learner, plain):
    subnets = plain.drawn(0, (0.25, 0.8), RESOLUTIONS, seed=2)
    model = build_learner(width_range=(0.25, 0.8), weights='width')
    # Widths are of the backbone's own channels.
    expected = {tag: width / 0.8 for tag, (width, _) in subnets.items()}
    weights = [
        model.learning.weight(t, s, 0.8)
        for t, s in model.sampler.sample(0).items()
    ]
    assert weights == pytest.approx(list(expected.values()))


def test_weights_of_a_list_of_widths(
    build_learner,
):
    model = build_learner(
        width_range=None,
        widths=(0.5, 1.0),
        resolution=(32,),
        weights=dict(fixed=0.5),
    )
    subnets = dict(full=(1.0, 32), fixed1=(0.5, 32))
    assert_step(model, subnets, weights=dict(fixed1=0.5))


@pytest.mark.parametrize('scale', [1.0, 8.0])
def test_alpha_divergence(build_learner, scale):
    """With predictions near to each other, and far away."""
    model = build_learner(divergence='alpha')
    with torch.no_grad():
        model.head.fc.weight.mul_(scale)
    assert_step(model, drawn(), sub_loss=alpha)


def from_large_to_small(subnets):
    """By width squared times resolution squared; the full one first."""
    return dict(
        sorted(subnets.items(), key=lambda item: -(np.prod(item[1]) ** 2))
    )


@pytest.mark.parametrize('label_weight', [0, 0.5])
@pytest.mark.parametrize('seed', [2, 3])
def test_next_larger_teacher(build_learner, plain, label_weight, seed):
    subnets = plain.drawn(0, (0.25, 1.0), RESOLUTIONS, seed=seed)
    ordered = from_large_to_small(subnets)
    assert list(ordered) != list(subnets)
    model = build_learner(teacher='next', label_weight=label_weight, seed=seed)

    def loss(logits, teacher):
        kl = plain.divergence(logits, teacher)
        return kl + label_weight * label_loss(logits)

    assert_step(model, ordered, sub_loss=loss, chained=True)


def test_labels_beside_the_full_teacher(build_learner):
    def loss(logits, teacher):
        return alpha(logits, teacher) + 2 * label_loss(logits)

    weights = dict(rand1=0.5, rand2=0.5)
    model = build_learner(
        divergence='alpha', label_weight=2, weights=dict(rand=0.5)
    )
    assert_step(model, drawn(), sub_loss=loss, weights=weights)


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
def test_start(build_learner, plain, step, ramp):
    """Half of 40 steps, and 2 in which the subnets' weight rises."""
    hub = MessageHub.get_instance('run')
    hub.update_info_dict(dict(iter=step, max_iters=40))
    subnets = plain.drawn(step, (0.25, 1.0), RESOLUTIONS, seed=2)
    if not ramp:
        subnets = dict(full=subnets['full'])
    model = build_learner(start=0.5, weights=dict(rand=0.25))
    weights = dict(min=ramp, rand1=ramp / 4, rand2=ramp / 4)
    assert_step(model, subnets, weights=weights)


def test_start_in_a_loop_of_ones_own(build_learner):
    model = build_learner(start=0.5)
    with pytest.raises(UsageError, match="'max_iters'") as error:
        model.loss(images_of(), samples_of())
    assert '\n' not in str(error.value)
    hub = MessageHub.get_current_instance()
    hub.update_info('max_iters', 4)
    model = build_learner(start=0.5)
    drawn = [model.loss(images_of(), samples_of()) for _ in range(4)]
    assert ['min/total' in logged for logged in drawn] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(teacher='next', label_weight=0.5, weights='width'),
        dict(teacher='next', divergence='alpha'),
        dict(teacher='ema', label_weight=0.5, norm='per-resolution'),
    ],
    ids=str,
)
def test_no_two_graphs_live_at_once(build_learner, options):
    """Each pass begins when nothing is left of the one before."""
    left = left_behind(build_learner(**options), images_of(), samples_of())
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
    'the full one is next': (
        dict(teacher='next', num_random=0),
        "teacher='next'",
        'leave it out',
    ),
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
    norm='shared',
)


def test_defaults_can_be_written_out(build_learner):
    """As a config does that takes back what it inherits."""
    images, samples = images_of(), samples_of()
    found = []
    for options in ({}, PLAIN):
        torch.manual_seed(0)
        model = build_learner(**options)
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
