"""Families that joints and kinds of layers open: static forms and ONNX."""

from pathlib import Path

import adaptive_networks as nets
import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch_versions import needs_export

from mutualnet_mm import Subnet
from mutualnet_mm.apis import (
    AdaptiveModel,
    count_params,
)
from mutualnet_mm.export.export import TOLERANCE, export_subnet

pytest.importorskip('onnxscript')
pytest.importorskip('onnxruntime')
CONFIGS = Path(__file__).parents[2] / 'configs/detection'
CLASSIFIERS = dict(
    convnext=dict(
        wraps='ConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[16, 24, 32, 48]),
        gap_before_final_norm=False,
    ),
    efficientnet=dict(wraps='EfficientNet', arch='b0'),
)
DETECTORS = ('rtmdet', 'yolox')


def classifier(name, request):
    cfg = nets.config('classifier', request)
    backbone = CLASSIFIERS[name]
    cfg.model.backbone = dict(backbone, type='mutualnet_mm.Slimmable')
    cfg.model.mutual.resolution = (64, 32)
    channels = 48 if name == 'convnext' else 1280
    cfg.model.head.in_channels = channels
    return cfg


def detector(name, request):
    request.getfixturevalue('enter_scope')('mmdet')
    file = CONFIGS / f'mutual-{name}-thin_1xb8_digits.py'
    cfg = Config.fromfile(file)
    cfg.model.mutual.update(resolution=(64, 32))
    for step in cfg.test_dataloader.dataset.pipeline:
        for key in {'scale', 'size'} & step.keys():
            step[key] = (64, 64)
    cfg.model.data_preprocessor.batch_augments = None
    return cfg


def square_batch(model, number=2):
    """A batch of images that fill it."""
    from mmdet.structures import DetDataSample

    names = ('ori_shape', 'img_shape', 'pad_shape', 'batch_input_shape')
    meta = dict(dict.fromkeys(names, (64, 64)), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=meta) for _ in range(number)]
    return torch.randn(number, 3, 64, 64), samples


def adaptive(name, request):
    """The network of all subnets, with random weights and statistics."""
    make = classifier if name in CLASSIFIERS else detector
    cfg, subnets = make(name, request), ['1.0x-64', '0.5x-32']
    return AdaptiveModel(nets.file_of(cfg, subnets)), subnets[1]


@needs_export
@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', [*CLASSIFIERS, *DETECTORS])
def test_static_and_onnx(name, request, tmp_path, monkeypatch):
    project = 'mmpretrain' if name in CLASSIFIERS else 'mmdet'
    pytest.importorskip(project)
    if name in DETECTORS:
        monkeypatch.setattr(nets, 'full_batch', square_batch)
    net, narrow = adaptive(name, request)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (64, 64, 3), np.uint8)] * 2
    static = export_subnet(net, narrow, 'static', tmp_path / 'a.pth', images)
    assert static.difference.relative == 0
    whole = sum(p.numel() for p in net.model.parameters())
    assert static.params == count_params(net.model, narrow) < 0.7 * whole
    proof = export_subnet(net, narrow, 'onnx', tmp_path / 'a.onnx', images)
    assert proof.difference.relative <= TOLERANCE / 100
    least = min(entry.macs for entry in net.table.entries)
    assert net.set_budget(macs=least) == Subnet.parse(narrow)
    with torch.no_grad():
        assert nets.outputs(net.predict(*net.prepare(images)))
