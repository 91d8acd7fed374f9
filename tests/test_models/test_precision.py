"""Steps in half precision, accumulated, clipped, and in channels-last."""

import copy

import pytest
import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import MODELS
from thin_detectors import thin
from tiny_transformers import VIT
from torch import nn
from torch_versions import skip_without_autocast

from mutualnet_mm.models.gradients import GradientSum

TASKS = ('classifier', 'detector', 'recognizer')


class JointGraph(GradientSum):
    """The sum of the losses as one graph, differentiated at the end."""

    def start(self, parameters):
        self.total, self.leaves = 0, None

    def add(self, loss):
        self.total = self.total + loss

    def as_loss(self, value):
        return self.total - self.total.detach() + value

    def drop(self):
        self.total, self.leaves = 0, None


def joint(model):
    """A copy of a model that trains by one graph."""
    model = copy.deepcopy(model)
    model._gradients = JointGraph()
    return model


def backward(model, batch, dtype=None, scaler=None):
    """Gradients of a step, in the given half precision, not scaled."""
    model.zero_grad()
    torch.manual_seed(5)  # of dropout, and of boxes that are drawn
    with torch.autocast('cpu', dtype, enabled=dtype is not None):
        loss, _ = model.parse_losses(model.loss(*copy.deepcopy(batch)))
    scale = 1.0 if scaler is None else scaler
    (loss * scale).backward()
    model._steps.__init__()  # the next one draws the same subnets
    return {
        name: p.grad.double() / scale
        for name, p in model.named_parameters()
        if p.grad is not None
    }


def error(found, expected):
    """Relative, of all gradients."""
    assert found.keys() == expected.keys()
    wrong = sum((found[k] - expected[k]).norm() ** 2 for k in expected)
    return (
        (wrong / sum(g.norm() ** 2 for g in expected.values())).sqrt().item()
    )


def fcos():
    """It has no RPN, whose NMS of mmcv takes no bfloat16 on a CPU."""
    from mmengine.hub import get_config

    name = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
    model = copy.deepcopy(get_config(name).model)
    thin(model)
    model.backbone.update(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=18,
        base_channels=16,
        norm_cfg=dict(type='BN'),
        norm_eval=False,
        frozen_stages=-1,
        init_cfg=None,
    )
    model.neck.in_channels = [16, 32, 64, 128]
    model.bbox_head.num_classes = 2
    model.update(
        type='mutualnet_mm.MutualLearning',
        wraps='FCOS',
        mutual=dict(resolution=(64, 48)),
    )
    return model


@pytest.fixture
def make(request, plain):
    """Return a model of a task and a preprocessed batch."""

    def build(task):
        if task == 'classifier':
            model = request.getfixturevalue('build_classifier')()
            return model.train(), request.getfixturevalue('image_batch')()
        if task == 'detector':
            request.getfixturevalue('enter_scope')('mmdet')
            model = MODELS.build(fcos())
            batch = request.getfixturevalue('load_batch')()
            data = model.data_preprocessor(batch, True)
            return model.train(), (data['inputs'], data['data_samples'])
        model = request.getfixturevalue('build_recognizer')()
        # The stock head makes NumPy arrays of scores, without bfloat16.
        fc = model.cls_head.fc_cls
        fc.register_forward_hook(lambda module, args, out: out.float())
        return model.train(), request.getfixturevalue('clip_batch')()

    return build


@pytest.mark.parametrize('task', TASKS)
def test_bfloat16_equals_the_joint_graph(make, task):
    """As close to single precision, which both are without autocast."""
    model, batch = make(task)
    expected = backward(joint(model), batch)
    assert error(backward(model, batch), expected) < 1e-4
    # oneDNN's gradient of a 3D weight reads memory that nobody wrote.
    with torch.backends.mkldnn.flags(enabled=task != 'recognizer'):
        own = backward(model, batch, torch.bfloat16)
        other = backward(joint(model), batch, torch.bfloat16)
    errors = error(own, expected), error(other, expected), error(own, other)
    print(f'\n{task}: own, joint graph, between them: {errors}')
    assert errors[0] < 1.2 * errors[1] + 1e-3
    assert errors[2] < 0.05


def zeros(gradients):
    return sum((g == 0).sum().item() for g in gradients.values())


@pytest.mark.parametrize('power', [0, 8, 16])
def test_no_underflow_beside_the_joint_graph(make, power):
    """The scale of the trainer's backward is that of the inner ones."""
    skip_without_autocast(torch.float16)
    model, batch = make('classifier')
    model.head.fc.weight.data *= 1e-3  # tiny gradients behind it
    expected = backward(joint(model), batch)
    scale = 2.0**power
    backward(model, batch, torch.float16, scale)  # learns the scale
    own = backward(model, batch, torch.float16, scale)
    other = backward(joint(model), batch, torch.float16, scale)
    print(f'\n2^{power}: zeros {zeros(own)}, joint graph {zeros(other)}')
    assert zeros(own) <= 1.02 * zeros(other)
    assert error(own, expected) < 1.2 * error(other, expected) + 1e-3


@pytest.fixture
def scaled(monkeypatch):
    """Return the stock wrapper with a gradient scaler of the CPU."""
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this PyTorch scales no gradients on a CPU')
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper'
    monkeypatch.setattr(f'{module}.is_cuda_available', lambda: True)

    def make(model, **settings):
        optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        wrapper = AmpOptimWrapper(
            optimizer=optimizer, clip_grad=dict(max_norm=10.0)
        )
        wrapper.loss_scaler = torch.amp.GradScaler('cpu', **settings)
        return wrapper

    return make


def test_an_overflow_skips_a_step_and_recovers(make, scaled):
    """Weights and momenta stay, the scale shrinks, and training goes on."""
    model, batch = make('classifier')
    wrapper = scaled(model, init_scale=2.0**40, backoff_factor=2.0**-8)
    moved, scales = [], []
    for _ in range(8):
        before = copy.deepcopy(model.state_dict())
        momenta = copy.deepcopy(wrapper.optimizer.state_dict()['state'])
        with torch.autocast('cpu', torch.float16):
            loss, _ = model.parse_losses(model.loss(*copy.deepcopy(batch)))
        wrapper.update_params(loss)
        weights = dict(model.named_parameters())
        moved.append(
            any(not torch.equal(before[k], p) for k, p in weights.items())
        )
        scales.append(wrapper.loss_scaler.get_scale())
        if not moved[-1]:
            now = wrapper.optimizer.state_dict()['state']
            for key, state in momenta.items():
                kept = state['momentum_buffer']
                assert torch.equal(kept, now[key]['momentum_buffer'])
        assert all(v.isfinite().all() for v in model.state_dict().values())
    # The first step scales as a scaler begins; then the scale is too large.
    assert moved[0] and not any(moved[1:3]) and all(moved[-2:]), moved
    for skipped, before, after in zip(moved[1:], scales, scales[1:]):
        assert after == before * (1 if skipped else 2.0**-8)


@pytest.mark.parametrize('max_norm', [None, 0.05], ids=['', 'clipped'])
@pytest.mark.parametrize('counts', [1, 2, 4])
def test_accumulation_equals_the_joined_batch(
    enter_scope, image_batch, counts, max_norm
):
    """Of a network without batch norms, whose subnets are always the same."""
    enter_scope('mmpretrain')
    model = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(
                width_range=None, widths=(1.0, 0.75, 0.5), resolution=(32,)
            ),
            backbone=dict(
                type='mutualnet_mm.Slimmable',
                wraps='VisionTransformer',
                arch=VIT,
                img_size=32,
            ),
            head=dict(
                type='VisionTransformerClsHead', num_classes=4, in_channels=64
            ),
        )
    )
    model = model.double().train()
    nn.init.normal_(model.head.layers.head.weight, std=0.5)
    models = [joint(model), model]
    for net, number in zip(models, (1, counts)):
        wrapper = OptimWrapper(
            optimizer=torch.optim.SGD(net.parameters(), 0.1, momentum=0.9),
            accumulative_counts=number,
            clip_grad=max_norm and dict(max_norm=max_norm),
        )
        for seed in range(2):
            images, samples = image_batch(8, 32, seed)
            for part in range(number):
                cut = slice(part * 8 // number, (part + 1) * 8 // number)
                with wrapper.optim_context(net):
                    losses = net.loss(images[cut].double(), samples[cut])
                    loss, _ = net.parse_losses(losses)
                wrapper.update_params(loss)
    start = copy.deepcopy(models[1]).state_dict()
    for key, value in models[0].state_dict().items():
        # The stock loss of classification comes in single precision.
        torch.testing.assert_close(start[key], value, rtol=1e-5, atol=1e-6)


def is_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_channels_last(make):
    """Equal steps, and no map is turned back on its way."""
    model, (images, samples) = make('classifier')
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    turned, seen = [], 0

    def look(name):
        def hook(module, args, out):
            nonlocal seen
            seen += 1
            if not is_channels_last(out):
                turned.append((name, tuple(out.shape)))

        return hook

    for name, layer in other.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            layer.register_forward_hook(look(name))
    expected = backward(model, (images, samples))
    turned_images = images.to(memory_format=torch.channels_last)
    found = backward(other, (turned_images, samples))
    assert error(found, expected) < 1e-4
    assert seen == 4 * 40 and not turned, turned
    for name, parameter in other.named_parameters():
        if parameter.dim() == 4:
            assert is_channels_last(parameter), name
            assert is_channels_last(parameter.grad), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no NVIDIA GPU')
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_stock_mixed_precision(make, dtype):
    """The stock wrapper trains, with its own scaler and autocast."""
    model, (images, samples) = make('classifier')
    model = model.cuda()
    images = images.cuda()
    samples = [sample.cuda() for sample in samples]
    wrapper = AmpOptimWrapper(
        dtype=dtype,
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        clip_grad=dict(max_norm=10.0),
    )
    found = []
    for _ in range(12):
        with wrapper.optim_context(model):
            loss, _ = model.parse_losses(model.loss(images, samples))
        wrapper.update_params(loss)
        found.append(loss.item())
    assert all(p.isfinite().all() for p in model.parameters())
    assert wrapper.loss_scaler.get_scale() >= 2.0**4
    assert min(found[-3:]) < found[0]
