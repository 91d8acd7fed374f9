"""Transformers as classifiers, detectors' backbones and in deployment."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch_versions import needs_export

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.cost import count_macs
from mutualnet_mm.cost.macs_by_width import MacsByWidth
from mutualnet_mm.export.onnx_file import load_onnx, save_onnx
from mutualnet_mm.export.program_file import SubnetProgram
from mutualnet_mm.models import static_model

pytest.importorskip('mmpretrain')
VIT = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64)


@pytest.fixture
def build(classifier_config):
    """A classifier of 4 classes, of whatever transformer."""

    def make(mutual=None, pooled=False, **backbone):
        config = classifier_config(mutual)
        config['backbone'] = dict(
            dict(
                type='mutualnet_mm.Slimmable',
                wraps='VisionTransformer',
                arch=VIT,
                img_size=64,
                drop_path_rate=0.1,
            ),
            **backbone,
        )
        if not pooled:
            config.pop('neck')
        config['head']['in_channels'] = 32
        model = MODELS.build(config)
        model.init_weights()
        return model

    return make


def colours(number, seed):
    """Images of noise that are bright in one colour, or in none: the class."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(number, 3, 64, 64, generator=generator) - 0.5
    samples = []
    for i, image in enumerate(images):
        image[i % 4 : i % 4 + 1] += 1.0
        samples.append(DataSample().set_gt_label(i % 4))
    return images, samples


@pytest.mark.parametrize('frozen', [-1, 1])
def test_subnets_learn(build, frozen):
    model = build(frozen_stages=frozen)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = OptimWrapper(torch.optim.AdamW(learned, 3e-3))
    still = copy.deepcopy(model.backbone.patch_embed.state_dict())
    model.train()
    losses = []
    for step in range(25):
        images, samples = colours(16, step)
        inputs = dict(inputs=images, data_samples=samples)
        log = model.train_step(inputs, optimizer)
        losses.append(float(log['loss']))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), losses
    model.eval()
    images, samples = colours(32, 99)
    for name in ('1.0x-64', '0.5x-48', '0.25x-32'):
        subnet = Subnet.parse(name)
        batch = model.task.resize(model, images, samples, subnet, False)
        # No batch norms: nothing has to be calibrated.
        with torch.no_grad(), model.activate(subnet):
            found = model(*batch, mode='predict')
        right = [bool(s.pred_label == s.gt_label) for s in found]
        assert sum(right) > 24, name
        assert all(s.pred_score.isfinite().all() for s in found)
    moved = model.backbone.patch_embed.state_dict()
    same = [torch.equal(moved[key], still[key]) for key in still]
    assert all(same) if frozen > 0 else not any(same)


def test_costs_at_many_widths(build):
    """Scores of attention are no product of a layer's channels."""
    model = build()
    fast = MacsByWidth(model)
    counts = []
    for name in ('1.0x-64', '0.6x-48', '0.25x-32'):
        subnet = Subnet.parse(name)
        counts.append(count_macs(model, subnet))
        assert fast(subnet) == counts[-1]
    # By hand: patches, 4 heads of 8 channels, 64 hidden neurons, 2 layers.
    tokens = 17
    layer = tokens * (4 * 32 * 32 + 2 * 32 * 64) + 2 * tokens**2 * 32
    assert counts[0] == 16 * 32 * 3 * 16**2 + 2 * layer + 4 * 32
    tokens = 5
    layer = tokens * (4 * 32 * 8 + 2 * 32 * 16) + 2 * tokens**2 * 8
    assert counts[2] == 4 * 32 * 3 * 16**2 + 2 * layer + 4 * 32


SWIN = dict(
    wraps='SwinTransformer',
    arch=dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2]),
    window_size=2,
    out_indices=(1,),
    with_cp=True,
)
TNT = dict(
    wraps='TNT',
    arch=dict(
        embed_dims_outer=32,
        embed_dims_inner=8,
        num_layers=1,
        num_heads_outer=4,
        num_heads_inner=2,
    ),
)


@needs_export
@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', ['vit', 'swin', 'tnt'])
def test_static_subnet(build, kind):
    """Predicts what the subnet does; so does a program traced from it."""
    if kind == 'swin':
        model = build(pooled=True, **SWIN)
    elif kind == 'tnt':
        model = build(dict(resolution=(64,)), **TNT)
    else:
        model = build()
    model.eval()
    subnet = Subnet(0.5, 64)
    images, samples = colours(3, 0)
    with torch.no_grad(), model.activate(subnet):
        expected = model(images, samples, mode='predict')
    static = static_model(model, subnet)
    with torch.no_grad():
        found = static(images, samples, mode='predict')
    for a, b in zip(found, expected):
        torch.testing.assert_close(a.pred_score, b.pred_score)
    if kind == 'swin':  # how many windows there are is a stock constant
        return
    program = SubnetProgram(model, subnet, None, (1, 3, 64, 64), False)
    with torch.no_grad():
        logits = program.program.module()(images)
    scores = torch.stack([sample.pred_score for sample in expected])
    torch.testing.assert_close(logits.softmax(-1), scores)


@pytest.mark.nightly
def test_onnx(build, tmp_path):
    """A file that any runtime reads."""
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    model, subnet = build(), Subnet(0.5, 48)
    model.eval()
    program = SubnetProgram(model, subnet, None, (1, 3, 48, 48), False)
    save_onnx(program, tmp_path / 'vit.onnx', {})
    images = torch.rand(3, 3, 48, 48)
    (found,) = load_onnx(tmp_path / 'vit.onnx')(images)
    with torch.no_grad(), model.activate(subnet):
        expected = model.head(model.backbone(images))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_one_size_is_said_at_build(build):
    with pytest.raises(ConfigError) as error:
        build(**TNT)
    assert 'resolution 32' in str(error.value)
    assert '\n' not in str(error.value)
    build(dict(resolution=(64,)), **TNT)  # widths alone
