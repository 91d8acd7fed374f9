import pytest
import torch
import torch.nn.functional as F
from passes import on_running_statistics

from mutualnet_mm import Subnet


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


def test_input_shape(build_classifier):
    model = build_classifier()
    assert model.task.input_shape(model, Subnet(0.5, 48), (480, 640)) == (
        1,
        3,
        48,
        48,
    )
