import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from passes import on_running_statistics

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import calibrate


@pytest.mark.parametrize('resolution', [48, 32, 40])
def test_resize(build_classifier, image_batch, resolution):
    model = build_classifier()
    images, samples = image_batch()
    before = images.clone()
    inputs, found = model.task.resize(
        model, images, samples, Subnet(0.5, resolution)
    )
    expected = F.interpolate(
        images.double(), (resolution,) * 2, mode='bilinear', antialias=True
    )
    torch.testing.assert_close(inputs.double(), expected, rtol=0, atol=1e-5)
    assert [s.gt_label for s in found] == [s.gt_label for s in samples]
    assert torch.equal(images, before)


def test_no_aliasing(build_classifier, image_batch):
    """A checkerboard becomes grey, not another checkerboard."""
    model = build_classifier()
    rows = torch.arange(64)
    board = ((rows[:, None] + rows) % 2).float().expand(1, 3, 64, 64)
    inputs, _ = model.task.resize(model, board, None, Subnet(0.5, 32))
    assert (inputs[..., 2:-2, 2:-2] - 0.5).abs().max() < 0.1


def test_predict_at_every_size(build_classifier, image_batch):
    model = build_classifier().eval()
    images, samples = image_batch()
    scores = []
    with torch.no_grad():
        for subnet in ('1.0x-64', '0.5x-48', '0.25x-32'):
            inputs, found = model.task.resize(
                model, images, samples, Subnet.parse(subnet)
            )
            with on_running_statistics(model, subnet):
                result = model(inputs, found, mode='predict')
            scores.append(torch.stack([s.pred_score for s in result]))
            assert [s.gt_label.item() for s in result] == [0, 1, 2, 3]
        full = type(model).stock_class.predict(model, images, samples)
    assert torch.allclose(scores[0], torch.stack([s.pred_score for s in full]))
    for score in scores:
        torch.testing.assert_close(score.sum(1), torch.ones(4))
    assert not torch.allclose(scores[0], scores[1])


@pytest.mark.parametrize(
    'shape, small',
    [
        (None, (48, 48)),
        ((64, 64), (48, 48)),
        ((80, 80), (60, 60)),  # tested on larger crops than trained
        ((64, 32), (48, 24)),
        ((45, 91), (34, 68)),  # 33.75 and 68.25
        ((2, 1), (2, 1)),
    ],
)
def test_scaled_as_what_is_delivered(build_classifier, shape, small):
    """A cost is that of the input that the network sees."""
    model, subnet = build_classifier(), Subnet(0.5, 48)
    assert model.task.input_shape(model, subnet, shape) == (1, 3, *small)
    images = torch.zeros(2, 3, *(shape or (64, 64)))
    inputs, _ = model.task.resize(model, images, [], subnet)
    assert tuple(inputs.shape) == (2, 3, *small)


def test_training_at_other_sizes(build_classifier, image_batch):
    """Crops that grow in mid-training, or are smaller than in testing."""
    model = build_classifier().train()
    for size in (40, 64, 72):
        total, _ = model.parse_losses(model.loss(*image_batch(size=size)))
        assert torch.isfinite(total)


def test_tests_are_no_smaller(build_classifier, image_batch):
    model = build_classifier()
    for size in (64, 80):
        model.task.check_test(model, *image_batch(size=size))
    images, samples = image_batch(size=64)
    model.task.check_test(model, images[..., :32], samples)
    with pytest.raises(ConfigError, match='48 x 56 .* full resolution is 64'):
        model.task.check_test(model, images[..., :48, :56], samples)


def test_batch_norms_of_heads_are_calibrated(classifier_config):
    """LeViT's classifier, say, begins with one: of features as they come."""
    cfg = classifier_config()
    channels = cfg['head']['in_channels']
    head = dict(type='LeViTClsHead', num_classes=4, in_channels=channels)
    model = MODELS.build(dict(cfg, head=head)).eval()
    images = [torch.randint(256, (3, 64, 64)) for _ in range(4)]
    features = []
    for layer in (model.head.head.bn, model.head.head_dist.bn):
        layer.register_forward_pre_hook(lambda _, args: features.append(*args))
    name = '0.25x-32'
    bank = calibrate(model, [name], [dict(inputs=images)])[name]
    variance, mean = torch.var_mean(features[0], 0, correction=0)
    for part in ('head', 'head_dist'):
        found = bank[f'head.{part}.bn']
        torch.testing.assert_close(found, (mean, variance))
    with torch.no_grad(), model.activate(name, bank):
        small = torch.randn(1, 3, 32, 32)
        assert model(small, mode='tensor').shape == (1, 4)
