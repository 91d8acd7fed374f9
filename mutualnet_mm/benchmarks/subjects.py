# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The networks that benchmarks run, and batches for them."""

import copy
from typing import Any, Dict, Tuple

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from torch import nn

from ..config import load_config
from ..engine.calibration import SubnetStatistics, calibrate
from ..engine.trial import init_from_scratch
from ..engine.trial_batch import random_batch
from ..errors import check_count
from ..models import static_model
from ..models.build import build_model
from ..subnet import Subnet

NETWORKS = {
    'mobilenet-v1': 'classification/mutual-mobilenet-v1_8xb128_in1k.py',
    'mobilenet-v2': 'classification/mutual-mobilenet-v2_8xb128_in1k.py',
    'resnet50': 'classification/mutual-resnet50_8xb64_in1k.py',
    'mask-rcnn': 'detection/mutual-mask-rcnn_vgg16_fpn_8xb2-2x_coco.py',
    'slow': 'video/mutual-slow_r50_8xb8-8x8_k400.py',
    'slowfast': 'video/mutual-slowfast_r50_8xb8-4x16_k400.py',
}
"""Configs of the package by short names."""


def open_config(network: str) -> Config:
    """Read a config.

    Args:
        network (str): One of :data:`NETWORKS`, or a config as all tools take
            it.
    """
    path = network
    if network in NETWORKS:
        path = f'mutualnet_mm::{NETWORKS[network]}'
    return load_config(path, launcher='none', stages=())


def build_subject(cfg: Config, device: str = 'cpu') -> Any:
    """Build a network of many subnets with random weights, to be trained."""
    cfg = copy.deepcopy(cfg)
    cfg.model.pop('init_cfg', None)
    cfg.model.backbone.pop('init_cfg', None)
    torch.manual_seed(0)
    model = build_model(cfg)
    init_from_scratch(model)
    model.to(device)
    model.train()
    return model


def training_batch(model: Any, size: int) -> Dict[str, Any]:
    """A batch of random inputs with their truth, as a data loader gives it."""
    check_count(size, 'batch size')
    made = random_batch(model)
    count = len(made['inputs'])
    return dict(
        inputs=[made['inputs'][i % count].clone() for i in range(size)],
        data_samples=[
            copy.deepcopy(made['data_samples'][i % count]) for i in range(size)
        ],
    )


def narrow_networks(
    model: Any, plan: Dict[str, Subnet], batch: Dict[str, Any]
) -> Dict[str, nn.Module]:
    """Networks of their own for some subnets, nothing in them sliced."""
    bank: SubnetStatistics = calibrate(
        model, list(plan.values()), [copy.deepcopy(batch)]
    )
    found = {}
    for tag, subnet in plan.items():
        net = copy.deepcopy(static_model(model, subnet, bank.get(str(subnet))))
        for parameter in net.parameters():
            parameter.requires_grad_(True)
        found[tag] = net
    return found


def optimizer(model: nn.Module) -> OptimWrapper:
    """SGD with momentum that leaves the weights as they are."""
    sgd = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    return OptimWrapper(sgd)


def step_of(model: Any, batch: Dict[str, Any]) -> Tuple[Any, Any]:
    """A training step of a network, as a call, and its optimizer."""
    wrapper = optimizer(model)

    def step() -> None:
        model.train_step(copy.deepcopy(batch), wrapper)

    return step, wrapper
