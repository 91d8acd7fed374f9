"""Subnets that follow the full network's maps, against plain networks."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from living_graphs import left_behind
from mmengine.registry import MODELS
from plain_maps import STRIDES, plain_distance

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.sampler import GivenSubnets

pytest.importorskip('mmdet')
WEIGHT = 0.7
HEAD = dict(
    type='RetinaHead',
    num_classes=2,
    in_channels=32,
    feat_channels=16,
    stacked_convs=1,
    anchor_generator=dict(
        type='AnchorGenerator', scales=[4.0], ratios=[1.0], strides=STRIDES
    ),
)


@pytest.fixture
def configure(detector_config):
    """Return the config of a RetinaNet of ours or, narrow, a stock one."""

    def make(width=None, mutual=None, **settings):
        config = detector_config(
            dict(
                dict(resolution=(64, 48, 32), distill=WEIGHT), **(mutual or {})
            )
        )
        for part in ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
            config.pop(part)
        config.neck.num_outs = len(STRIDES)
        config.update(wraps='RetinaNet', bbox_head=copy.deepcopy(HEAD))
        assigner = dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            ignore_iof_thr=-1,
        )
        config.train_cfg = dict(
            assigner=assigner,
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
        )
        config.update(settings)
        if config.neck is None:  # its head takes 128 channels
            config.backbone.out_indices = (3,)
        if width is not None:
            for name in ('wraps', 'mutual'):
                config.pop(name)
            config.type = 'RetinaNet'
            config.backbone.type = config.backbone.pop('wraps')
            config.backbone.base_channels = int(16 * width)
            config.neck.in_channels = [
                int(c * width) for c in config.neck.in_channels
            ]
        return config

    return make


@pytest.fixture
def build(configure, plain):
    def make(*args, **kwargs):
        model = MODELS.build(configure(*args, **kwargs))
        model.init_weights()
        return plain.randomise(model).double().train()

    return make


@pytest.fixture
def batch(build, load_batch):
    """A preprocessed batch of two images of 64 x 85 and 85 x 64 pixels."""

    def load(model):
        data = model.data_preprocessor(load_batch((0, 1)), True)
        return data['inputs'].double(), data['data_samples']

    return load


def resized(inputs, samples, resolution):
    """The batch at a resolution below 64, by the documented rule."""
    sides = [
        tuple(int(side * resolution / 64 + 0.5) for side in s.img_shape)
        for s in samples
    ]
    canvas = [-(-max(side) // 32) * 32 for side in zip(*sides)]
    images = inputs.new_zeros(*inputs.shape[:2], *canvas)
    samples = copy.deepcopy(samples)
    for i, (sample, (h, w)) in enumerate(zip(samples, sides)):
        old_h, old_w = sample.img_shape
        images[i, :, :h, :w] = F.interpolate(
            inputs[i : i + 1, :, :old_h, :old_w],
            (h, w),
            mode='bilinear',
            antialias=True,
        )[0]
        boxes = sample.gt_instances.bboxes
        factor = boxes.new_tensor((w / old_w, h / old_h) * 2)
        sample.gt_instances.bboxes = boxes * factor
        sample.set_metainfo(
            dict(
                img_shape=(h, w),
                pad_shape=tuple(-(-side // 32) * 32 for side in (h, w)),
                batch_input_shape=tuple(canvas),
            )
        )
    return images, samples


def separate_networks(build, plain, state, data, subnets):
    """Losses and gradients of a step of separate stock networks."""
    gradients = {name: torch.zeros_like(v) for name, v in state.items()}
    losses, aim, full_images = {}, None, None
    for tag, (width, resolution) in subnets.items():
        net = plain.fill(build(width), state)
        inputs, samples = copy.deepcopy(data)
        if resolution != 64:
            inputs, samples = resized(inputs, samples, resolution)
        images = [sample.img_shape for sample in samples]
        levels = net.neck(net.backbone(inputs))
        loss = sum(
            sum(part) for part in net.bbox_head.loss(levels, samples).values()
        )
        if tag == 'full':
            aim, full_images = levels, images
        else:
            shift = round(np.log2(64 / resolution))
            distance = plain_distance(levels, aim, images, full_images, shift)
            loss = loss + WEIGHT * distance
        losses[tag] = loss.item()
        loss.backward()
        for name, parameter in net.named_parameters():
            part = gradients[name][plain.slices_of(parameter)]
            part += parameter.grad
    names = [name for name, _ in net.named_parameters()]
    return losses, {name: gradients[name] for name in names}


@pytest.mark.parametrize('resolution', [64, 48, 32])
def test_a_step_equals_separate_networks(build, batch, plain, resolution):
    """The losses and the gradient of every parameter."""
    model = build(mutual=dict(width_range=None, widths=(1.0, 0.5)))
    subnets = dict(full=Subnet(1.0, 64), fixed1=Subnet(0.5, resolution))
    model.sampler = GivenSubnets(model.sampler, subnets)
    data = batch(model)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    losses, gradients = separate_networks(
        build,
        plain,
        state,
        data,
        dict(full=(1.0, 64), fixed1=(0.5, resolution)),
    )
    logged = model.loss(*data)
    found = logged['fixed1/total'].item()
    assert found == pytest.approx(losses['fixed1'], rel=1e-6)
    total, _ = model.parse_losses(logged)
    assert total.item() == pytest.approx(sum(losses.values()), rel=1e-6)
    total.backward()
    floor = 1e-9 * max(g.norm() for g in gradients.values())
    for name, parameter in model.named_parameters():
        error = (parameter.grad - gradients[name]).norm()
        assert error <= 1e-5 * gradients[name].norm() + floor, name


def test_beside_the_other_options(build_detector, load_batch):
    """Of Mask R-CNN: no loss of the full network, weighted with the rest."""
    model = build_detector().train()
    data = model.data_preprocessor(load_batch(), True)
    shown = {}
    for distill in (0, 2, 4):
        weights = dict(min=0.5, full=2.0)
        net = build_detector(dict(distill=distill, weights=weights)).train()
        net.load_state_dict(model.state_dict())
        torch.manual_seed(1)  # of the proposals that are sampled
        logged = net.loss(**copy.deepcopy(data))
        shown[distill] = {k: v for k, v in net.parse_losses(logged)[1].items()}
    tags = ('min', 'rand1', 'rand2')
    distances = [
        (shown[2][f'{tag}/total'] - shown[0][f'{tag}/total']) / 2
        for tag in tags
    ]
    assert all(0.5 < distance < 6 for distance in distances)
    found = (shown[4]['loss'] - shown[0]['loss']) / 4
    expected = 0.5 * distances[0] + distances[1] + distances[2]
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    full = [
        {k: v for k, v in s.items() if '/' not in k} for s in shown.values()
    ]
    for key in set(full[0]) - {'loss', 'loss_mutual'}:
        assert full[0][key] == full[1][key], key


def test_no_two_graphs_live_at_once(build, batch):
    """Each pass begins when nothing is left of the one before."""
    model = build()
    assert left_behind(model, *batch(model)) == [0] * 4


NO_NECK = dict(neck=None, bbox_head=dict(HEAD, in_channels=128))
WRONG = {
    'below zero': (dict(distill=-1), {}, 'distill=-1', 'from 0'),
    'no number': (dict(distill='pkd'), {}, "distill='pkd'", 'from 0'),
    'one network': (
        dict(single_subnet='0.5x-48'),
        {},
        'distill=0.7',
        '0.5x-48 is trained alone',
    ),
    'narrow maps': (
        {},
        NO_NECK,
        'those of a subnet have [32]',
        'such as FPN',
    ),
    'too small': (
        dict(resolution=(256, 16)),
        {},
        'at resolution 16 no level of FPN',
        'at 256',
    ),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_cannot_be(configure, name):
    mutual, settings, *parts = WRONG[name]
    with pytest.raises(ConfigError) as error:
        MODELS.build(configure(mutual=mutual, **settings))
    text = str(error.value)
    assert '\n' not in text
    for part in ('mutual.distill', *parts):
        assert part in text


def test_one_size_for_all_needs_no_level_of_another(configure):
    """Of a step; the full network is as small then."""
    mutual = dict(resolution=(256, 16), resolution_mode='shared')
    assert MODELS.build(configure(mutual=mutual)).sampler.shared
    with pytest.raises(ConfigError, match='at resolution 16 no level'):
        MODELS.build(configure(mutual=dict(resolution=(256, 16))))


def test_classifiers_have_no_maps(classifier_config):
    with pytest.raises(ConfigError, match='ImageClassifier is none: leave'):
        MODELS.build(classifier_config(dict(distill=1)))


def test_what_fails_on_the_meta_device_is_judged_in_the_first_step(
    build, batch, monkeypatch
):
    def fail(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr('mutualnet_mm.models.feature_maps.run_on_meta', fail)
    model = build()
    stock = type(model.neck).forward
    monkeypatch.setattr(
        type(model.neck),
        'forward',
        lambda self, x: (*stock(self, x)[:3], x[0]),
    )
    model.bbox_head.loss = lambda *args: dict(
        loss=model.neck.lateral_convs[0].conv.bias.sum()
    )
    with pytest.raises(ConfigError, match='use a neck that makes them equal'):
        model.loss(*batch(model))
