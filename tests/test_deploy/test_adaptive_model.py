"""From a file to predictions within a budget."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import adaptive_networks as nets
import numpy as np
import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel, build_table
from mutualnet_mm.slimmable import verify_slicing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(request, tmp_path):
    """Return the path of an adaptive file of a network."""

    def store(kind='classifier', **settings):
        path = tmp_path / f'{kind}.pth'
        nets.adaptive_file(kind, request, **settings).save(path)
        return path

    return store


@pytest.fixture
def net(store):
    return AdaptiveModel.from_file(store())


def run(net, batch):
    return nets.outputs(net.predict(*batch))


def test_as_the_table_says(score_sums, make_config, checkpoint, tmp_path):
    """Files in, and what the test loop's metric finds out."""
    pytest.importorskip('mmpretrain')
    subnets = ['1.0x-32', '0.5x-16', '0.25x-32']
    table = build_table(make_config(), checkpoint, tmp_path, subnets=subnets)
    images = sorted(
        {image for batch in score_sums.processed for image in batch}
    )
    assert len(images) == 12
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    assert net.table.entries == table.entries
    assert str(net.current) == '1.0x-32'
    for entry in table.entries[::-1]:
        net.use(entry.subnet)
        # As the loader cuts them, images being sorted by their folder.
        samples = net(images, batch_size=4)
        assert [sample.img_path for sample in samples] == images
        squares = sum(s.pred_score.double().pow(2).sum() for s in samples)
        assert squares.item() == pytest.approx(
            entry.metrics['sums/squares'], rel=1e-12
        )
        right = [
            s.pred_label.item() == int(Path(s.img_path).parent.name)
            for s in samples
        ]
        top1 = entry.metrics['accuracy/top1']
        assert 100 * np.mean(right) == pytest.approx(top1, abs=1e-4)


def test_batches(net):
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (5, 32, 32, 3), np.uint8))
    sizes = []
    net.model.backbone.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    one_by_one = net(images)
    assert sizes == [1] * 5 and len(one_by_one) == 5
    for batch_size, expected in ((2, [2, 2, 1]), (5, [5]), (9, [5])):
        sizes.clear()
        found = net(images, batch_size=batch_size)
        assert sizes == expected
        for a, b in zip(found, one_by_one):
            torch.testing.assert_close(a.pred_score, b.pred_score)
    sizes.clear()
    inputs, samples = net.prepare(images)
    assert inputs.shape == (5, 3, 32, 32) and len(samples) == 5
    assert len(net(inputs)) == 5
    assert sizes == [5]  # a tensor is one batch
    sizes.clear()
    assert len(net(np.stack(images), batch_size=2)) == 5
    assert sizes == [2, 2, 1]  # a stack is cut like a list
    assert len(net(images[0])) == 1
    for batch_size in (0, -1, 2.0, '2', None, True):
        with pytest.raises(UsageError, match='batch_size=.*number from 1'):
            net(images, batch_size=batch_size)
    with pytest.raises(UsageError, match='no image was given'):
        net([])


CODE = """
import sys
import torch
from mutualnet_mm.apis import AdaptiveModel
torch.set_num_threads(1)
torch.set_flush_denormal(True)
jobs = torch.load('jobs.pth', weights_only=True)
found = {}
for path, inputs in jobs.items():
    net = AdaptiveModel.from_file(path)
    for entry in net.table.entries:
        net.use(entry.subnet)
        for i, sample in enumerate(net(inputs)):
            scores = sample.get('pred_score')
            if scores is None:
                scores = sample.pred_instances.bboxes
            found[f'{path} {entry.subnet} {i}'] = scores
torch.save(found, 'found.pth')
"""


@pytest.mark.subprocess
def test_in_another_process_and_alternately(store, tmp_path):
    """Nothing registered before; models of several projects in turn."""
    kinds = dict(classifier='mmpretrain', detector='mmdet', slow='mmaction')
    for project in kinds.values():
        pytest.importorskip(project)
    loaded, jobs, expected = {}, {}, {}
    for kind in kinds:
        path = str(store(kind))
        loaded[path] = AdaptiveModel.from_file(path)
        inputs = nets.full_batch(loaded[path].model)[0]
        jobs[path] = inputs[:, :, :60, :80] if kind == 'detector' else inputs
    for turn in range(3):
        for path, net in loaded.items():
            subnet = net.table.entries[turn].subnet
            net.use(subnet)
            for i, sample in enumerate(net(jobs[path])):
                scores = sample.get('pred_score')
                if scores is None:
                    scores = sample.pred_instances.bboxes
                expected[f'{path} {subnet} {i}'] = scores
    for net in loaded.values():  # whatever scope was entered last
        net.make_static()
    torch.save(jobs, tmp_path / 'jobs.pth')
    done = subprocess.run(
        [sys.executable, '-c', CODE],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / 'found.pth')
    assert set(expected) < set(found)
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    sums = {v.double().pow(2).sum().item() for v in expected.values()}
    assert len(sums) == len(expected)


def test_the_same_file_twice(store):
    path = store()
    first, second = (AdaptiveModel.from_file(path) for _ in range(2))
    batch = nets.full_batch(first.model)
    before = run(second, batch)
    first.use('0.5x-24')
    with torch.no_grad():
        first.model.head.fc.weight.zero_()
    assert second.current == second.table.full
    assert nets.same(run(second, batch), before)


def test_handles(net):
    """They are models themselves, with a budget of their own."""
    other = net.handle()
    assert type(other) is AdaptiveModel and other.table is net.table
    other.set_budget(macs=850)
    assert (str(net.current), str(other.current)) == ('1.0x-32', '0.25x-16')
    images = np.zeros((2, 32, 32, 3), np.uint8)
    a, b = (n(images)[0].pred_score for n in (net, other))
    assert not torch.equal(a, b)
    with other.latency_controller(1000):
        assert net._controller is None and other._controller is not None


def test_attributes(store):
    path = store()
    net = AdaptiveModel.from_file(str(path), torch.device('cpu'))
    assert net.cfg.model.wraps == 'ImageClassifier'
    assert net.device.type == 'cpu'
    assert isinstance(net.file, AdaptiveFile)
    assert not any(module.training for module in net.model.modules())
    assert net.table.task == 'classification'


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'pickle'],
)
def test_copies_are_networks_of_their_own(net, copied):
    batch = nets.full_batch(net.model)
    subnet = net.table.entries[1].subnet
    net.use(subnet)
    net.make_static()
    expected = run(net, batch)
    other = copied(net)
    assert other.current == subnet and other.table.entries == net.table.entries
    net.slice()
    assert nets.same(run(other, batch), run(net, batch))
    with torch.no_grad():
        for parameter in other._origin.parameters():
            parameter.zero_()
    net.make_static()
    assert nets.same(run(net, batch), expected)


def test_a_loaded_file_is_not_verified_again(store, monkeypatch):
    """What wrote it has done so; that takes most of the time of loading."""
    path, run_full = store(), []
    for module in (
        'shared_width',
        'backbones.slimmable',
    ):  # no earlier findings
        monkeypatch.setattr(
            f'mutualnet_mm.models.{module}.verify_slicing', verify_slicing
        )
    monkeypatch.setattr(
        'mutualnet_mm.slimmable.verify._prove',
        lambda *args: run_full.append(args),
    )
    AdaptiveModel.from_file(path)
    assert not run_full
