"""2D recognizers against separate networks of plain PyTorch.

As test_recognizers.py does for clips: every subnet is a narrow network with
the leading slices of the weights, on its own segments and pixels.
"""

import copy

import numpy as np
import pytest
import segment_networks as nets
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from passes import on_running_statistics
from torch import nn

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs, count_params
from mutualnet_mm.cost.macs_by_width import MacsByWidth
from mutualnet_mm.engine import calibrate
from mutualnet_mm.models import static_model

pytest.importorskip('mmaction')

CLASSES, SIZES, FRAMES = nets.CLASSES, nets.SIZES, nets.FRAMES
MULTI_LABEL = dict(loss_cls=dict(type='BCELossWithLogits'), multi_class=True)
PLAIN = ['tsn', 'tsn50', 'trn']


@pytest.fixture(autouse=True)
def scope(enter_scope):
    enter_scope('mmaction')


def narrow(plain, kind, state, *subnet):
    """The plain network of a subnet, with its part of the weights."""
    net = nets.PlainRecognizer(kind, *subnet).double()
    return plain.fill(net, state).eval()


@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', nets.KINDS)
def test_the_full_network_is_the_stock_one(kind):
    """Bit by bit: predictions of several views, loss and gradients."""
    model = nets.build(kind)
    stock = MODELS.build(nets.config(kind, slimmable=False))
    assert isinstance(model, type(stock))
    stock.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(stock.state_dict(), strict=True)
    frames, samples = nets.batch(2, frames=12)
    found = model.eval()(frames, samples, mode='predict')
    found = torch.stack([sample.pred_score for sample in found])
    expected = stock.eval()(frames, samples, mode='predict')
    expected = torch.stack([sample.pred_score for sample in expected])
    assert torch.equal(found, expected) and found.shape == (2, CLASSES)

    frames, samples = nets.batch(2)
    losses = []
    for network in (model, stock):
        network.train()
        with torch.no_grad():
            losses.append(network.loss(frames, samples))
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(losses[0][k], losses[1][k]) for k in losses[0])
    for name, value in stock.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


@pytest.mark.sweep(3)
@pytest.mark.parametrize('width', [0.63, 0.8])
@pytest.mark.parametrize('kind', PLAIN)
def test_sliced_equals_narrow(plain, kind, width):
    """Forward and gradient, by running statistics."""
    model = nets.build(kind).double().eval()
    frames, samples = nets.batch(2)
    frames = frames.double().requires_grad_()
    subnet = Subnet(width, 25, model.space.frames[-1])
    net = narrow(plain, kind, model.state_dict(), width, 25, subnet.frames)
    inputs, _ = model.task.resize(model, frames, samples, subnet)
    with on_running_statistics(model, subnet):
        found = model(inputs, mode='tensor', stage='head')
    expected = net(frames)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    seen = {}
    for network, scores in ((model, found), (net, expected)):
        (pixels,) = torch.autograd.grad(
            scores.pow(2).sum(), frames, retain_graph=True
        )
        scores.pow(2).sum().backward()
        gradients = {n: p.grad for n, p in network.named_parameters()}
        seen[network] = dict(gradients, pixels=pixels)
    for name, gradient in seen[net].items():
        ours = seen[model][name][plain.slices_of(gradient)]
        torch.testing.assert_close(ours, gradient, rtol=1e-8, atol=1e-11)


def drawn(frames, seed, number=2, include_min=True, shared=False):
    """Subnets of the first step as (width, size, frames)."""
    rng = np.random.default_rng((seed, 0))

    def draw_size():
        return int(rng.choice(SIZES)), int(rng.choice(frames))

    size = draw_size() if shared else None
    widths = dict(min=0.63) if include_min else {}
    for i in range(number):
        widths[f'rand{i + 1}'] = rng.uniform(0.63, 1.0)
    subnets = dict(full=(1.0, *(size or (SIZES[0], frames[0]))))
    for tag, width in widths.items():
        subnets[tag] = (width, *(size or draw_size()))
    return subnets


def of_one_label(logits, labels):
    return -logits.log_softmax(1).gather(1, labels).mean()


def of_several(logits, labels):
    labels = labels.to(logits)
    positive, negative = F.logsigmoid(logits), F.logsigmoid(-logits)
    return -(labels * positive + (1 - labels) * negative).mean()


# Seeds whose first step draws reduced sizes.
STEPS = {
    'kl': ('tsn', dict(seed=2)),
    'kl-50': ('tsn50', dict(seed=2, num_random=1)),
    'labels': ('tsn', dict(supervision='label', seed=2)),
    'shared': ('tsn', dict(resolution_mode='shared', seed=2)),
    'several-labels': ('tsn', dict(seed=2)),
    'relations': ('trn', dict(seed=2)),
}


@pytest.mark.sweep(2)
@pytest.mark.parametrize('case', STEPS)
def test_one_step(plain, case):
    """Eq. 5: each loss, every gradient and the statistics.

    The prediction that subnets match is the one of the video: the head's
    scores behind its consensus.
    """
    kind, mutual = STEPS[case]
    several = case == 'several-labels'
    model = nets.build(kind, mutual, MULTI_LABEL if several else None)
    model = model.double().train()
    frames, samples = nets.batch(3)
    frames = frames.double()
    if several:
        for i, sample in enumerate(samples):
            labels = torch.zeros(CLASSES, dtype=torch.double)
            labels[list(range(0, 3 * i, 2))] = 1
            sample.set_gt_label(labels)
    labels = torch.stack([sample.gt_label for sample in samples])
    of_labels = of_several if several else of_one_label
    is_kl = case not in ('labels', 'several-labels')
    assert model.supervision == ('kl' if is_kl else 'label')
    subnets = drawn(
        model.space.frames,
        mutual['seed'],
        mutual.get('num_random', 2),
        shared=mutual.get('resolution_mode') == 'shared',
    )
    assert any(s[1:] != (SIZES[0], FRAMES[0]) for s in subnets.values())

    def sub_loss(logits, teacher):
        if is_kl:
            return plain.divergence(logits, teacher)
        return of_labels(logits, labels)

    state = {k: v.clone() for k, v in model.state_dict().items()}
    losses, gradients, buffers = plain.one_step(
        lambda subnet: nets.PlainRecognizer(kind, *subnet),
        state,
        frames,
        {tag: (subnet, SIZES[0]) for tag, subnet in subnets.items()},
        lambda logits: of_labels(logits, labels),
        sub_loss,
    )
    logged = model.loss(frames, samples)
    for tag, loss in losses.items():
        key = 'loss_cls' if tag == 'full' else f'{tag}/total'
        assert logged[key].item() == pytest.approx(loss.item(), 1e-9)
    total, _ = model.parse_losses(logged)
    assert total.item() == pytest.approx(sum(losses.values()).item(), 1e-9)
    total.backward()
    for name, parameter in model.named_parameters():
        wanted = gradients[name]
        error = (parameter.grad - wanted).norm()
        # What the next batch norm undoes has none but rounding errors.
        assert error <= 1e-9 * wanted.norm() + 1e-12, name
    state.update(buffers)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, state[name], msg=name)
    assert min(losses.values()) > 1e-3  # subnets have something to learn


def test_calibration(plain):
    """Statistics equal numpy's, over what a plain narrow network sees."""
    model = nets.build().double()
    model.data_preprocessor = MODELS.build(
        dict(type='ActionDataPreprocessor', to_float32=False)
    )
    batches = []
    for seed, number in enumerate((3, 1, 2)):  # of different offsets too
        frames, samples = nets.batch(number, seed=seed)
        frames = frames.double() + seed
        batches.append(dict(inputs=list(frames), data_samples=samples))
    subnets = [Subnet(0.63, 21, 2), Subnet(0.8, 25, 4), Subnet(1.0, 32, 3)]
    before = copy.deepcopy(model.state_dict())
    bank = calibrate(model, subnets, batches)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for subnet in subnets:
        size = subnet.width, subnet.resolution, subnet.frames
        net = narrow(plain, 'tsn', before, *size).train()
        seen = {}
        for name, layer in net.named_modules():
            if isinstance(layer, nn.BatchNorm2d):

                def keep(layer, args, name=name, seen=seen):
                    values = args[0].transpose(0, 1).flatten(1).numpy()
                    seen.setdefault(name, []).append(values.copy())

                layer.register_forward_pre_hook(keep)
        with torch.no_grad():
            for loaded in batches:
                net(torch.stack(loaded['inputs']))
        found = bank[str(subnet)]
        assert found.keys() == seen.keys()
        for name, pair in found.items():
            values = np.concatenate(seen[name], 1)
            for ours, theirs in zip(pair, (values.mean(1), values.var(1))):
                np.testing.assert_allclose(
                    ours.numpy(), theirs, 1e-9, 1e-12, err_msg=name
                )


@pytest.mark.parametrize('frames', [4, 12, 10])
def test_views(plain, frames):
    """Larger ones, more than one of them, and other numbers of segments.

    A stock TSN is tested on 25 segments of 10 crops, whatever it is trained
    on: the features of all frames are averaged.
    """
    model = nets.build().double()
    inputs, samples = nets.batch(2, frames=frames, size=40)
    inputs = inputs.double()
    for name in ('0.63x-21-2', '0.8x-25-3', '1.0x-32-4'):
        subnet = Subnet.parse(name)
        size = subnet.width, subnet.resolution, subnet.frames
        net = narrow(plain, 'tsn', model.state_dict(), *size)
        resized, copies = model.task.resize(
            model, inputs, [s.new() for s in samples], subnet
        )
        assert resized.shape[1] == round(frames * subnet.frames / 4)
        assert resized.shape[-1] == round(40 * subnet.resolution / 32)
        with torch.no_grad(), on_running_statistics(model, subnet):
            found = model.eval()(resized, copies, mode='predict')
            expected = net(inputs).softmax(1)
        found = torch.stack([sample.pred_score for sample in found])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('kind', PLAIN)
def test_static_forms(kind):
    """Of few segments, too."""
    model = nets.build(kind).double().eval()
    subnet = Subnet(0.8, 25, model.space.frames[-1])
    inputs, samples = nets.batch(2, frames=8)
    inputs = inputs.double()
    net = static_model(model, subnet)
    found = net(inputs, [s.new() for s in samples], mode='predict')
    resized, copies = model.task.resize(model, inputs, samples, subnet)
    with torch.no_grad(), on_running_statistics(model, subnet):
        expected = model(resized, copies, mode='predict')
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours.pred_score, theirs.pred_score)
    assert sum(p.numel() for p in net.parameters()) < sum(
        p.numel() for p in model.parameters()
    )


@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', PLAIN)
def test_costs(kind):
    """Parameters, and multiply-accumulates layer by layer."""
    model = nets.build(kind)
    for subnet in (model.space.full, model.space.smallest):
        net = nets.PlainRecognizer(
            kind, subnet.width, subnet.resolution, subnet.frames
        )
        expected = sum(p.numel() for p in net.parameters())
        assert count_params(model, subnet) == expected
        macs = []

        def count(layer, args, out, macs=macs):
            inputs = layer.weight[0].numel()
            macs.append(out.numel() * inputs)

        pooled = []
        net.backbone.register_forward_hook(
            lambda layer, args, out, pooled=pooled: pooled.append(
                out[-1].numel()
            )
        )
        for layer in net.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(count)
        with torch.no_grad():
            net.eval()(torch.zeros(1, 4, 3, 32, 32))
        assert count_macs(model, subnet) == sum(macs) + sum(pooled)
    shape = model.task.input_shape
    assert shape(model, model.space.full, None) == (1, 4, 3, 32, 32)
    assert shape(model, model.space.full, (40, 48)) == (1, 4, 3, 40, 48)
    few = model.space.smallest
    assert shape(model, few, (40, 48))[1:] == (few.frames, 3, 26, 32)
    assert shape(model, few, (12, 32, 32))[1] == 3 * few.frames


def test_costs_at_many_widths():
    """From one trace per size, as for the cost of training."""
    model = nets.build('tsn')
    counts = MacsByWidth(model)
    for subnet in ('1.0x-32-4', '0.71x-25-3', '0.9x-25-3', '0.63x-21-2'):
        subnet = Subnet.parse(subnet)
        assert counts(subnet) == count_macs(model, subnet)
