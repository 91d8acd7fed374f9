"""Static forms predict and train as stock models do, from the full size."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from passes import stock_loss

from mutualnet_mm import Subnet
from mutualnet_mm.models import static_model
from mutualnet_mm.slimmable import slim_batch_norms


def leading_statistics(model, subnet, seed=0):
    """Random ones of the subnet's channels, which the static form names."""
    torch.manual_seed(seed)
    norms = dict(static_model(model, subnet).named_modules())
    return {
        name: (
            0.3 * torch.randn(norms[name].num_features),
            torch.rand(norms[name].num_features) + 0.5,
        )
        for name, _ in slim_batch_norms(model)
    }


@torch.no_grad()
def loops_predict(model, inputs, samples, subnet, statistics):
    """As the test loops run a subnet of the network of all."""
    samples = [sample.new() for sample in samples]
    subnet = Subnet.parse(subnet)
    inputs, samples = model.task.resize(model, inputs, samples, subnet)
    with model.activate(subnet, statistics):
        return model(inputs, samples, mode='predict')


def both_predict(model, inputs, samples, subnet):
    """Predictions of the loops and of the static forms, unfused and fused."""
    model.eval()
    statistics = leading_statistics(model, subnet)
    expected = loops_predict(model, inputs, samples, subnet, statistics)
    before, found = inputs.clone(), []
    for fuse_bn in (False, True):
        net = static_model(model, subnet, statistics, fuse_bn)
        given = [sample.new() for sample in samples]
        with torch.no_grad():
            found.append(net(inputs, given, mode='predict'))
    assert torch.equal(inputs, before)
    assert [len(f) for f in found] == 2 * [len(expected)] == 2 * [len(samples)]
    return expected, found


@pytest.mark.parametrize('subnet', ['1.0x-64', '0.5x-48', '0.25x-32'])
def test_classifier_predicts(build_classifier, image_batch, subnet):
    model = build_classifier()
    expected, found = both_predict(model, *image_batch(), subnet)
    scores = [s.pred_score for s in expected]
    assert len({tuple(s.tolist()) for s in scores}) == len(scores) == 4
    for samples, tolerance in zip(found, (0, 1e-5)):
        for sample, score in zip(samples, scores):
            torch.testing.assert_close(
                sample.pred_score, score, rtol=0, atol=tolerance
            )
    # The image is brought to size in no other way than this.
    net = static_model(model, subnet)
    size = int(subnet.split('-')[1])
    inputs, samples = image_batch()
    small = F.interpolate(
        inputs, (size, size), mode='bilinear', antialias=True
    )
    with torch.no_grad():
        logits = net(small if size < 64 else inputs)
        scores = [s.pred_score for s in net(inputs, samples, mode='predict')]
    torch.testing.assert_close(torch.stack(scores), logits.softmax(1))


@pytest.mark.parametrize('subnet', ['1.0x-64', '0.7x-48', '0.25x-48'])
def test_mask_rcnn_predicts(build_detector, load_batch, subnet):
    """Boxes and masks in the coordinates of the original images."""
    pytest.importorskip('mmdet')
    model = build_detector()
    batch = load_batch((0, 1, 3), split='val')
    data = model.data_preprocessor(batch, False)
    expected, found = both_predict(model, *data.values(), subnet)
    for samples, tolerance in zip(found, (0, 1e-3)):
        for sample, other in zip(samples, expected):
            ours, theirs = sample.pred_instances, other.pred_instances
            assert len(theirs) > 2
            assert sample.metainfo == other.metainfo
            assert ours.masks.shape[1:] == other.ori_shape
            torch.testing.assert_close(
                ours.scores, theirs.scores, rtol=0, atol=tolerance
            )
            if tolerance == 0:
                assert torch.equal(ours.bboxes, theirs.bboxes)
                assert torch.equal(ours.masks, theirs.masks)


@pytest.mark.sweep(2)
@pytest.mark.parametrize('kind', ['slow', 'slowfast'])
@pytest.mark.parametrize('subnet', ['1.0x-32-4', '0.8x-25-4', '0.63x-21-2'])
def test_recognizer_predicts(build_recognizer, clip_batch, kind, subnet):
    """Of several views, which are larger than in training."""
    model = build_recognizer(kind)
    frames = 4 if kind == 'slow' else 16
    batch = clip_batch(2, frames=frames, size=36, views=3)
    expected, found = both_predict(model, *batch, subnet)
    for samples, tolerance in zip(found, (0, 1e-5)):
        for sample, other in zip(samples, expected):
            torch.testing.assert_close(
                sample.pred_score, other.pred_score, rtol=0, atol=tolerance
            )
    assert not torch.allclose(expected[0].pred_score, expected[1].pred_score)


def plain_backbone(plain, name, subnet):
    """A narrow network written by hand, with stock names."""

    def narrow(channels, factor=1):
        full = plain.rounded(channels * factor)
        return plain.rounded(full * subnet.width)

    if name == 'MobileNetV1':
        return plain.mobilenet_v1(lambda channels: narrow(channels, 0.25))
    if name == 'MobileNetV2':
        return plain.mobilenet_v2(lambda channels: narrow(channels, 0.5))
    if name == 'WideResNet':
        return plain.wide_resnet(narrow)
    if name == 'slow':
        return plain.resnet3d(narrow)
    slow = plain.resnet3d(narrow, tails=[t for _, t, _ in LATERALS])
    fast = plain.resnet3d(
        lambda c: c, base=2, inflate=(1, 1, 1, 1), stem=(5, 7, 7)
    )
    scale = subnet.resolution / 32
    return plain.TwoBranches(
        slow, fast, LATERALS, scale, subnet.frames, (4, 1)
    )


BACKBONES = {
    'MobileNetV1': (dict(widen_factor=0.25), 256),
    'MobileNetV2': (dict(widen_factor=0.5), 1280),
    'WideResNet': (dict(depth=10, widen_factor=2), 128),
}
# Of the Fast branch, what it hands over, and the step between slow frames.
LATERALS = [(2, 4, 4), (8, 16, 4), (16, 32, 4), (32, 64, 4)]
TAILS = {
    f'slow_path.layer{i + 1}.0.{conv}.conv.weight': lateral[1]
    for i, lateral in enumerate(LATERALS)
    for conv in ('conv1', 'downsample')
}


@pytest.mark.sweep(3)
@pytest.mark.parametrize('width', [0.9, 0.63])
@pytest.mark.parametrize('name', [*BACKBONES, 'slow', 'slowfast'])
def test_equals_a_plain_network(request, plain, name, width):
    """Of the same names, with the same numbers, and what they give."""
    if name in BACKBONES:
        config = request.getfixturevalue('classifier_config')()
        settings, channels = BACKBONES[name]
        kind = f'mutualnet_mm.Slimmable{name}'
        config['backbone'] = dict(settings, type=kind)
        config['head']['in_channels'] = channels
        subnet = Subnet(width, 48)
    else:
        config = request.getfixturevalue('recognizer_config')(name)
        subnet = Subnet(width, 25, 3)
    model = plain.randomise(MODELS.build(config)).eval()
    statistics = leading_statistics(model, subnet)
    net = static_model(model, subnet, statistics)
    expected = plain_backbone(plain, name, subnet).eval()
    tails = TAILS if name == 'slowfast' else {}
    plain.fill_fused(expected, model.backbone.state_dict(), tails)
    for norm, (mean, var) in statistics.items():
        layer = expected.get_submodule(norm.replace('backbone.', '', 1))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(var)
    found = net.backbone.state_dict()
    for key, tensor in expected.state_dict().items():
        assert torch.equal(found.pop(key), tensor), key
    assert not found
    shape = model.task.input_shape(model, subnet, None)
    x = torch.randn(2, *shape[1 if name in BACKBONES else 2 :]).double()
    with torch.no_grad():
        ours, theirs = net.double().backbone(x), expected.double()(x)
    if name == 'slow':
        ours = [ours]
    for a, b in zip(ours[::-1], theirs[::-1]):
        assert b.std() > 1e-3
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_classifier_trains(build_classifier, image_batch):
    """With the stock loss, at the subnet's size; alone from then on."""
    net = copy.deepcopy(static_model(build_classifier(), '0.5x-48')).train()
    reference = copy.deepcopy(net)
    inputs, samples = image_batch()
    small = F.interpolate(inputs, (48, 48), mode='bilinear', antialias=True)
    labels = torch.cat([s.gt_label for s in samples])
    loss = F.cross_entropy(reference(small), labels)
    loss.backward()
    optimizer = OptimWrapper(torch.optim.SGD(net.parameters(), 0.1))
    data = dict(inputs=[*inputs], data_samples=samples)
    log = net.train_step(data, optimizer)
    assert log['loss'].item() == pytest.approx(loss.item(), 1e-6)
    pairs = zip(net.parameters(), reference.parameters())
    for found, expected in pairs:
        assert expected.grad.abs().max() > 0
        torch.testing.assert_close(found, expected - 0.1 * expected.grad)
    found = net.backbone.bn1.running_mean
    assert torch.equal(found, reference.backbone.bn1.running_mean)


def test_mask_rcnn_trains(build_detector, load_batch):
    """Boxes and masks of the ground truth follow the image."""
    model = build_detector().train()
    data = model.data_preprocessor(load_batch((0, 1, 3)), True)
    net = copy.deepcopy(static_model(model, '0.5x-48')).train()
    subnet = Subnet(0.5, 48)
    batch = model.task.resize(model, *data.values(), subnet, with_truth=True)
    torch.manual_seed(1)  # for the sampled proposals
    with model.activate(subnet):
        expected = stock_loss(model, *batch)
    torch.manual_seed(1)
    found = net(*data.values(), mode='loss')
    assert found.keys() == expected.keys()
    for key, value in found.items():
        pair = [torch.as_tensor(v) for v in (value, expected[key])]
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-5)
    assert found['loss_mask'] > 0
