import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.export.verify_inputs import verification_batches

SCOPES = dict(classifier='mmpretrain', detector='mmdet', slow='mmaction')


@DATASETS.register_module(force=True)
class NoImages(BaseDataset):
    """Of which none is left."""

    def __init__(self, **kwargs):
        pass

    def __len__(self):
        return 0


@pytest.fixture
def make_net(request):
    def make(kind, **settings):
        pytest.importorskip(SCOPES[kind])
        return AdaptiveModel(nets.adaptive_file(kind, request, **settings))

    return make


def images(number, height=32, width=32):
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 255, (height, width, 3), np.uint8)
        for _ in range(number)
    ]


def tensor(image):
    """What the preprocessor makes of it, which does not normalise."""
    return torch.from_numpy(image.transpose(2, 0, 1)).float()


def test_one_alone_and_all(make_net):
    net = make_net('classifier')
    pictures = images(3)
    alone, together = verification_batches(net, pictures)
    assert torch.equal(alone[0], tensor(pictures[0])[None])
    assert torch.equal(together[0], torch.stack([*map(tensor, pictures)]))
    assert (len(alone[1]), len(together[1])) == (1, 3)
    # An array of all is no list, but the same.
    for a, b in zip(
        verification_batches(net, np.stack(pictures)), [alone, together]
    ):
        assert torch.equal(a[0], b[0]) and len(a[1]) == len(b[1])


def test_a_single_one_is_joined_by_its_mirror_image(make_net):
    net = make_net('classifier')
    (picture,) = images(1)
    alone, together = verification_batches(net, [picture])
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    both = torch.stack([tensor(picture), tensor(mirrored)])
    assert torch.equal(alone[0], both[:1])
    assert torch.equal(together[0], both)
    assert together[1][0] is not together[1][1]


def test_sizes_of_a_detector_are_its_images(make_net):
    net = make_net('detector')
    pictures = [*images(1, 60, 80), *images(1, 80, 60)]
    alone, together = verification_batches(net, pictures)
    assert alone[0].shape[2:] == (64, 96)  # 64 x 85, padded
    assert together[0].shape[2:] == (96, 96)


def test_two_views_of_a_video(make_net):
    net = make_net('slow')
    batch = torch.randn(2, 5, 3, 4, 32, 32)
    alone, together = verification_batches(net, batch)
    assert torch.equal(alone[0], batch[:1, :2])
    assert torch.equal(together[0], batch[:, :2])
    net.predict(*together)  # stock code needs them contiguous


def test_data_set_of_the_config(make_net, tmp_path):
    pictures = images(5)
    for i, picture in enumerate(pictures):
        folder = tmp_path / 'ab'[i % 2]
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f'{i}.png'), picture)
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(
        type='CustomDataset', data_root=str(tmp_path), pipeline=steps
    )
    net = make_net('classifier', test_dataloader=dict(dataset=dataset))
    alone, together = verification_batches(net)
    first = [tensor(pictures[i]) for i in (0, 2, 4)]  # folder by folder
    assert torch.equal(together[0], torch.stack(first))
    assert torch.equal(alone[0], together[0][:1])


@pytest.mark.parametrize(
    'dataset, reason',
    [
        (dict(data_root='nowhere'), 'nowhere'),
        (dict(data_root='folder'), 'Found 0 files'),
        (dict(type='NoImages'), 'it is empty'),
        (dict(type='Unknown'), 'Unknown is not in'),
    ],
)
def test_data_set_that_is_not_here(
    dataset, reason, make_net, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'folder').mkdir()
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    dataset = dict(dict(type='CustomDataset', pipeline=steps), **dataset)
    net = make_net('classifier', test_dataloader=dict(dataset=dataset))
    message = f'^the test data set .* cannot be read here .*({reason}).*: give'
    with pytest.raises(UsageError, match=message) as error:
        verification_batches(net)
    assert '\n' not in str(error.value)
    assert str(error.value).endswith('--inputs FILE of the tool')
    print(error.value)


def test_nothing_given(make_net):
    with pytest.raises(UsageError, match='no image was given'):
        verification_batches(make_net('classifier'), [])
