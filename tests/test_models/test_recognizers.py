"""A training step on video equals one with separate networks.

As test_one_step.py does for images: every subnet is a narrow network of plain
PyTorch with the leading slices of the weights, on its own frames and pixels.
"""

import copy
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from passes import on_running_statistics
from torch import nn
from torch.utils.data import Dataset

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_table, count_params
from mutualnet_mm.engine import calibrate
from mutualnet_mm.slimmable import use_statistics

pytest.importorskip('mmaction')

CLASSES, SIZES, FRAMES = 20, (32, 25, 21), (4, 3, 2)
# Of the Fast branch, what it hands over, and the step between slow frames.
LATERALS = [(2, 4, 4), (8, 16, 4), (16, 32, 4), (32, 64, 4)]
TAILS = {
    f'backbone.slow_path.layer{i + 1}.0.{conv}.conv.weight': lateral[1]
    for i, lateral in enumerate(LATERALS)
    for conv in ('conv1', 'downsample')
}
MULTI_LABEL = dict(loss_cls=dict(type='BCELossWithLogits'), multi_class=True)


class ClipClassifier(nn.Module):
    """Backbone, average pooling, dropout and a linear layer."""

    def __init__(self, backbone, features, dropout, prepare):
        super().__init__()
        self.backbone, self.prepare = backbone, prepare
        self.dropout = nn.Dropout(dropout)
        self.cls_head = nn.Sequential(
            OrderedDict(fc_cls=nn.Linear(features, CLASSES))
        )

    def forward(self, clips):
        maps = self.backbone(self.prepare(clips))
        if isinstance(maps, list):  # of every layer of one branch
            maps = maps[-1:]
        # Those of the Fast branch come first.
        pooled = [x.mean((2, 3, 4)) for x in maps[::-1]]
        return self.cls_head(self.dropout(torch.cat(pooled, 1)))


@pytest.fixture
def build_narrow(plain):
    """Return a function that builds the plain network of a subnet."""

    def make(kind, dropout=0):
        def build(width, pixels, frames):
            scale = pixels / SIZES[0]

            def narrow(channels):
                return plain.rounded(channels * width)

            def reduce(clips):
                size = [round(side * scale) for side in clips.shape[-2:]]
                return plain.shrink(clips, size, frames)

            if kind == 'slow':
                net = plain.resnet3d(narrow)
                return ClipClassifier(net, narrow(512), dropout, reduce)
            slow = plain.resnet3d(narrow, tails=[t for _, t, _ in LATERALS])
            fast = plain.resnet3d(
                lambda channels: channels,
                base=2,
                inflate=(1, 1, 1, 1),
                stem=(5, 7, 7),
            )
            net = plain.TwoBranches(
                slow, fast, LATERALS, scale, frames, (4, 1)
            )
            whole = nn.Identity()
            return ClipClassifier(net, narrow(512) + 64, dropout, whole)

        return build

    return make


def drawn(seed, number=2, include_min=True, shared=False):
    """Subnets of the first step as (width, size, frames)."""
    rng = np.random.default_rng((seed, 0))

    def draw_size():
        return int(rng.choice(SIZES)), int(rng.choice(FRAMES))

    size = draw_size() if shared else None
    widths = dict(min=0.63) if include_min else {}
    for i in range(number):
        widths[f'rand{i + 1}'] = rng.uniform(0.63, 1.0)
    subnets = dict(full=(1.0, *(size or (SIZES[0], FRAMES[0]))))
    for tag, width in widths.items():
        subnets[tag] = (width, *(size or draw_size()))
    return subnets


def one_step(plain, build, state, clips, subnets, full_loss, sub_loss):
    """Losses and summed gradients (Eq. 5), as :func:`plain.one_step`."""
    gradients = {name: torch.zeros_like(v) for name, v in state.items()}
    losses = {}
    for tag, subnet in subnets.items():
        with torch.random.fork_rng(devices=[]):  # dropout draws the same
            net = build(*subnet).to(clips.dtype).train()
        plain.fill_fused(net, state, TAILS)
        logits = net(clips)
        if tag == 'full':
            loss, teacher = full_loss(logits), logits.detach()
            buffers = dict(net.named_buffers())
        else:
            loss = sub_loss(logits, teacher)
        loss.backward()
        losses[tag] = loss.detach()
        for name, parameter in net.named_parameters():
            where = plain.place(gradients[name], parameter, TAILS.get(name, 0))
            gradients[name][where] += parameter.grad
    names = [name for name, _ in net.named_parameters()]
    return losses, {name: gradients[name] for name in names}, buffers


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    # What the next batch norm undoes has no gradient but rounding errors.
    floor = 1e-12 * max(v.double().norm() for v in expected.values())
    for name, value in found.items():
        wanted = expected[name].double()
        error = (value - wanted).norm()
        assert error <= 1e-9 * wanted.norm() + floor, name


def cross_entropy(logits, labels):
    return -(labels * logits.log_softmax(1)).sum(1).mean()


def check_step(plain, build, model, clips, samples, subnets):
    """Compare a step with the reference."""
    labels = torch.stack([s.gt_label for s in samples])
    if model.cls_head.multi_class:

        def label_loss(logits, teacher=None):
            labels_ = labels.to(logits)
            return -(
                labels_ * F.logsigmoid(logits)
                + (1 - labels_) * F.logsigmoid(-logits)
            ).mean()
    else:
        soft = labels.double()
        if labels.shape[1] == 1:
            soft = F.one_hot(labels[:, 0], CLASSES).double()

        def label_loss(logits, teacher=None):
            return cross_entropy(logits, soft)

    is_kl = model.supervision == 'kl'
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(7)  # for dropout
    losses, gradients, buffers = one_step(
        plain,
        build,
        state,
        clips[:, 0],
        subnets,
        label_loss,
        plain.divergence if is_kl else label_loss,
    )
    torch.manual_seed(7)
    logged = model.loss(clips, samples)
    named = {f'{tag}/total': loss for tag, loss in losses.items()}
    named['loss_cls'] = named.pop('full/total')
    named['loss_mutual'] = sum(losses.values()) - losses['full']
    assert set(logged) - {'top1_acc', 'top5_acc'} == named.keys()
    for key, value in named.items():
        assert logged[key].item() == pytest.approx(value.item(), 1e-9)
    model.zero_grad()
    total, _ = model.parse_losses(logged)
    total.backward()
    assert total.item() == pytest.approx(sum(losses.values()).item(), 1e-9)
    assert_same({n: p.grad for n, p in model.named_parameters()}, gradients)
    # Statistics move by what the full network's pass alone saw.
    state.update(buffers)
    assert_same(model.state_dict(), state)
    assert min(losses.values()) > 1e-3  # subnets have something to learn


# Seeds whose first step draws reduced sizes.
STEPS = {
    'kl': ('slow', dict(seed=2)),
    'kl-without-min': ('slow', dict(include_min=False, seed=2)),
    'labels': ('slow', dict(supervision='label', seed=2)),
    'one-random': ('slow', dict(num_random=1, include_min=False, seed=1)),
    'shared': ('slow', dict(resolution_mode='shared', seed=2)),
    'multi-label': ('slow', dict(seed=2)),
    'dropout': ('slow', dict(seed=2)),
    'slowfast-kl': ('slowfast', dict(seed=2)),
    'slowfast-labels': (
        'slowfast',
        dict(supervision='label', include_min=False, seed=2),
    ),
    'slowfast-multi-label': ('slowfast', dict(num_random=1, seed=2)),
    'slowfast-dropout': ('slowfast', dict(num_random=1, seed=2)),
}


@pytest.mark.sweep(4)
@pytest.mark.parametrize('case', STEPS)
def test_one_step(build_recognizer, build_narrow, clip_batch, plain, case):
    """The losses, every gradient and the statistics."""
    kind, mutual = STEPS[case]
    dropout = 0.5 if 'dropout' in case else 0
    head = MULTI_LABEL if 'multi-label' in case else {}
    model = build_recognizer(kind, mutual, dict(head, dropout_ratio=dropout))
    clips, samples = clip_batch(3, frames=4 if kind == 'slow' else 16)
    for i, sample in enumerate(samples):
        if head:  # the first one has no label at all
            several = torch.zeros(CLASSES, dtype=torch.double)
            several[list(range(0, 3 * i, 2))] = 1
            sample.set_gt_label(several)
    subnets = drawn(
        mutual['seed'],
        mutual.get('num_random', 2),
        mutual.get('include_min', True),
        mutual.get('resolution_mode') == 'shared',
    )
    assert any(subnet[1:] != (32, 4) for subnet in subnets.values())
    check_step(
        plain,
        build_narrow(kind, dropout),
        model.double().train(),
        clips.double(),
        samples,
        subnets,
    )


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_mixup(build_recognizer, build_narrow, clip_batch, plain, kind):
    """Soft labels train the full network, its prediction the others."""
    model = build_recognizer(kind, dict(num_random=1, seed=2)).double().train()
    model.data_preprocessor = MODELS.build(
        dict(
            type='ActionDataPreprocessor',
            blending=dict(
                type='MixupBlending', num_classes=CLASSES, alpha=1.0
            ),
            to_float32=False,
            format_shape='NCTHW',
        )
    )
    clips, samples = clip_batch(3, frames=4 if kind == 'slow' else 16)
    clips = clips.double()
    batch = dict(inputs=list(clips), data_samples=samples)
    torch.manual_seed(1)
    data = model.data_preprocessor(batch, True)
    labels = torch.stack([s.gt_label for s in data['data_samples']])
    assert labels.shape == (3, CLASSES)
    assert (labels.max(1).values < 0.99).any()
    # Clip i is of class i: labels tell what each one was blended of.
    blended = torch.einsum('ik,kvcthw->ivcthw', labels[:, :3].double(), clips)
    torch.testing.assert_close(data['inputs'], blended, rtol=0, atol=1e-6)
    check_step(
        plain,
        build_narrow(kind),
        model,
        data['inputs'],
        data['data_samples'],
        drawn(2, 1),
    )


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_checkpointed_activations(build_recognizer, clip_batch, kind):
    """They are computed again at the width and the size of their subnet."""
    cp = dict(with_cp=True)
    checkpointed = cp if kind == 'slow' else dict(slow_pathway=cp)
    clips, samples = clip_batch(2, frames=4 if kind == 'slow' else 16)
    gradients = []
    weights = None
    for settings in ({}, checkpointed):
        model = build_recognizer(kind, dict(num_random=1, seed=2), **settings)
        model = model.double().train()
        weights = weights or copy.deepcopy(model.state_dict())
        model.load_state_dict(weights)
        total, _ = model.parse_losses(model.loss(clips.double(), samples))
        total.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    assert_same(*gradients)


@pytest.mark.parametrize('head', [{}, MULTI_LABEL], ids=['single', 'multi'])
def test_several_clips_of_a_sample(
    build_recognizer, recognizer_config, clip_batch, head
):
    """Stock heads take them in testing alone, and so do ours."""
    ours = build_recognizer(head=head)
    stock = MODELS.build(recognizer_config(head=head, slimmable=False))
    clips, samples = clip_batch(3, views=2)
    if head:
        for sample in samples:
            sample.set_gt_label(torch.zeros(CLASSES))
    texts = []
    for model in (stock, ours):
        with pytest.raises(ValueError) as caught:
            model.train().loss(clips, samples)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def numpy_statistics(net, batches):
    """Mean and variance of what enters every batch norm of a plain network."""
    seen = {}
    for name, layer in net.named_modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.register_forward_pre_hook(
                lambda layer, args, name=name: seen.setdefault(
                    name, []
                ).append(args[0].transpose(0, 1).flatten(1).numpy().copy())
            )
    with torch.no_grad():
        for clips in batches:
            net.train()(clips)
    values = {name: np.concatenate(x, 1) for name, x in seen.items()}
    return {name: (x.mean(1), x.var(1)) for name, x in values.items()}


def with_statistics(net, statistics):
    for name, (mean, var) in statistics.items():
        layer = net.get_submodule(name)
        layer.running_mean.copy_(torch.as_tensor(mean))
        layer.running_var.copy_(torch.as_tensor(var))
    return net.eval()


@pytest.fixture
def double_recognizer(build_recognizer):
    """Return a recognizer in double precision that takes such clips."""

    def make(kind):
        model = build_recognizer(kind).double()
        model.data_preprocessor = MODELS.build(
            dict(type='ActionDataPreprocessor', to_float32=False)
        )
        return model

    return make


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_calibration(double_recognizer, build_narrow, clip_batch, plain, kind):
    """Statistics equal numpy's, over what a plain narrow network sees."""
    model, batches = double_recognizer(kind), []
    for seed, number in enumerate((3, 1, 2)):  # of different offsets too
        clips, samples = clip_batch(
            number, frames=4 if kind == 'slow' else 16, seed=seed
        )
        clips = clips.double() + seed
        batches.append(dict(inputs=list(clips), data_samples=samples))
    subnets = [Subnet(0.63, 21, 2), Subnet(0.8, 25, 4), Subnet(1.0, 32, 3)]
    before = copy.deepcopy(model.state_dict())
    bank = calibrate(model, subnets, batches)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert set(bank) == {'0.63x-21-2', '0.8x-25-4', '1.0x-32-3'}
    build = build_narrow(kind)
    for subnet in subnets:
        net = build(subnet.width, subnet.resolution, subnet.frames).double()
        plain.fill_fused(net, before, TAILS)
        expected = numpy_statistics(
            net, [torch.cat(b['inputs']) for b in batches]
        )
        found = bank[str(subnet)]
        assert found.keys() == expected.keys()
        for name, pair in found.items():
            for ours, theirs in zip(pair, expected[name]):
                np.testing.assert_allclose(
                    ours.numpy(), theirs, 1e-9, 1e-12, err_msg=name
                )


def predict(model, clips, samples, subnet, statistics=None):
    subnet = Subnet.parse(subnet)
    samples = [sample.new() for sample in samples]
    inputs, samples = model.task.resize(model, clips, samples, subnet)
    with torch.no_grad(), on_running_statistics(model, subnet), use_statistics(
        model, statistics
    ):
        found = model.eval()(inputs, samples, mode='predict')
    return torch.stack([sample.pred_score for sample in found])


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_views(double_recognizer, build_narrow, clip_batch, plain, kind):
    """10 clips of 3 crops each, larger than the training clips."""
    model = double_recognizer(kind)
    clips, samples = clip_batch(
        1, frames=4 if kind == 'slow' else 16, size=36, views=30
    )
    clips = clips.double()
    subnets = [(0.63, 25, 3), (1.0, 32, 4)]
    for width, size, frames in subnets[: 2 if kind == 'slow' else 1]:
        subnet = f'{width}x-{size}-{frames}'
        net = build_narrow(kind)(width, size, frames).double().eval()
        plain.fill_fused(net, model.state_dict(), TAILS)
        with torch.no_grad():
            one_by_one = [net(view).softmax(1) for view in clips[0].split(1)]
        expected = torch.stack(one_by_one).mean(0)
        found = predict(model, clips, samples, subnet)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
        model.test_cfg = dict(max_testing_views=7)  # not a divisor of 30
        parts = predict(model, clips, samples, subnet)
        torch.testing.assert_close(parts, expected, rtol=1e-9, atol=1e-12)
        model.test_cfg = None


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_switching(build_recognizer, clip_batch, kind):
    """Back and forth between subnets, bit by bit the same."""
    model = build_recognizer(kind)
    frames = 4 if kind == 'slow' else 16
    clips, samples = clip_batch(2, frames=frames, views=2)
    batch = clip_batch(3, frames=frames, seed=1)
    batch = dict(inputs=list(batch[0]), data_samples=batch[1])
    names = ['1.0x-32-4', '0.63x-21-2', '0.8x-25-4', '0.8x-32-3']
    bank = calibrate(model, [Subnet.parse(n) for n in names[1:]], [batch])

    def scores(name):
        return predict(model, clips, samples, name, bank.get(name))

    first = {name: scores(name) for name in names}
    for name in (*names[::-1], *names):
        assert torch.equal(scores(name), first[name])
    assert len({tuple(x.flatten().tolist()) for x in first.values()}) == 4


@DATASETS.register_module(force=True)
class NoiseClips(Dataset):
    """Clips of noise, of one view for training and of three for tests."""

    def __init__(self, frames, test_mode):
        self.frames, self.test_mode = frames, test_mode

    def __len__(self):
        return 2 if self.test_mode else 4

    def __getitem__(self, index):
        from mmaction.structures import ActionDataSample

        views, size = (3, 36) if self.test_mode else (1, 32)
        generator = torch.Generator().manual_seed(index + 9 * self.test_mode)
        shape = (views, 3, self.frames, size, size)
        clips = torch.randn(shape, generator=generator)
        sample = ActionDataSample().set_gt_label(index)
        return dict(inputs=clips, data_samples=sample)


@METRICS.register_module(force=True)
class ClipScores(BaseMetric):
    """Keeps every score that was predicted."""

    default_prefix = 'score'

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_score'] for sample in data_samples]

    def compute_metrics(self, results):
        scores = torch.stack(results).flatten()
        return {str(i): score.item() for i, score in enumerate(scores)}


@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_loop_and_table(
    recognizer_config, build_recognizer, build_narrow, plain, tmp_path, kind
):
    """Calibrated and tested as plain narrow networks are, each alone."""
    names = ['1.0x-32-4', '0.8x-21-4', '0.63x-25-3']
    frames = 4 if kind == 'slow' else 16
    checkpoint = str(tmp_path / 'weights.pth')
    weights = build_recognizer(kind).state_dict()
    torch.save(dict(state_dict=weights), checkpoint)

    def loader(size, test_mode):
        return dict(
            batch_size=size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='NoiseClips', frames=frames, test_mode=test_mode
            ),
        )

    def config(name):
        return Config(
            dict(
                default_scope='mmaction',
                experiment_name=f'{kind}-{name}',
                work_dir=str(tmp_path / 'work'),
                launcher='none',
                model=recognizer_config(kind),
                load_from=checkpoint,
                train_dataloader=loader(4, False),
                test_dataloader=loader(1, True),
                test_evaluator=dict(type='ClipScores'),
                test_cfg=dict(
                    type='mutualnet_mm.SubnetTestLoop', subnets=names
                ),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
                log_level='ERROR',
            )
        )

    found = Runner.from_cfg(config('loop')).test()
    table = build_table(config('table'), checkpoint, tmp_path, subnets=names)
    train, test = (NoiseClips(frames, mode) for mode in (False, True))
    train = [torch.cat([train[i]['inputs'] for i in range(len(train))])]
    for entry, name in zip(table.entries, names):
        assert str(entry.subnet) == name
        subnet = entry.subnet
        net = build_narrow(kind)(
            subnet.width, subnet.resolution, subnet.frames
        )
        plain.fill_fused(net, weights, TAILS).eval()
        if name != names[0]:
            with_statistics(net, numpy_statistics(net, train))
        with torch.no_grad():
            scores = [
                net(test[i]['inputs']).softmax(1).mean(0)
                for i in range(len(test))
            ]
        prefix = '' if name == names[0] else f'{name}/'
        for i, score in enumerate(torch.cat(scores).tolist()):
            ours = found[f'{prefix}score/{i}']
            assert ours == pytest.approx(score, rel=1e-3, abs=1e-5)
            assert entry.metrics[f'score/{i}'] == ours


@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
def test_parameters(build_recognizer, build_narrow, kind):
    model, build = build_recognizer(kind), build_narrow(kind)
    for subnet in ('1.0x-32-4', '0.63x-21-2', '0.8x-25-4'):
        width, size, frames = subnet.replace('x', '').split('-')
        net = build(float(width), int(size), int(frames))
        expected = sum(p.numel() for p in net.parameters())
        assert count_params(model, subnet) == expected
    whole = sum(p.numel() for p in model.parameters())
    assert count_params(model, '1.0x-32-4') == whole
