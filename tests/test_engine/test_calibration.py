import copy

import numpy as np
import pytest
import torch
from torch import nn

from mutualnet_mm import ConfigError, Subnet, UsageError
from mutualnet_mm.engine import calibrate
from mutualnet_mm.slimmable import active_width

SUBNETS = [Subnet(0.5, 64), Subnet(0.25, 32)]


def numpy_statistics(model, width, batches):
    """Record what enters every batch norm of a network in training mode."""
    model = copy.deepcopy(model)
    seen, handles = {}, []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            handles.append(
                layer.register_forward_pre_hook(
                    lambda m, args, name=name: seen.setdefault(
                        name, []
                    ).append(args[0].double().numpy())
                )
            )
    model.train()
    with torch.no_grad(), active_width(model, width):
        for images in batches:
            model.extract_feat(images)
    result = {}
    for name, inputs in seen.items():
        values = np.concatenate(
            [np.moveaxis(x, 1, -1).reshape(-1, x.shape[1]) for x in inputs]
        )
        result[name] = values.mean(0), values.var(0)
    return result


@pytest.fixture
def batches(image_batch):
    """Batches of different sizes and offsets: pooling has to weigh them."""
    result = []
    for seed, number in enumerate((4, 2, 3)):
        images, samples = image_batch(number, seed=seed)
        result.append(dict(inputs=images + seed, data_samples=samples))
    return result


def test_equal_numpy(build_classifier, batches):
    model = build_classifier()
    bank = calibrate(model, SUBNETS, batches)
    assert set(bank) == {'0.5x-64', '0.25x-32'}
    for subnet in SUBNETS:
        size = (subnet.resolution,) * 2
        images = [b['inputs'] for b in batches]
        if size != (64, 64):
            images = [
                nn.functional.interpolate(
                    x, size, mode='bilinear', antialias=True
                )
                for x in images
            ]
        expected = numpy_statistics(model, subnet.width, images)
        found = bank[str(subnet)]
        assert set(found) == set(expected)
        for name, pair in found.items():
            for ours, theirs in zip(pair, expected[name]):
                np.testing.assert_allclose(
                    ours.numpy(), theirs, rtol=2e-4, atol=1e-5, err_msg=name
                )


@pytest.mark.parametrize('training', [True, False])
def test_leaves_the_model_alone(build_classifier, batches, training):
    model = build_classifier().train(training)
    before = copy.deepcopy(model.state_dict())
    calibrate(model, SUBNETS, batches)
    assert all(m.training is training for m in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_frozen_parts_stay_frozen(build_classifier, batches):
    model = build_classifier().train()
    model.head.eval()
    calibrate(model, SUBNETS, batches)
    assert model.training and model.backbone.training
    assert not model.head.training


def test_each_batch_is_loaded_once(build_classifier, batches):
    loaded = []
    calibrate(
        build_classifier(), SUBNETS, (loaded.append(1) or b for b in batches)
    )
    assert len(loaded) == len(batches)


def test_no_batch(build_classifier):
    with pytest.raises(ConfigError, match='no batch'):
        calibrate(build_classifier(), SUBNETS, [])


def test_labels_are_not_needed(build_detector, load_batch):
    batch = load_batch((0, 3))
    for sample in batch['data_samples']:
        del sample.gt_instances
    bank = calibrate(build_detector(), [Subnet(0.25, 48)], [batch])
    names = set(bank['0.25x-48'])
    assert all(name.startswith('backbone.') for name in names)
    assert len(names) == 20  # all batch norms of a ResNet-18


@pytest.mark.parametrize('place', ['neck', 'roi_head'])
def test_batch_norms_outside_of_the_backbone(
    detector_config, load_batch, place
):
    from mmengine.registry import MODELS

    config = detector_config()
    layer = config.neck if place == 'neck' else config.roi_head.mask_head
    layer.norm_cfg = dict(type='BN')
    model = MODELS.build(config)
    bank = calibrate(model, [Subnet(0.25, 48)], [load_batch((0, 1))])
    found = {name.split('.')[0] for name in bank['0.25x-48']}
    assert found == {'backbone', place}
    all_norms = {
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm)
    }
    assert set(bank['0.25x-48']) == all_norms


def test_resolutions_that_the_pipeline_did_not_make(
    build_detector, load_batch
):
    """US-Net+ is evaluated between the trained resolutions."""
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(64, 48),
            resize=dict(type='Resize', scale=(107, 64), keep_ratio=True),
            transforms=[dict(type='PackDetInputs')],
        ),
    ]
    bank = calibrate(
        build_detector(), [Subnet(0.5, 56)], [load_batch(steps=steps)]
    )
    assert set(bank) == {'0.5x-56'}


def test_a_network_without_batch_norm(build_classifier, batches):
    model = build_classifier(norm_cfg=dict(type='BN'))
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.BatchNorm2d):
            parent, _, child = name.rpartition('.')
            setattr(model.get_submodule(parent), child, nn.Identity())
    iterator = iter(batches)
    bank = calibrate(model, SUBNETS, iterator)
    assert bank == {str(subnet): {} for subnet in SUBNETS}
    assert len(list(iterator)) == len(batches)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_values_that_are_not_finite_are_refused(
    build_classifier, batches, value
):
    """One image would make the statistics of all layers NaN."""
    model = build_classifier()
    batches[1]['inputs'][1, 0, 5, 5] = value
    with pytest.raises(UsageError) as error:
        calibrate(model, SUBNETS, batches)
    assert "layer 'backbone.bn1'" in str(error.value)
    assert 'batch 2 of the calibration data at 0.5x-64' in str(error.value)
    batches[1]['inputs'][1, 0, 5, 5] = 0
    model.backbone.layer2[0].conv1.weight.data[3, 0] = value
    with pytest.raises(
        UsageError, match=r"'backbone\.layer2\.0\.bn1'.*batch 1"
    ):
        calibrate(model, SUBNETS, batches)


@pytest.mark.parametrize('number', [1, 4])
def test_batches_of_one_image_and_one_pixel(
    build_classifier, image_batch, number
):
    """Pooled exactly after others, as a last batch; refused from the start.

    What comes after such a layer would be of maps that are normalised by
    nothing that fits.
    """
    model = build_classifier()
    batches = []
    for seed, images in enumerate((number, 1, 1)):
        images, samples = image_batch(images, seed=seed)
        batches.append(dict(inputs=images, data_samples=samples))
    subnet = Subnet(0.5, 32)
    seen = []
    layer = model.backbone.layer4[1].bn2
    layer.register_forward_pre_hook(
        lambda module, args: seen.append(args[0].double().numpy())
    )
    # What comes out of the layer before, at the last batch.
    before, outputs = model.backbone.layer4[1].bn1, []
    before.register_forward_hook(
        lambda module, args, out: outputs.append(
            (args[0].clone(), out.clone())
        )
    )
    if number == 1:
        message = "layer 'backbone.layer4.* single value .* at 0.5x-32; use"
        with pytest.raises(UsageError, match=message):
            calibrate(model, [subnet], batches)
        return
    bank = calibrate(model, [subnet], batches)
    assert [x.shape[2:] for x in seen] == [(1, 1)] * 3
    values = np.concatenate(seen)[:, :, 0, 0]
    mean, variance = bank[str(subnet)]['backbone.layer4.1.bn2']
    np.testing.assert_allclose(mean.numpy(), values.mean(0), 1e-5, 1e-6)
    np.testing.assert_allclose(variance.numpy(), values.var(0), 1e-5, 1e-6)
    own = bank[str(subnet)]['backbone.layer4.1.bn1']
    x, found = outputs[-1]
    affine = before.weight[:64], before.bias[:64]
    expected = nn.functional.batch_norm(x, *own, *affine, eps=before.eps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
