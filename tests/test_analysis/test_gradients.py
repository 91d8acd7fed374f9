"""Gradients of a step against separate narrow networks in plain PyTorch."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import plain_networks as plain
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from programs import run_program

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.analysis.double import as_double
from mutualnet_mm.analysis.gradient_report import (
    describe_gradients,
    gradient_rows,
    plot_gradients,
    save_gradients,
)
from mutualnet_mm.analysis.gradients import _mean, decompose, used_parameters
from mutualnet_mm.analysis.step_gradients import step_gradients, step_subnets

TOOL = Path(__file__).parents[2] / 'tools/analysis/gradients.py'
CLASSES = 20  # more than 8, which a layer would keep at every width


def narrow(width):
    net = plain.wide_resnet(lambda c: plain.rounded(c * width))
    inputs = [p.shape[0] for p in net.parameters()][-1]
    return plain.classifier(net, plain.linear_head(inputs, CLASSES)).double()


@pytest.fixture
def classifier(enter_scope):
    """WRN-10-2 whose predictions differ."""

    def make(**mutual):
        enter_scope('mmpretrain')
        model = MODELS.build(
            dict(
                type='mutualnet_mm.MutualLearning',
                wraps='ImageClassifier',
                mutual=dict(dict(resolution=(32, 24, 16)), **mutual),
                backbone=dict(
                    type='mutualnet_mm.SlimmableWideResNet',
                    depth=10,
                    widen_factor=2,
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(
                    type='LinearClsHead', num_classes=CLASSES, in_channels=128
                ),
            )
        )
        return plain.randomise(model).double()

    return make


def by_hand(model, images, labels, subnets, kl=True, chained=False):
    """Each subnet's gradients, where its narrow network's weights lie.

    With ``chained`` each is the teacher of the next.
    """
    found, teacher = {}, None
    for subnet in subnets:
        net = plain.fill(narrow(subnet.width), model.state_dict()).train()
        x = images
        if subnet.resolution != images.shape[-1]:
            size = (subnet.resolution,) * 2
            x = F.interpolate(x, size, mode='bilinear', antialias=True)
        logits = net(x)
        if teacher is None or not kl:
            loss = F.cross_entropy(logits, labels)
        else:
            loss = plain.divergence(logits, teacher)
        if teacher is None or chained:
            teacher = logits.detach()
        loss.backward()
        gradients = {}
        for name, parameter in net.named_parameters():
            whole = torch.zeros_like(model.state_dict()[name])
            whole[plain.slices_of(parameter)] = parameter.grad
            gradients[name] = whole
        found[str(subnet)] = gradients
    return found


@pytest.mark.parametrize(
    'options, factors',
    [
        # Subnets are trained from the first step on, whatever it says.
        (dict(start=0.5, weights=dict(min=0.5, rand=0.25)), [1, 0.5, 0.25]),
        (dict(teacher='next', weights='width'), [1, 0.25, 0.8]),
        (dict(teacher='ema'), [1, 1, 1]),
    ],
    ids=str,
)
def test_options_beyond_the_paper(classifier, image_batch, options, factors):
    model = classifier(**options)
    names = ['1.0x-32', '0.25x-16', '0.8x-24']
    images, samples, labels = labelled(image_batch)
    found = step_gradients(
        model, images, samples, step_subnets(model, names[1:])
    )
    chained = options.get('teacher') == 'next'
    passes = [names[i] for i in ([0, 2, 1] if chained else range(3))]
    hand = by_hand(
        model, images, labels, map(Subnet.parse, passes), chained=chained
    )
    assert list(found.each) == names
    for name, factor in zip(names, factors):
        for key, gradient in hand[name].items():
            torch.testing.assert_close(
                found.each[name][key], gradient * factor
            )


def labelled(image_batch, number=8, seed=0):
    images, samples = image_batch(number, 32, seed)
    labels = torch.tensor([int(s.gt_label) for s in samples])
    return images.double(), samples, labels


@pytest.mark.parametrize(
    'mutual, names, expected',
    [
        ({}, ['0.4x-16', '0.8x-24'], ['1.0x-32', '0.4x-16', '0.8x-24']),
        (
            dict(supervision='label'),
            ['0.5x-32'],
            ['1.0x-32', '0.5x-32'],
        ),
        # US-Net + multi-scale: the full network has their resolution, too.
        (
            dict(resolution_mode='shared'),
            ['0.4x-24', '0.8x-24'],
            ['1.0x-24', '0.4x-24', '0.8x-24'],
        ),
    ],
    ids=['kl', 'label', 'shared'],
)
def test_each_is_that_of_a_narrow_network(
    classifier, image_batch, mutual, names, expected
):
    model = classifier(**mutual)
    subnets = step_subnets(model, names)
    assert list(map(str, subnets)) == expected
    images, samples, labels = labelled(image_batch)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = step_gradients(model, images, samples, subnets)
    kl = mutual.get('supervision') != 'label'
    hand = by_hand(model, images, labels, subnets, kl)
    for name, gradients in hand.items():
        assert found.each[name].keys() == gradients.keys()
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(found.each[name][parameter], gradient)
    # Equation 6: of one graph of all losses, and of each alone.
    for parameter, joint in found.joint.items():
        summed = sum(gradients[parameter] for gradients in hand.values())
        torch.testing.assert_close(joint, summed)
    after = model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert not any(p.grad is not None for p in model.parameters())


def test_masks_are_the_leading_slices(classifier):
    model = classifier()
    masks = used_parameters(model, '0.4x-16')
    for name, parameter in narrow(0.4).named_parameters():
        expected = torch.zeros_like(masks[name])
        expected[plain.slices_of(parameter)] = True
        assert torch.equal(masks[name], expected), name
    assert all(m.all() for m in used_parameters(model, '1.0x-32').values())


def test_what_a_subnet_uses_of_norms_for_each_resolution(classifier):
    shared = used_parameters(classifier(), '0.4x-16')
    model = classifier(norm='per-resolution')
    masks = used_parameters(model, '0.4x-16')
    assert masks.keys() == {n for n, _ in model.named_parameters()}
    for name, mask in masks.items():
        parts = name.split('.')
        used = 'at_16' in parts or not {'bn1', 'bn2', 'norm'}.intersection(
            parts
        )
        expected = shared[name.replace('at_16.', '')] if used else 0 * mask
        assert torch.equal(mask, expected.bool()), name


def test_norms_and_cosines(classifier, image_batch):
    """Numpy's, of what separate networks give on the narrowest channels."""
    model = classifier()
    subnets = step_subnets(model, ['0.4x-16', '0.8x-24'])
    batches = [labelled(image_batch, seed=seed) for seed in (0, 1)]
    found = decompose(model, [b[:2] for b in batches], subnets)
    assert found.num_batches == 2
    assert found.outside == 0
    assert found.difference < 1e-12 < found.largest
    hands = [by_hand(model, x, y, subnets) for x, _, y in batches]
    own = dict(narrow(0.4).named_parameters())

    def vector(gradients, prefix):
        return np.concatenate(
            [
                gradients[name][plain.slices_of(p)].flatten().numpy()
                for name, p in own.items()
                if name.startswith(prefix)
            ]
        )

    layers = {layer.name: layer for layer in found.layers}
    assert layers.keys() == {n.rpartition('.')[0] for n in own}
    assert layers['backbone.conv1'].is_matrix
    assert not layers['backbone.norm'].is_matrix
    for name, layer in [*layers.items(), ('', found.whole)]:
        parts = [{n: vector(h[n], name) for n in h} for h in hands]
        for subnet in found.subnets:
            norm = np.mean([np.linalg.norm(p[subnet]) for p in parts])
            assert layer.norms[subnet] == pytest.approx(norm, rel=1e-9)
        for a, b in combinations(found.subnets, 2):
            each = [
                p[a] @ p[b] / np.linalg.norm(p[a]) / np.linalg.norm(p[b])
                for p in parts
            ]
            mean, spread = layer.cosines[a, b]
            assert mean == pytest.approx(np.mean(each), abs=1e-9)
            assert spread == pytest.approx(np.std(each, ddof=1), abs=1e-9)
        assert layer.shared == len(parts[0][found.subnets[0]])


def test_report(classifier, image_batch, tmp_path):
    model = classifier()
    subnets = step_subnets(model, ['0.4x-16'])
    found = decompose(model, [labelled(image_batch)[:2]], subnets)
    save_gradients(found, tmp_path)
    content = json.loads((tmp_path / 'gradients.json').read_text())
    assert content['layers'] == gradient_rows(found)
    assert content['layers'][-1]['layer'] == 'all layers'
    lines = (tmp_path / 'gradients.csv').read_text().splitlines()
    assert len(lines) == 1 + len(found.layers) + 1
    assert (tmp_path / 'gradients.png').stat().st_size > 5000
    matrices = [layer for layer in found.layers if layer.is_matrix]
    norms, cosines, _ = plot_gradients(found).axes
    pair = ('1.0x-32', '0.4x-16')
    assert cosines.images[0].get_array().data[0] == pytest.approx(
        [layer.cosines[pair][0] for layer in matrices]
    )
    assert norms.lines[1].get_ydata() == pytest.approx(
        [layer.norms['0.4x-16'] for layer in matrices]
    )
    worst = min(matrices, key=lambda layer: layer.cosines[pair][0])
    text = describe_gradients(found)
    assert f'least in {worst.name} (' in text
    middle = np.median([layer.cosines[pair][0] for layer in matrices])
    assert f'of all layers as one, median {middle:.2f}, below' in text
    assert content['medians'] == {'|'.join(pair): pytest.approx(middle)}
    assert 'own channels: at most 0.0e+00' in text


def test_gradients_that_are_not_finite(classifier, image_batch):
    """The largest difference would be zero, and all angles missing."""
    model = classifier()
    subnets = step_subnets(model, ['0.4x-16'])
    inputs, samples = labelled(image_batch)[:2]
    broken = inputs.clone()
    broken[0, 0, 0, 0] = float('nan')
    with pytest.raises(UsageError, match='gradient of .* is not finite'):
        decompose(model, [(inputs, samples), (broken, samples)], subnets)


def test_an_angle_is_of_all_batches():
    """Not of those alone in which there is one."""
    assert _mean([0.5, 0.25]) == pytest.approx(
        (0.375, np.std([0.5, 0.25], ddof=1))
    )
    assert _mean([0.5, float('nan')]) == (None, None)
    assert _mean([0.5]) == (0.5, None)


def test_zero_gradients_have_no_angle(classifier, image_batch):
    model = classifier()
    with torch.no_grad():  # what follows gets no signal
        model.head.fc.weight.zero_()
    found = decompose(
        model, [labelled(image_batch)[:2]], step_subnets(model, ['0.4x-16'])
    )
    first = found.layers[0]
    assert set(first.norms.values()) == {0.0}
    assert set(first.cosines.values()) == {(None, None)}


def test_video(slow_model, enter_scope):
    enter_scope('mmaction')
    from mmaction.structures import ActionDataSample

    model = MODELS.build(slow_model(resolution=(32, 16), frames=(4, 2)))
    model = plain.randomise(model)
    samples = [ActionDataSample().set_gt_label(i) for i in (0, 2)]
    clips = torch.randn(2, 1, 3, 4, 32, 32)
    subnets = step_subnets(model, ['0.5x-16-2', '0.75x-32-4'])
    found = decompose(model, [(clips, samples)], subnets)
    assert found.difference < 1e-12 < found.largest
    assert found.outside == 0
    assert all(v > 0 for layer in found.layers for v in layer.norms.values())


@pytest.mark.parametrize('double', [True, False])
def test_detector(load_batch, build_detector, double):
    """Its first stage draws, and its boxes are matched, alike each time."""
    model = build_detector()
    batch = load_batch()
    data = model.data_preprocessor(batch, True)
    subnets = step_subnets(model, ['0.5x-48'])
    given = [(data['inputs'], data['data_samples'])]
    if double:  # mmdet's mask targets are in single precision
        with pytest.raises(ConfigError, match='--float32'):
            decompose(model, given, subnets)
        return
    found = decompose(model, given, subnets, double=False)
    assert found.difference < 1e-5 * found.largest
    assert found.outside == 0
    heads = [n for n in found.layers if n.name.startswith('roi_head')]
    assert all(layer.shared == layer.total for layer in heads)


def test_doubled_samples_are_copies(load_batch):
    sample = load_batch()['data_samples'][0]
    new = as_double(sample)
    found = new.gt_instances
    assert isinstance(found, InstanceData)
    assert found.bboxes.tensor.dtype == torch.float64
    assert found.labels.dtype == torch.int64
    assert sample.gt_instances.bboxes.tensor.dtype == torch.float32
    assert torch.equal(
        found.bboxes.tensor.float(), sample.gt_instances.bboxes.tensor
    )


def test_refusals(classifier):
    shared = classifier(resolution_mode='shared')
    with pytest.raises(ConfigError, match='share one size'):
        step_subnets(shared, ['0.4x-16', '0.8x-24'])
    with pytest.raises(ConfigError, match='0.1x-16'):
        step_subnets(classifier(), ['0.1x-16'])
    with pytest.raises(ConfigError, match='trained alone'):
        step_subnets(classifier(num_random=0, include_min=False))
    with pytest.raises(ConfigError, match='no batch'):
        decompose(classifier(), [], [Subnet(1.0, 32), Subnet(0.5, 32)])
    drawn = step_subnets(classifier())
    assert drawn == list(classifier().sampler.sample(0).values())


def test_tool(make_config, checkpoint, tmp_path, monkeypatch):
    make_config().dump(str(tmp_path / 'config.py'))
    monkeypatch.chdir(tmp_path)
    options = ['--subnet', '0.5x-16', '--out', 'out']
    command = [TOOL, 'config.py', *options]
    result = run_program(*command, '--num-batches', 1)
    assert result.returncode == 0
    assert '0.5x-16' in result.stdout and 'all layers' in result.stdout
    assert 'median of layers' in result.stdout
    first = (tmp_path / 'out/gradients.csv').read_text()
    result = run_program(TOOL, 'config.py', checkpoint, *options)
    assert result.returncode == 0
    assert first != (tmp_path / 'out/gradients.csv').read_text()
    result = run_program(*command, '--num-batches', 0)
    assert '--num-batches=0: use a whole number' in result.stderr
