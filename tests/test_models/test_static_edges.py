"""What has no static form, and what a static form must not break."""

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import MODELS
from passes import on_running_statistics
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.apis import count_macs, count_params
from mutualnet_mm.models import static_model


@pytest.mark.parametrize(
    'subnet, message',
    [
        ('0.2x-64', r'0\.2x-64.*width 0\.2 is outside'),
        ('1.5x-64', 'width 1.5 is outside'),
        ('0.5x-80', 'resolution 80 is above'),
        ('0.5x-64-4', 'leave out its frames'),
        ('half', "'half' is not understood"),
    ],
)
def test_refused_subnets(build_classifier, classifier_config, subnet, message):
    with pytest.raises(ConfigError, match=message):
        static_model(build_classifier(), subnet)
    config = dict(classifier_config(), type='mutualnet_mm.StaticSubnet')
    with pytest.raises(ConfigError, match=message):
        MODELS.build(dict(config, subnet=subnet))


def test_pipelines_of_another_size(build_classifier, image_batch):
    net = static_model(build_classifier(), '0.5x-48')
    inputs, samples = image_batch(size=48)
    with pytest.raises(ConfigError, match='delivers 48 x 48 .* is 64'):
        net(inputs, samples, mode='predict')
    assert torch.isfinite(net(inputs, samples, mode='loss')['loss'])
    assert net(inputs, mode='tensor').shape == (4, 4)


@pytest.mark.parametrize('mode', ['predict', 'loss'])
def test_clips_of_other_frames(build_recognizer, clip_batch, mode):
    net = static_model(build_recognizer(), '0.63x-21-2')
    with pytest.raises(ConfigError, match='clips of 2 frames.*takes 4'):
        net(*clip_batch(frames=2), mode=mode)


def test_two_stages_without_a_neck(detector_config):
    config = detector_config()
    config.neck = None
    with pytest.raises(ConfigError, match='MaskRCNN without a neck.*one with'):
        static_model(MODELS.build(config), '0.5x-48')


class PassOn(nn.Module):
    """A neck that hands the backbone's maps on, as SSDNeck does."""

    def forward(self, maps):
        return maps


@pytest.fixture
def build_retinanet(detector_config):
    """Return a RetinaNet on one map of the backbone."""

    def make(**settings):
        head = dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=64,
            feat_channels=16,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1], strides=[16]
            ),
        )
        test_cfg = dict(
            nms_pre=60,
            min_bbox_size=0,
            score_thr=0,
            nms=dict(type='nms', iou_threshold=0.5),
            max_per_img=5,
        )
        config = detector_config(out_indices=(2,))
        for part in ('rpn_head', 'roi_head', 'train_cfg'):
            config.pop(part)
        config.update(wraps='RetinaNet', neck=None, test_cfg=test_cfg)
        config.update(dict(dict(bbox_head=head), **settings))
        return MODELS.build(ConfigDict(config)).eval()

    return make


def detect(net, batch):
    with torch.no_grad():
        samples = net(**copy.deepcopy(batch), mode='predict')
    return [sample.pred_instances.scores for sample in samples]


def test_one_stage_without_a_neck(build_retinanet, load_batch):
    """Its head takes the backbone's channels and narrows with them."""
    model = build_retinanet()
    batch = model.data_preprocessor(load_batch((0,), split='val'), False)
    net = static_model(model, '0.5x-64')
    assert net.bbox_head.cls_convs[0].conv.in_channels == 32
    with on_running_statistics(model, '0.5x-64'):
        expected = detect(model, batch)
    assert len(expected[0]) == 5
    assert all(map(torch.equal, detect(net, batch), expected))


def test_parameters_of_one_stage_without_a_neck(build_retinanet):
    model = build_retinanet()
    found = sum(p.numel() for p in static_model(model, '0.5x-64').parameters())
    assert count_params(model, '0.5x-64') == found


def test_a_neck_that_hands_on_the_maps(build_retinanet, load_batch):
    """Narrowed as without a neck, or refused."""
    model = build_retinanet()
    model.neck = PassOn()
    batch = model.data_preprocessor(load_batch((0,), split='val'), False)
    try:
        net = static_model(model, '0.5x-64')
    except ConfigError:
        return
    assert len(detect(net, batch)[0]) == 5


@pytest.mark.parametrize('make', [count_macs, static_model])
def test_a_head_that_shares_its_layers(build_retinanet, make):
    """As mmdet's heads do over the levels of a pyramid."""
    model = build_retinanet()
    head = model.bbox_head
    head.levels = nn.ModuleList([head.cls_convs, head.cls_convs])
    result = make(model, '0.5x-64')
    for net in (model, result) if make is static_model else (model,):
        assert {p.device.type for p in net.parameters()} == {'cpu'}


def test_classifier_without_samples(build_classifier, image_batch):
    """As the stock one does."""
    model, (inputs, _) = build_classifier().eval(), image_batch()
    assert len(model(inputs, mode='predict')) == 4
    assert len(static_model(model, '0.5x-48')(inputs, mode='predict')) == 4


@pytest.mark.parametrize('dtype', [torch.double, torch.half])
def test_another_precision(build_detector, dtype):
    """Of convolutions with a bias, as those of a neck are."""
    net = static_model(build_detector().to(dtype), '0.5x-48')
    assert {p.dtype for p in net.parameters()} == {dtype}


def test_moving_the_static_form_leaves_the_model_alone(build_classifier):
    model = build_classifier()
    static_model(model, '0.5x-48').double().requires_grad_(False)
    assert {p.dtype for p in model.parameters()} == {torch.float}
    assert all(p.requires_grad for p in model.parameters())


def test_synchronised_batch_norms_just_put_in(build_classifier):
    """As ``cfg.sync_bn`` does, before the first ``train()``."""
    model = convert_sync_batchnorm(build_classifier().eval(), 'torch')
    net = static_model(model, '0.5x-48')
    assert net.backbone.bn1.num_features == net.backbone.conv1.out_channels
