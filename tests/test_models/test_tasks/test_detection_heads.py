"""Detectors whose plain forward needs samples, or labels."""

import copy

import pytest
import torch
from mmengine.registry import MODELS
from thin_detectors import thin_transformers

from mutualnet_mm import Subnet
from mutualnet_mm.cost import count_macs, count_params
from mutualnet_mm.cost.macs import count_heads
from mutualnet_mm.engine import calibrate
from mutualnet_mm.models import static_model
from mutualnet_mm.slimmable import slim_batch_norms, use_statistics

pytest.importorskip('mmdet')
HALF = Subnet(0.5, 48)
MAPS = [16, 32, 64, 128]


@pytest.fixture
def build(detector_config):
    """Return a small detector of a stock config, all of two classes."""
    from mmengine.hub import get_config

    backbone = detector_config().backbone

    def transformer(name):
        model = get_config(f'mmdet::{name}.py').model
        head = model.panoptic_head
        thin_transformers(head)
        head.update(
            in_channels=MAPS,
            feat_channels=32,
            out_channels=32,
            num_queries=5,
            num_things_classes=2,
            num_stuff_classes=0,
        )
        head.loss_cls.class_weight = [1.0, 1.0, 0.1]
        model.panoptic_fusion_head.update(
            num_things_classes=2, num_stuff_classes=0
        )
        return model

    def make(kind):
        if kind == 'maskformer':
            model = transformer('maskformer/maskformer_r50_ms-16xb1-75e_coco')
        elif kind == 'mask2former':
            model = transformer(
                'mask2former/mask2former_r50_8xb2-lsj-50e_coco'
            )
            # With statistics to calibrate.
            model.panoptic_head.pixel_decoder.norm_cfg = dict(type='BN')
        elif kind == 'cascade':
            name = 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco'
            model = get_config(f'mmdet::{name}.py').model
            model.neck.update(in_channels=MAPS, out_channels=32)
            model.rpn_head.update(in_channels=32, feat_channels=32)
            roi = model.roi_head
            for place in ('bbox', 'mask'):
                roi[f'{place}_roi_extractor'].out_channels = 32
            for head in roi.bbox_head:
                head.update(in_channels=32, fc_out_channels=32, num_classes=2)
            roi.mask_head.update(
                num_convs=1,
                in_channels=32,
                conv_out_channels=32,
                num_classes=2,
                norm_cfg=dict(type='BN'),
            )
        else:
            name = 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance'
            model = get_config(f'mmdet::{name}.py').model
            model.neck.update(in_channels=MAPS, out_channels=32)
            model.bbox_head.update(
                num_classes=2, in_channels=32, feat_channels=32
            )
            model.mask_head.mask_feature_head.update(
                in_channels=32, feat_channels=32
            )
        model.data_preprocessor.batch_augments = None
        model.update(
            wraps=model.type,
            type='mutualnet_mm.MutualLearning',
            mutual=dict(resolution=(64, 48)),
            backbone=copy.deepcopy(backbone),
        )
        return MODELS.build(model)

    return make


KINDS = ['maskformer', 'mask2former', 'condinst']


@pytest.mark.parametrize('kind', KINDS)
def test_costs(build, kind):
    """Parameters are those of the static form; MACs those of the layers."""
    model = build(kind).eval()
    full = sum(p.numel() for p in model.parameters())
    assert count_params(model, model.space.full) == full
    static = static_model(model, HALF)
    assert count_params(model, HALF) == sum(
        p.numel() for p in static.parameters()
    )
    heads = count_heads(model, HALF)
    outside = sum(
        p.numel()
        for name, child in model.named_children()
        if name not in ('backbone', 'neck')
        for p in child.parameters()
    )
    assert heads.params == outside
    if kind == 'maskformer':
        assert heads.macs > 0
    else:  # depends on what is found, or needs operators that are not counted
        assert heads.macs is None
    # A quarter of the backbone's cost and less of what follows; the resolution
    # is 48 / 64, and padding makes both sizes multiples of 32.
    assert 0 < count_macs(model, HALF) < count_macs(model, model.space.full)


@pytest.mark.parametrize('kind', KINDS)
def test_the_static_form_runs_as_the_sliced_one(build, load_batch, kind):
    model, batch = build(kind).eval(), load_batch((0, 1))
    bank = calibrate(model, [HALF], [copy.deepcopy(batch)])[str(HALF)]
    data = model.data_preprocessor(batch, False)
    inputs, samples = model.task.resize(model, *data.values(), HALF)
    static = static_model(model, HALF, bank)

    def run(net):
        with torch.no_grad():
            if kind == 'condinst':  # whose plain forward takes labels
                return net.extract_feat(inputs)
            return net(inputs, copy.deepcopy(samples), mode='tensor')[1]

    with model.activate(HALF, bank):
        sliced = run(model)
    for expected, found in zip(sliced, run(static)):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('kind', ['mask2former', 'condinst'])
def test_calibration_uses_no_labels(build, load_batch, kind):
    """Statistics of every batch norm, whether there is ground truth or not.

    With labels, at the scale of the full resolution, stock code would assign
    them to places of the small maps.
    """
    model = build(kind).eval()
    batch = load_batch((0, 1))
    bare = copy.deepcopy(batch)
    for sample in bare['data_samples']:
        del sample.gt_instances
    banks = [
        calibrate(model, [HALF], [copy.deepcopy(data)])[str(HALF)]
        for data in (batch, bare)
    ]
    names = {name for name, _ in slim_batch_norms(model)}
    assert any(not name.startswith('backbone') for name in names)
    for statistics in banks:
        assert statistics.keys() == names
    for name in names:
        for first, second in zip(*(bank[name] for bank in banks)):
            assert torch.equal(first, second)
    # A layer's statistics are the moments of what comes in.
    name = sorted(n for n in names if not n.startswith('backbone'))[0]
    seen = []
    layer = model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda _, args: seen.append(args))
    data = model.data_preprocessor(batch, False)
    inputs, samples = model.task.resize(model, *data.values(), HALF)
    with torch.no_grad(), model.activate(HALF), use_statistics(
        model, banks[0]
    ):
        model.task.forward_batch_norms(model, inputs, samples)
    handle.remove()
    assert len(seen) == 1 and seen[0][0].shape[0] == 2


@pytest.mark.sweep(1)
@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_calibration_on_flipped_images(build, load_batch, direction):
    """The stock plain forward of these masks fails on them."""
    model, batch = build('cascade').eval(), load_batch((0, 1))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(flip=True, flip_direction=direction))
    statistics = calibrate(model, [HALF], [batch])[str(HALF)]
    assert any(name.startswith('roi_head') for name in statistics)
