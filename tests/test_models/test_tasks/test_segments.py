"""What the task of 2D recognizers refuses, and what it makes of a batch."""

import copy
import sys
from types import ModuleType

import pytest
import segment_networks as nets
import torch
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.models.tasks import find_task

pytest.importorskip('mmaction')


@pytest.fixture(autouse=True)
def scope(enter_scope):
    enter_scope('mmaction')


def refusal(config):
    with pytest.raises(ConfigError) as caught:
        MODELS.build(config)
    text = str(caught.value)
    assert '\n' not in text
    return text


def test_the_task_of_the_stock_class():
    from mmaction.models import Recognizer2D

    task = find_task(Recognizer2D)
    assert task.__name__ == 'SegmentsTask' and task.name == 'action'


@pytest.mark.parametrize('views', [1, 3])
@pytest.mark.parametrize('subnet', ['0.63x-21-2', '0.8x-25-3', '1.0x-32-3'])
def test_resize(views, subnet):
    """The same segments of each view, one after the other."""
    model = nets.build()
    frames, samples = nets.batch(2, frames=4 * views, size=36)
    before = frames.clone()
    subnet = Subnet.parse(subnet)
    inputs, found = model.task.resize(model, frames, samples, subnet)
    expected = [
        nets.thin_out(view.double(), subnet.resolution / 32, subnet.frames)
        for view in frames.split(4, 1)
    ]
    expected = torch.cat(expected, 1)
    assert inputs.shape == expected.shape and inputs.is_contiguous()
    torch.testing.assert_close(inputs.double(), expected, rtol=0, atol=1e-5)
    assert [s.gt_label for s in found] == [s.gt_label for s in samples]
    assert torch.equal(frames, before)
    whole, _ = model.task.resize(model, frames, samples, model.space.full)
    assert whole is frames


def test_frames_as_they_are_decoded():
    """With the channels of a pixel side by side, as pipelines deliver them."""
    model = nets.build().train()
    frames, samples = nets.batch(2, frames=4)
    videos = [
        torch.from_numpy(video.numpy().transpose(0, 2, 3, 1).copy())
        for video in frames
    ]
    decoded = torch.stack([video.permute(0, 3, 1, 2) for video in videos])
    assert torch.equal(decoded, frames) and not decoded.is_contiguous()
    for subnet in ('1.0x-32-4', '0.63x-32-2', '0.63x-21-4', '0.63x-21-2'):
        subnet = Subnet.parse(subnet)
        losses = []
        for inputs in (decoded, frames):
            resized = model.task.resize(model, inputs, samples, subnet)
            with model.activate(subnet), torch.no_grad():
                losses.append(model.loss(*resized)['loss_cls'])
        torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    'given, kept',
    [(25, {2: 12, 3: 19}), (10, {2: 5, 3: 8}), (1, {2: 1, 3: 1})],
)
def test_numbers_that_no_view_divides(given, kept):
    """Stock TSN is tested on any: thinned out alike, down to one frame."""
    model = nets.build()
    frames, samples = nets.batch(1, frames=given)
    model.task.check_test(model, frames, samples)
    for number, expected in kept.items():
        subnet = Subnet(0.8, 32, number)
        inputs, _ = model.task.resize(model, frames, samples, subnet)
        assert inputs.shape[1] == expected
        assert inputs.unique(dim=1).shape[1] == expected


def test_training_on_another_number():
    model = nets.build().train()
    for number in (3, 8):
        for check in (model.task.check_full, lambda *a: model.loss(*a[1:])):
            with pytest.raises(ConfigError) as caught:
                check(model, *nets.batch(1, frames=number))
            text = str(caught.value)
            assert f'delivers {number} frames of a video' in text
            assert '1.0x-32-4, takes 4' in text and 'num_clips=4' in text


def test_views_of_a_network_that_counts():
    """TRN relates exactly four."""
    model = nets.build('trn')
    for number in (4, 12):
        model.task.check_test(model, *nets.batch(1, frames=number))
    for number in (3, 10):
        with pytest.raises(ConfigError, match=f'delivers {number} frames'):
            model.task.check_test(model, *nets.batch(1, frames=number))


def test_inputs_of_another_form():
    """Of clips, and without the axis of segments; grey frames."""
    model = nets.build()
    frames, samples = nets.batch(2)
    for wrong in (frames[:, None].transpose(2, 3), frames[:, 0]):
        for check in (
            model.task.check_full,
            model.task.check_test,
            lambda net, inputs, samples: net.loss(inputs, samples),
        ):
            with pytest.raises(ConfigError) as caught:
                check(model, wrong, samples)
            assert str(tuple(wrong.shape)) in str(caught.value)
            assert "FormatShape(input_format='NCHW')" in str(caught.value)
    with pytest.raises(ConfigError, match='1 channels, .* takes 3'):
        model.loss(frames[:, :, :1], samples)


def test_flow_is_stacked_to_channels():
    model = nets.build(in_channels=10)
    assert model.task.input_channels(model) == 10
    frames, samples = nets.batch(2, channels=10)
    model.train().loss(frames, samples)['loss_mutual'].backward()
    first = model.backbone.conv1.conv.weight.grad
    assert (first.abs().sum((0, 2, 3)) > 0).all()


def test_frames_are_missing():
    config = nets.config()
    del config['mutual']['frames']
    assert 'mutual.frames is missing' in refusal(config)


def test_backbones_of_torchvision():
    config = nets.config()
    config['backbone'] = dict(type='torchvision.resnet18')
    text = refusal(config)
    assert 'ResNet of torchvision' in text
    assert "wraps='mmpretrain.ResNet'" in text


def test_backbones_of_timm(monkeypatch):
    timm = ModuleType('timm')
    timm.create_model = lambda name, **settings: torch.nn.Conv2d(3, 8, 1)
    monkeypatch.setitem(sys.modules, 'timm', timm)
    config = nets.config()
    config['backbone'] = dict(type='timm.convnext_tiny')
    assert 'Conv2d of timm' in refusal(config)


@pytest.mark.parametrize('name', ['torchvision.resnet18', 'timm.resnet18'])
def test_slimming_those_of_others(name):
    config = nets.config(wraps=name)
    for key in ('depth', 'num_stages', 'strides', 'dilations', 'out_indices'):
        del config['backbone'][key]
    text = refusal(config)
    assert f'wraps={name!r}' in text and "'mmpretrain.ResNet'" in text


def test_a_plain_backbone():
    pytest.importorskip('mmpretrain')
    config = nets.config()
    config['backbone'] = dict(type='mmpretrain.ResNet', depth=18)
    text = refusal(config)
    assert 'plain ResNet' in text and 'mutualnet_mm.Slimmable' in text


@pytest.mark.parametrize('name', ['fcn_test', 'max_testing_views'])
def test_tests_that_the_stock_class_cannot_do(name):
    config = dict(nets.config(), test_cfg={name: 4})
    assert f'model.test_cfg.{name}' in refusal(config)


def test_heads_that_remember_a_size():
    head = dict(type='TPNHead')
    assert 'TPNHead' in refusal(nets.config(head=head))


def test_necks_and_missing_heads():
    config = nets.config()
    neck = dict(type='mutualnet_mm.Slimmable', wraps='ResNet', depth=18)
    text = refusal(dict(copy.deepcopy(config), neck=neck))
    assert 'model.neck is a SlimmableResNet' in text
    del config['cls_head']
    assert 'model.cls_head is missing' in refusal(config)


def test_several_maps():
    """The stock class takes one."""
    pytest.importorskip('mmpretrain')
    config = nets.config('mmpretrain', out_indices=(2, 3))
    assert 'TSNHead' in refusal(config)


def test_batch_norms_that_are_frozen():
    """As stock TRN has them, but for the first."""
    text = refusal(nets.config(partial_bn=True))
    assert 'frozen' in text and 'partial_bn=False' in text


def test_relations_are_drawn_anew():
    """As in the stock class; building it draws none from NumPy's state."""
    import numpy as np

    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    head = dict(relation_type='TRNMultiScale')
    model = nets.build('trn', head=head).eval()
    assert np.random.get_state()[1].tolist() == before
    frames, _ = nets.batch(1)
    with torch.no_grad():
        scores = [model(frames, stage='head') for _ in range(5)]
    assert len({tuple(x.flatten().tolist()) for x in scores}) > 1
