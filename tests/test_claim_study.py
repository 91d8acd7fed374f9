"""projects: images in memory, and the plan of the study of the claim."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mutualnet_mm.apis import count_macs
from mutualnet_mm.cost import expected_macs

pytest.importorskip('mmpretrain')
PROJECTS = Path(__file__).parents[1] / 'projects'


@pytest.fixture(scope='module')
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(PROJECTS))
        import claim_images
        import claim_methods
        import claim_study
    return claim_images, claim_methods, claim_study


@pytest.fixture
def modules(loaded, enter_scope):
    enter_scope('mmpretrain')
    return loaded


@pytest.fixture
def file(tmp_path):
    """Images whose values tell which one it is, and where a pixel was."""
    rng = np.random.default_rng(0)
    path = tmp_path / 'images.npz'
    arrays = {}
    for split, number in (('train', 12), ('test', 5)):
        arrays[f'{split}_images'] = rng.integers(
            1, 256, (number, 16, 16, 3), np.uint8
        )
        arrays[f'{split}_labels'] = np.arange(number) % 10
    np.savez(path, **arrays)
    return path


def test_crops_and_mirrors(modules):
    """Every result is some crop of the padded image, mirrored or not."""
    images = torch.randint(1, 256, (40, 3, 6, 5), dtype=torch.uint8)
    crop = modules[0].CropAndFlip(padding=2)
    found = crop(dict(images=images, labels=None))['images']
    seen = set()
    for image, result in zip(images.numpy(), found.numpy()):
        padded = np.pad(image, ((0, 0), (2, 2), (2, 2)))
        places = [
            (top, left, mirror)
            for top in range(5)
            for left in range(5)
            for mirror in (1, -1)
            if np.array_equal(
                padded[:, top : top + 6, left : left + 5][..., ::mirror],
                result,
            )
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 20 and {mirror for *_, mirror in seen} == {1, -1}


def test_batches(modules, file):
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='one_batch'),
        dataset=dict(
            type='ImageBatches',
            file=str(file),
            split='train',
            part=(3, 8),
            pipeline=[
                dict(type='ShrinkBatch', size=12),
                dict(type='PackBatch'),
            ],
        ),
    )
    batches = list(Runner.build_dataloader(loader))
    assert [len(batch['inputs']) for batch in batches] == [2, 2, 1]
    labels = [s.gt_label.item() for b in batches for s in b['data_samples']]
    assert labels == [3, 4, 5, 6, 7]
    with np.load(file) as arrays:
        image = torch.from_numpy(arrays['train_images'][5])
    expected = torch.nn.functional.interpolate(
        image.permute(2, 0, 1)[None].float(),
        (12, 12),
        mode='bilinear',
        antialias=True,
    )
    torch.testing.assert_close(batches[1]['inputs'][:1], expected)


def test_prepared_images(modules, tmp_path, monkeypatch):
    """Shrunk by the mean of four, shuffled, each with its own label."""
    images, _, _ = modules
    values = np.arange(6, dtype=np.uint8)[:, None, None, None]
    plain = np.tile(values * 10, (1, 4, 4, 1))
    plain[:, ::2] += 4
    monkeypatch.setitem(
        images.READERS, 'made', lambda folder, split: (plain, np.arange(6))
    )
    file = images.prepare_images('made', tmp_path, tmp_path, 2)
    with np.load(file) as arrays:
        found, labels = arrays['train_images'], arrays['train_labels']
    assert found.shape == (6, 2, 2, 1) and list(labels) != sorted(labels)
    assert (found == labels[:, None, None, None] * 10 + 2).all()


def test_equal_cost(modules):
    """The factor is the real one, of the model that is trained."""
    _, methods, study = modules
    mutual = methods.methods()['mutualnet'].mutual
    model = MODELS.build(study._model(mutual, 0, [0.0], [1.0]))
    full = count_macs(model, model.space.full)
    ratio = expected_macs(model, [model.sampler])[0] / full
    assert ratio == pytest.approx(methods.EQUAL_COST, rel=0.01)


def test_plan(modules, tmp_path):
    """Rates first; nothing twice; each budget has a network of its own."""
    _, methods, study = modules
    images = dict.fromkeys(('cifar10', 'fashion-mnist'), tmp_path)
    plan = study.ClaimStudy(images, tmp_path).planned()
    known = [run for run in plan if run is not None]
    assert all(run.is_search for run in known)
    assert len(set(map(str, known))) == len(known)
    names = {run.method for run in known}
    assert {methods.alone(subnet) for subnet in methods.GRID} <= names
    assert len(known) == 2 * len(names) * len(methods.RATES)
    own = {n for n, method in methods.methods().items() if not method.like}
    assert names == own
    # Three seeds; twice the length of all, and three more of two.
    alone = len(methods.GRID)
    runs = len(methods.methods()) + alone + len(methods.TREND) * 2
    assert plan.count(None) == 2 * methods.SEEDS * runs


def test_a_run(modules, file, tmp_path):
    """Trained in earnest, tested by both kinds of statistics."""
    _, methods, study = modules
    done = study.ClaimStudy({'cifar10': file}, tmp_path)
    run = methods.Run('cifar10', 'mutualnet', 0.1, 2, 0)
    assert done.result(run) is None
    assert done._do(run, 1, 1)
    found = done.result(run)
    assert set(found) == {'paper', 'tested'}
    for accuracies in found.values():
        assert list(accuracies) == methods.GRID
        assert all(0 <= value <= 100 for value in accuracies.values())
    assert (tmp_path / 'runs' / str(run) / 'weights.pt').is_file()


def test_options_can_be_built(modules):
    """None of them is misspelt, or does not go with the network."""
    _, methods, study = modules
    for name, method in methods.methods().items():
        model = MODELS.build(study._model(method.mutual, 0, [0.0], [1.0]))
        assert list(model.sampler.choose(map(str, method.subnets))), name
