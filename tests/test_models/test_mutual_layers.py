"""Layers that other code replaces or freezes after the model was built."""

import copy

import pytest
import torch
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.engine import calibrate
from mutualnet_mm.slimmable import SlimLayer, SlimSyncBatchNorm, convert
from mutualnet_mm.slimmable.batch_norms import SlimBatchNormXd

SUBNET = Subnet(0.5, 48)


@pytest.fixture
def batches(image_batch):
    images, samples = image_batch()
    return [dict(inputs=images, data_samples=samples)]


def predict(model, images, samples, bank):
    model.eval()
    samples = [sample.new() for sample in samples]
    inputs, samples = model.task.resize(model, images, samples, SUBNET)
    with torch.no_grad(), model.activate(SUBNET, bank[str(SUBNET)]):
        found = model(inputs, samples, mode='predict')
    return torch.stack([sample.pred_score for sample in found])


def all_slim(model):
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return norms and all(isinstance(m, SlimLayer) for m in norms)


@pytest.mark.parametrize(
    'mutual', [None, dict(widths=(1.0,))], ids=['widths', 'one width']
)
@pytest.mark.parametrize(
    'replace',
    [
        revert_sync_batchnorm,
        lambda model: revert_sync_batchnorm(convert_sync_batchnorm(model)),
    ],
    ids=['SyncBN', 'sync_bn'],
)
def test_a_reverted_sync_batch_norm_goes_on(
    build_classifier, image_batch, batches, replace, mutual
):
    """On one process MMEngine takes every SyncBatchNorm out again."""
    subnet = SUBNET if mutual is None else Subnet(1.0, 48)
    torch.manual_seed(0)
    expected = build_classifier(mutual)
    torch.manual_seed(0)
    model = build_classifier(mutual, norm_cfg=dict(type='SyncBN'))
    assert isinstance(model.backbone.norm1, SlimSyncBatchNorm)
    model.load_state_dict(expected.state_dict())
    model = replace(model)
    assert not all_slim(model)
    model.train()
    assert all_slim(model)
    assert type(model.backbone.norm1) is SlimBatchNormXd
    losses = [
        net.parse_losses(net.train().loss(*image_batch()))[0]
        for net in (model, expected)
    ]
    assert torch.equal(*losses)
    for loss in losses:
        loss.backward()
    for name, parameter in model.named_parameters():
        other = expected.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, other)
    banks = [calibrate(net, [subnet], batches) for net in (model, expected)]
    assert banks[0][str(subnet)].keys() == banks[1][str(subnet)].keys()
    for name, pair in banks[0][str(subnet)].items():
        assert all(map(torch.equal, pair, banks[1][str(subnet)][name]))


def test_predictions_of_a_reverted_network(
    build_classifier, image_batch, batches
):
    model = build_classifier()
    bank = calibrate(model, [SUBNET], batches)
    expected = predict(model, *image_batch(), bank)
    other = convert_sync_batchnorm(copy.deepcopy(model))
    found = predict(revert_sync_batchnorm(other), *image_batch(), bank)
    assert torch.equal(found, expected)


def fuse(model):
    from mmcv.cnn import fuse_conv_bn

    return fuse_conv_bn(model)


def take_out(model):
    del model.backbone.layer1[0].conv2
    return model


def put_in(model):
    model.backbone.layer1[0].conv2 = nn.Conv2d(16, 16, 3, padding=1)
    return model


@pytest.mark.parametrize(
    'change, name',
    [
        (fuse, 'backbone.bn1 is a Identity'),
        (take_out, 'backbone.layer1.0.conv2 is gone'),
        (put_in, 'backbone.layer1.0.conv2 is a Conv2d'),
    ],
    ids=['fused', 'gone', 'new'],
)
def test_what_runs_the_full_network_alone_is_refused(
    build_classifier, image_batch, batches, change, name
):
    model = build_classifier().eval()
    bank = calibrate(model, [SUBNET], batches)
    changed = change(model)
    with pytest.raises(UsageError) as error:
        predict(changed, *image_batch(), bank)
    assert name in str(error.value) and 'fuse_conv_bn' in str(error.value)
    if 'gone' not in name:  # the full network itself runs
        with pytest.raises(UsageError, match='were replaced'):
            changed.train().loss(*image_batch())


def test_a_fused_full_network_may_be_tested(build_classifier, image_batch):
    model = build_classifier().eval()
    images, samples = image_batch()
    with torch.no_grad():
        expected = model(images, mode='tensor')
        fused = fuse(copy.deepcopy(model))
        with fused.activate('1.0x-64'):
            found = fused(images, mode='tensor')
    for ours, theirs in zip(found, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_batch_norms_frozen_after_the_build(build_classifier, image_batch):
    model = build_classifier().train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    with pytest.raises(ConfigError, match='frozen.*backbone.bn1.*after the'):
        model.loss(*image_batch())


@pytest.mark.parametrize(
    'subnet, fits', [('1.0x-48', True), ('0.5x-64', False)]
)
def test_frozen_batch_norms_of_one_subnet(
    build_classifier, image_batch, subnet, fits
):
    """A stock network may keep its pretrained statistics; a cut one not."""
    model = build_classifier(dict(single_subnet=subnet)).train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    if fits:
        assert model.loss(*image_batch())['loss_mutual'].requires_grad
        return
    with pytest.raises(ConfigError, match='fit no narrower one'):
        model.loss(*image_batch())


def test_a_narrow_network_without_statistics(build_classifier, image_batch):
    """It would predict by slices of the full network's."""
    model = build_classifier().eval()
    images, _ = image_batch()
    with torch.no_grad(), model.activate(SUBNET), pytest.raises(
        UsageError, match='calibrate'
    ):
        model(images[..., :48, :48], mode='tensor')
    with torch.no_grad(), model.activate('1.0x-48'):  # of full width
        model(images[..., :48, :48], mode='tensor')
    alone = build_classifier(dict(single_subnet=str(SUBNET))).eval()
    with torch.no_grad(), alone.activate(SUBNET):  # its running ones
        alone(images[..., :48, :48], mode='tensor')
    with torch.no_grad(), model.train().activate(SUBNET):  # the batch's
        model(images[..., :48, :48], mode='tensor')


def test_a_wrapper_that_trains_parts_by_itself(build_classifier, image_batch):
    model = build_classifier().train()
    images, samples = image_batch()
    with pytest.raises(UsageError, match='SoftTeacher'):
        model.extract_feat(images)
    with torch.no_grad():
        model.extract_feat(images)
    assert model(images, samples, mode='loss')  # itself
    model(images, mode='tensor')
    model.eval().extract_feat(images)


def test_frozen_batch_norms_outside_of_the_backbone(
    build_detector, load_batch
):
    """Such as those of the C4 detectors' shared head."""
    model = build_detector().train()
    data = model.data_preprocessor(load_batch(), True)
    shared = nn.Sequential(nn.BatchNorm2d(4))
    convert(shared, model.slim_state)
    model.roi_head.add_module('shared_head', shared)
    shared.eval()
    with pytest.raises(ConfigError) as error:
        model.loss(**data)
    assert 'norm_eval=False in model.roi_head.shared_head' in str(error.value)
