"""The networks of the latency benchmark: slimmable, and built narrow."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.flop_counter import FlopCounterMode

from mutualnet_mm import Subnet
from mutualnet_mm.apis import build_model, count_macs, count_params
from mutualnet_mm.engine import SubnetStatistics, calibrate

CONFIGS = Path(__file__).parents[2] / 'configs'
_STRIDE = 32  # of the last map, of all networks here


@dataclass(frozen=True)
class Network:
    """A config, and how the stock class is built narrow.

    Args:
        project (str): Package that must be installed.
        config (str): In ``configs``, or a path.
        pairs (tuple[str]): Subnets to compare, of widths at which a narrow
            stock network has the very channels of the subnet.
        backbone (str): The stock class.
        channels (dict): Its arguments that follow the width, and defaults.
    """

    project: str
    config: str
    pairs: Tuple[str, ...]
    backbone: str
    channels: Dict[str, Any]


NETWORKS = {
    'MobileNetV1': Network(
        'mmpretrain',
        'classification/mutual-mobilenet-v1_8xb128_in1k.py',
        ('0.25x-128', '0.5x-160', '1.0x-224'),
        'mutualnet_mm.MobileNetV1',
        dict(widen_factor=1.0),
    ),
    'ResNet-50': Network(
        'mmpretrain',
        'classification/mutual-resnet50_8xb64_in1k.py',
        ('0.75x-160',),
        'mmpretrain.ResNet',
        dict(stem_channels=64, base_channels=64),
    ),
    'Slow 8x8 R50': Network(
        'mmaction',
        'video/mutual-slow_r50_8xb8-8x8_k400.py',
        ('0.75x-142-3',),
        'mmaction.ResNet3dSlowOnly',
        dict(base_channels=64),
    ),
}


class Subject:
    """A slimmable network with random weights, and batches for it.

    Args:
        network (Network): Which one.
        device (str): Where to put it.

    Attributes:
        model (MutualLearningMixin): In evaluation mode.
        bank (dict): Statistics of the calibrated subnets.
    """

    def __init__(self, network: Network, device: str) -> None:
        self.network = network
        self.cfg = Config.fromfile(CONFIGS / network.config)
        self.model: Any = build_model(self.cfg)
        for layer in self.model.modules():  # as if trained: all differ
            if isinstance(layer, _BatchNorm):
                nn.init.uniform_(layer.weight, 0.5, 1)
                nn.init.normal_(layer.bias, std=0.1)
                nn.init.normal_(layer.running_mean, std=0.1)
                nn.init.uniform_(layer.running_var, 0.5, 1.5)
        self.model.to(device).eval()
        self.bank: SubnetStatistics = {}

    @property
    def is_video(self) -> bool:
        return self.model.space.full.frames is not None

    def calibrate(self, subnets: Sequence[Subnet]) -> None:
        """Give subnets the statistics of random images."""
        self.bank.update(calibrate(self.model, subnets, [self._raw(2)]))

    def batch(self, size: int) -> Tuple[Tensor, list]:
        """Return a preprocessed batch of the full resolution."""
        data = self.model.data_preprocessor(self._raw(size), False)
        return data['inputs'], data['data_samples']

    def _raw(self, size: int) -> dict:
        full = self.model.space.full
        shape = (3, full.resolution, full.resolution)
        if self.is_video:
            from mmaction.structures import ActionDataSample as DataSample

            shape = (1, 3, full.frames, *shape[1:])
        else:
            from mmpretrain.structures import DataSample
        return dict(
            inputs=[torch.randint(256, shape).byte() for _ in range(size)],
            data_samples=[DataSample() for _ in range(size)],
        )

    def resize(self, inputs: Tensor, subnet: Subnet) -> Tensor:
        """Resize as the network does, in plain PyTorch."""
        if subnet.frames is not None and subnet.frames < inputs.shape[3]:
            parts = 2 * subnet.frames  # the middle of each of equal parts
            odd = range(1, parts, 2)
            picked = [i * inputs.shape[3] // parts for i in odd]
            inputs = inputs[:, :, :, picked]
        size = (subnet.resolution, subnet.resolution)
        if size == tuple(inputs.shape[-2:]):
            return inputs
        images = inputs.flatten(0, -4) if self.is_video else inputs
        images = F.interpolate(images, size, mode='bilinear', antialias=True)
        return images.view(*inputs.shape[:-2], *size)

    def run(self, net: nn.Module, inputs: Tensor) -> Tensor:
        """Run the bare network, head included, on inputs of its own size."""
        kwargs = dict(stage='head') if self.is_video else {}
        return net(inputs, mode='tensor', **kwargs)

    def build_stock(self, subnet: Subnet) -> nn.Module:
        """Build the stock class narrow, with the subnet's weights.

        Nothing of what makes a network static in the package is used.

        Raises:
            AssertionError: If it is not of the subnet's size and cost.
        """
        settings = copy.deepcopy(self.cfg.model)
        settings.type = settings.pop('wraps')
        settings.pop('mutual')
        backbone = settings.backbone
        backbone.type = self.network.backbone
        for name, default in self.network.channels.items():
            whole = backbone.get(name, default)
            backbone[name] = type(default)(whole * subnet.width)
        head = settings.get('head') or settings.cls_head
        head.in_channels = int(head.in_channels * subnet.width)
        stock = MODELS.build(settings)
        params = sum(p.numel() for p in stock.parameters())
        assert params == count_params(self.model, subnet), (subnet, params)
        weights = dict(self.model.state_dict())
        for name, (mean, variance) in self.bank.get(str(subnet), {}).items():
            weights[f'{name}.running_mean'] = mean
            weights[f'{name}.running_var'] = variance
        stock.load_state_dict(
            {
                name: weights[name][tuple(map(slice, own.shape))]
                for name, own in stock.state_dict().items()
            }
        )
        stock.to(self.model.data_preprocessor.device).eval()
        macs = self._count_macs(stock, subnet, head.in_channels)
        assert macs == count_macs(self.model, subnet), (subnet, macs)
        return stock

    @torch.no_grad()
    def _count_macs(
        self, stock: nn.Module, subnet: Subnet, channels: int
    ) -> int:
        with FlopCounterMode(display=False) as counter:
            self.run(stock, self.resize(self.batch(1)[0], subnet))
        side = -(-subnet.resolution // _STRIDE)
        # Global average pooling, which the counter leaves out.
        pooling = channels * side**2 * (subnet.frames or 1)
        return counter.get_total_flops() // 2 + pooling


def fuse(stock: nn.Module) -> nn.Module:
    """Fold batch norms into convolutions by means of mmcv and PyTorch."""
    stock = copy.deepcopy(stock)
    for module in stock.modules():
        if isinstance(module, ConvModule):  # of 3D ones, too
            module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            setattr(module, module.norm_name, nn.Identity())
    return fuse_conv_bn(stock)
