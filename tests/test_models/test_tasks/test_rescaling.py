"""Fields of the ground truth besides boxes and masks."""

import numpy as np
import pytest
import torch

from mutualnet_mm import ConfigError, Subnet

pytest.importorskip('mmdet')
STRIDE = 4


def resized(model, data, subnet='0.5x-48'):
    return model.task.resize(
        model, *data.values(), Subnet.parse(subnet), with_truth=True
    )


@pytest.mark.parametrize('dtype', [torch.float, torch.bool])
@pytest.mark.parametrize('indices', [(0,), (1, 3)])
def test_maps_of_instances_follow_the_image(
    build_detector, load_batch, indices, dtype
):
    """As ``pairwise_masks`` of BoxInst: (instances, 8, H / 4, W / 4).

    Each is the left half of its image, without the padding.
    """
    model = build_detector()
    data = model.data_preprocessor(load_batch(indices), True)
    for sample in data['data_samples']:
        (h, w), padded = sample.img_shape, sample.batch_input_shape
        maps = torch.zeros(2, 8, *(side // STRIDE for side in padded))
        maps[:, :, : -(-h // STRIDE), : w // STRIDE // 2] = 1
        sample.gt_instances.pairwise_masks = maps.to(dtype)
    batch, samples = resized(model, data)
    for sample in samples:
        (h, w), maps = sample.img_shape, sample.gt_instances.pairwise_masks
        assert maps.dtype == dtype
        assert maps.shape[:2] == (2, 8)
        assert tuple(maps.shape[2:]) == tuple(
            side // STRIDE for side in batch.shape[2:]
        )
        rows, columns = np.nonzero(maps[1, 7].numpy())
        assert rows.max() + 1 == -(-h // STRIDE)
        assert columns.max() + 1 == pytest.approx(w / STRIDE / 2, abs=1)
        assert maps.sum() == 16 * (rows.max() + 1) * (columns.max() + 1)


def test_an_image_without_instances(build_detector, load_batch):
    """BoxInst gives it maps of the full size."""
    model = build_detector()
    data = model.data_preprocessor(load_batch((5,)), True)
    (sample,) = data['data_samples']
    shape = sample.batch_input_shape
    sample.gt_instances.pairwise_masks = torch.zeros(0, 8, *shape)
    batch, (new,) = resized(model, data)
    maps = new.gt_instances.pairwise_masks
    assert maps.shape == (0, 8, *batch.shape[2:])


@pytest.mark.parametrize(
    'name, shape', [('keypoints', (2, 17, 3)), ('centers', (2, 2))]
)
def test_places_of_unknown_meaning_are_refused(
    build_detector, load_batch, name, shape
):
    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    (sample,) = data['data_samples']
    sample.gt_instances.set_field(torch.ones(shape), name)
    with pytest.raises(ConfigError) as error:
        resized(model, data)
    message = str(error.value)
    assert f'gt_instances.{name}' in message and '\n' not in message
    assert str(shape) in message
    # They fit at the full resolution, and where no ground truth is needed.
    resized(model, data, '0.5x-64')
    model.task.resize(model, *data.values(), Subnet(0.5, 48))


def test_a_value_for_each_instance_is_kept(build_detector, load_batch):
    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    (sample,) = data['data_samples']
    sample.gt_instances.weights = torch.tensor([0.25, 0.75])
    sample.gt_instances.names = ['a', 'b']
    _, (new,) = resized(model, data)
    assert new.gt_instances.weights.tolist() == [0.25, 0.75]
    assert new.gt_instances.names == ['a', 'b']


@pytest.mark.parametrize('name', ['gt_sem_seg', 'gt_panoptic_seg'])
def test_maps_smaller_than_the_image_are_refused(
    build_detector, load_batch, name
):
    from mmengine.structures import PixelData

    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    (sample,) = data['data_samples']
    (h, w), seg = sample.img_shape, torch.ones(1, 8, 8, dtype=torch.long)
    setattr(sample, name, PixelData(sem_seg=seg))
    with pytest.raises(ConfigError, match=f'{name}.sem_seg'):
        resized(model, data)
    seg = torch.ones(1, h, w, dtype=torch.long)
    setattr(sample, name, PixelData(sem_seg=seg))
    _, (new,) = resized(model, data)
    assert tuple(getattr(new, name).sem_seg.shape[1:]) >= new.img_shape


@pytest.mark.parametrize('with_truth', [False, True])
def test_given_proposals_are_inputs(build_detector, load_batch, with_truth):
    """Of a Fast R-CNN: rescaled in testing as well, and never in place."""
    from mmdet.structures.bbox import HorizontalBoxes
    from mmengine.structures import InstanceData

    model = build_detector()
    data = model.data_preprocessor(load_batch((0,)), True)
    (sample,) = data['data_samples']
    h, w = sample.img_shape
    boxes = torch.tensor([[0.0, 0.0, w / 2, h]])
    sample.proposals = InstanceData(bboxes=HorizontalBoxes(boxes.clone()))
    _, (new,) = model.task.resize(
        model, *data.values(), Subnet(0.5, 48), with_truth=with_truth
    )
    h, w = new.img_shape
    expected = torch.tensor([[0.0, 0.0, w / 2, h]])
    torch.testing.assert_close(new.proposals.bboxes.tensor, expected)
    assert torch.equal(sample.proposals.bboxes.tensor, boxes)
