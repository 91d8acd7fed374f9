"""A fourth task, added from here alone: labels for every pixel."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel, BaseModule
from mmengine.structures import BaseDataElement, PixelData
from torch import nn

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.cost import count_macs, count_params
from mutualnet_mm.engine import calibrate
from mutualnet_mm.models import (
    MutualLearning,
    Task,
    register_task,
    static_model,
)
from mutualnet_mm.models.tasks import find_task

SIZE, CLASSES = 32, 3


class ToyBackbone(BaseModule):
    """Two convolutions of 5 channels in and 16, 32 channels out."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.conv1 = nn.Conv2d(5, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(x)).relu()


class ToySegmentor(BaseModel):
    """A stock model, as another project would have it."""

    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.backbone = backbone
        self.head = nn.Conv2d(32, CLASSES, 1)

    def extract_feat(self, inputs):
        return self.backbone(inputs)

    def loss(self, inputs, data_samples):
        labels = torch.stack([s.gt_map.labels[0] for s in data_samples])
        logits = self.head(self.extract_feat(inputs))
        return dict(loss_seg=F.cross_entropy(logits, labels))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        return self.head(self.extract_feat(inputs))


class DeeperSegmentor(ToySegmentor):
    """Found by its base."""


@register_task('ToySegmentor')
class ToyTask(Task):
    """Squares; each pixel has a label."""

    name = 'segmentation'

    def supervisions(self, model):
        return ('label',)

    def check_full(self, model, inputs, data_samples):
        self.check_large(inputs)

    def interpolate(self, model, inputs, data_samples, resolution, with_truth):
        size = (resolution, resolution)
        for sample in data_samples if with_truth else ():
            maps = sample.gt_map.labels[None].float()
            small = F.interpolate(maps, size, mode='nearest')[0].long()
            sample.gt_map = PixelData(labels=small)
        resized = F.interpolate(inputs, size, mode='bilinear', antialias=True)
        return resized, list(data_samples)

    def input_shape(self, model, subnet, image_shape):
        side = subnet.resolution
        return (1, self.input_channels(model), side, side)


def build(cls=ToySegmentor, **mutual):
    from mutualnet_mm.models import Slimmable

    return MutualLearning(
        wraps=cls,
        backbone=Slimmable(wraps=ToyBackbone),
        mutual=dict(dict(resolution=(SIZE, 16)), **mutual),
    )


def batch(number=2):
    inputs = torch.randn(number, 5, SIZE, SIZE)
    samples = []
    for _ in range(number):
        labels = torch.randint(CLASSES, (1, SIZE, SIZE))
        samples.append(BaseDataElement(gt_map=PixelData(labels=labels)))
    return dict(inputs=inputs, data_samples=samples)


def by_hand(model, inputs, subnet, statistics=None):
    """Logits of a subnet, from leading channels; own statistics if any."""
    net, x, channels = model.backbone, inputs, []
    for i, full in ((1, 16), (2, 32)):
        conv, bn = getattr(net, f'conv{i}'), getattr(net, f'bn{i}')
        number = int(full * subnet.width)
        x = F.conv2d(x, conv.weight[:number, : x.shape[1]], padding=1)
        if statistics is None:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        else:
            mean, var = statistics[f'backbone.bn{i}']
        shape = (1, -1, 1, 1)
        x = (x - mean.view(shape)) / (var.view(shape) + bn.eps).sqrt()
        weight, bias = bn.weight[:number], bn.bias[:number]
        x = (x * weight.view(shape) + bias.view(shape)).relu()
        channels.append(number)
    head = model.head
    return F.conv2d(x, head.weight[:, : channels[-1]], head.bias)


@pytest.mark.parametrize('cls', [ToySegmentor, DeeperSegmentor])
def test_a_mutual_step(cls):
    """Its gradient is that of the losses of all subnets, by hand."""
    model = build(cls, widths=(1.0, 0.5)).double().train()
    assert isinstance(model.task, ToyTask)
    data = batch()
    inputs, samples = data['inputs'].double(), data['data_samples']
    subnets = dict(model.sampler.sample(0))
    losses = model(inputs, samples, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters()}
    model.zero_grad()
    expected = torch.zeros((), dtype=torch.double)
    for subnet in subnets.values():
        labels = torch.cat([s.gt_map.labels for s in samples])
        x, side = inputs, subnet.resolution
        if side != SIZE:
            x = F.interpolate(x, (side, side), mode='bilinear', antialias=True)
            labels = labels[:, ::2, ::2]
        logits = by_hand(model, x, subnet)
        expected = expected + F.cross_entropy(logits, labels)
    expected.backward()
    assert total.item() == pytest.approx(expected.item(), rel=1e-9)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)


def test_it_is_resized():
    model, data = build(), batch()
    inputs, samples = data['inputs'], data['data_samples']
    small, found = model.task.resize(
        model, inputs, samples, Subnet(0.5, 16), with_truth=True
    )
    assert small.shape == (2, 5, 16, 16)
    assert [s.gt_map.labels.shape for s in found] == [(1, 16, 16)] * 2
    assert [s.gt_map.labels.shape for s in samples] == [(1, SIZE, SIZE)] * 2


def test_it_is_calibrated_and_made_static():
    model = build().eval()
    data, subnet = batch(4), Subnet(0.5, 16)
    statistics = calibrate(model, [subnet], [data])[str(subnet)]
    x = F.interpolate(
        data['inputs'], (16, 16), mode='bilinear', antialias=True
    )
    static = static_model(model, subnet, statistics)
    with torch.no_grad():
        expected = by_hand(model, x, subnet)  # of the batch itself
        with model.activate(subnet, statistics):
            found = model(x)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(static(x), expected, atol=1e-5, rtol=1e-4)
    number = sum(p.numel() for p in static.parameters())
    assert count_params(model, subnet) == number


def test_its_costs_are_counted():
    model = build()
    area, inner = 16 * 16, 9 * (5 * 8 + 8 * 16)
    expected = area * (inner + 16 * CLASSES)
    assert count_macs(model, '0.5x-16') == expected
    weights = inner + 2 * (8 + 16) + 16 * CLASSES + CLASSES
    assert count_params(model, '0.5x-16') == weights


def test_a_wrong_size_is_refused():
    model, data = build(), batch()
    with pytest.raises(ConfigError, match='16 x 16 inputs, but .* 32'):
        model.loss(data['inputs'][..., :16, :16], data['data_samples'])


def test_a_task_by_its_path_is_imported_when_it_is_found():
    class Elsewhere(nn.Module):
        """Registered by the name of its base."""

    class Derived(Elsewhere):
        """Has the task of its base."""

    register_task('Elsewhere', 'no.such.package.ElsewhereTask')
    with pytest.raises(ModuleNotFoundError):
        find_task(Derived)
    register_task(Derived, ToyTask)
    assert find_task(Derived) is ToyTask
    with pytest.raises(ModuleNotFoundError):
        find_task(Elsewhere)
