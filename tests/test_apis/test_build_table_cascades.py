"""Cascades of a table, by what a deployed network does on its images."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import MODELS

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel, build_table, measurement
from mutualnet_mm.models import static_model
from mutualnet_mm.query_table import Cascade, load_table

STEP = 0.375  # a grid of six
IMAGES = 90


@pytest.fixture
def labelled(make_config, weights, tmp_path):
    """Return the config of images that the full network recognises.

    Nearly always: subnets of its random weights are right now and then, and
    more often where they are sure.
    """
    folder = tmp_path / 'labelled'
    model = MODELS.build(make_config().model)
    model.load_state_dict(weights)
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        image = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (32, 32))
        given = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            label = model.eval()(given, mode='tensor').argmax().item()
        place = folder / str((label + (i % 10 == 0)) % 4)
        place.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(place / f'{i}.png'), image)
    for name in range(4):
        (folder / str(name)).mkdir(exist_ok=True)

    def make(**settings):
        evaluator = dict(type='Accuracy')
        cfg = make_config(**dict(dict(test_evaluator=evaluator), **settings))
        cfg.test_dataloader.dataset.data_root = str(folder)
        cfg.test_dataloader.batch_size = 16
        return cfg

    return make


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(measurement, '_warn', found.append)
    return found


def by_hand(net, subnet, inputs, samples):
    """Labels and confidences of a narrow network of its own."""
    alone = static_model(net._origin, subnet, net.statistics(subnet)).eval()
    with torch.no_grad():
        found = alone(inputs, [s.new() for s in samples], mode='predict')
    scores = torch.stack([sample.pred_score for sample in found])
    return scores.argmax(1), scores.max(1).values


def test_table_and_file(labelled, checkpoint, warnings, tmp_path):
    cfg, out = labelled(), tmp_path / 'out'
    table = build_table(cfg, checkpoint, out, step=STEP)
    assert len(table.cascades) > 3 and not warnings
    assert load_table(out / 'table.json').cascades == table.cascades
    net = AdaptiveModel.from_file(out / 'adaptive.pth')
    assert net.table.cascades == table.cascades

    files = sorted((tmp_path / 'labelled').glob('*/*.png'))
    truth = torch.tensor([int(file.parent.name) for file in files])
    batch = net.prepare(list(map(str, files)))
    costs = {entry.subnet: entry.macs for entry in table.entries}
    for cascade in table.cascades:
        first, second = cascade.stages
        assert net.use(cascade) is cascade
        found = net.predict(*batch)
        # What the table promised is what is counted on its images.
        counts = [str(second), str(first)]
        on = torch.tensor([counts.index(s.subnet) == 0 for s in found])
        spent = costs[first] + on.double().mean().item() * costs[second]
        assert spent == pytest.approx(cascade.mean_macs, abs=0.5)
        assert cascade.macs == costs[first] + costs[second]
        label, sure = by_hand(net, first, *batch)
        other, _ = by_hand(net, second, *batch)
        assert torch.equal(on, sure.double() < cascade.threshold)
        answers = torch.where(on, other, label)
        assert [s.pred_label.item() for s in found] == answers.tolist()
        # Other images than chosen on, but not of another kind.
        share = (answers == truth).double().mean().item()
        assert cascade.accuracy == pytest.approx(100 * share, abs=15)
        assert cascade.metric == table.metric == 'accuracy/top1'
    budget = table.cascades[2].mean_macs
    found = net.set_budget(mean_macs=budget)
    assert isinstance(found, Cascade) and found.mean_macs <= budget
    assert found.accuracy > table.score(table.best(macs=budget))


class Killed(BaseException):
    pass


def test_after_an_interruption(
    score_sums, labelled, checkpoint, warnings, tmp_path
):
    evaluators = [dict(type='Accuracy'), dict(type='ScoreSums')]
    whole, halted = tmp_path / 'whole', tmp_path / 'halted'
    cfg = labelled(test_evaluator=evaluators)
    table = build_table(cfg, checkpoint, whole, step=STEP)
    score_sums.computed.clear()

    def interrupt(processed, computed):
        if computed == 5:  # in the second group
            raise Killed

    score_sums.interruption = interrupt
    with pytest.raises(Killed):
        build_table(
            labelled(test_evaluator=evaluators), checkpoint, halted, step=STEP
        )
    kept = {path.stem for path in (halted / 'progress/answers').iterdir()}
    results = json.loads((halted / 'progress/results.json').read_text())
    assert kept == set(results['results']) and 0 < len(kept) < 6
    score_sums.interruption = None
    cfg = labelled(test_evaluator=evaluators)
    build_table(cfg, checkpoint, halted, step=STEP)
    assert len(table.cascades) > 3 and not warnings
    name = 'table.json'
    assert (halted / name).read_bytes() == (whole / name).read_bytes()


def test_answers_of_an_earlier_release(
    labelled, checkpoint, warnings, tmp_path
):
    """It kept none: what was tested stays tested."""
    grid = ['1.0x-32', '0.625x-32', '0.625x-16', '0.25x-32']
    build_table(labelled(), checkpoint, tmp_path / 'out', subnets=grid)
    shutil.rmtree(tmp_path / 'out/progress/answers')
    table = build_table(
        labelled(), checkpoint, tmp_path / 'out', subnets=grid[:1]
    )
    assert table.cascades is None and len(table.entries) == 4
    assert '4 subnets, such as 1.0x-32, are in no cascade' in warnings[0]
    assert f"Remove '{tmp_path}/out/progress' to test" in warnings[0]
    assert warnings[1] == 'the table has no cascades: no answers were kept'
    table = build_table(
        labelled(),
        checkpoint,
        tmp_path / 'out',
        subnets=['0.25x-16', '0.5x-16'],
    )
    assert len(table.entries) == 6
    used = {str(s) for c in table.cascades for s in c.stages}
    assert used <= {'0.25x-16', '0.5x-16'}
    assert '4 subnets, such as 1.0x-32, are in no cascade' in warnings[-1]


def test_of_some_images(labelled, checkpoint, tmp_path):
    table = build_table(
        labelled(), checkpoint, tmp_path / 'out', step=STEP, num_images=60
    )
    assert table.num_images == 60
    low, high = table.interval(table.cascades[0])
    assert low < table.cascades[0].accuracy < high
    for file in (tmp_path / 'out/progress/answers').iterdir():
        found = torch.load(file)
        assert len(found['right']) == 60


def test_a_metric_that_counts_otherwise(
    labelled, checkpoint, warnings, tmp_path
):
    """Answers below a score of 0.99 are wrong to it."""
    cfg = labelled(test_evaluator=dict(type='Accuracy', thrs=0.99))
    table = build_table(cfg, checkpoint, tmp_path / 'out', step=STEP)
    assert table.cascades is None
    assert 'most probable class is right for' in warnings[0]


def test_another_ranking(score_sums, labelled, checkpoint, tmp_path):
    evaluators = [dict(type='ScoreSums'), dict(type='Accuracy')]
    out = tmp_path / 'out'

    def build(metric):
        cfg = labelled(test_evaluator=evaluators)
        build_table(cfg, checkpoint, out, step=STEP, metric=metric)
        return AdaptiveModel.from_file(out / 'adaptive.pth')

    net = build('sums/squares')
    with pytest.raises(UsageError, match='ranked by sums/squares, its casc'):
        net.set_budget(mean_macs=1e9)
    processed = len(score_sums.processed)
    net = build('accuracy/top1')
    assert len(score_sums.processed) == processed
    assert net.set_budget(mean_macs=1e9) == net.current


def test_of_many_labels(
    classifier_config, labelled, checkpoint, warnings, tmp_path
):
    model = classifier_config(dict(resolution=(32, 16), supervision='label'))
    model['head'] = dict(
        type='MultiLabelLinearClsHead', num_classes=4, in_channels=128
    )
    cfg = labelled(model=model, test_evaluator=dict(type='AveragePrecision'))
    table = build_table(cfg, checkpoint, tmp_path / 'out', step=STEP)
    assert table.cascades is None and not warnings
    assert table.metric == 'multi-label/mAP'
    for entry in table.entries:
        low, high = table.interval(entry)
        assert low < table.score(entry) < high
    net = AdaptiveModel.from_file(tmp_path / 'out/adaptive.pth')
    with pytest.raises(UsageError, match='cascades are for the top-1'):
        net.set_budget(mean_macs=1e9)


def test_classes_that_are_decided_alone(
    labelled, checkpoint, warnings, tmp_path
):
    """A top-1 accuracy of them there is, but no probability."""
    cfg = labelled()
    cfg.model.mutual.supervision = 'label'
    cfg.model.head.loss = dict(type='CrossEntropyLoss', use_sigmoid=True)
    table = build_table(cfg, checkpoint, tmp_path / 'out', step=STEP)
    assert table.metric == 'accuracy/top1' and table.cascades is None
    assert len(warnings) == 1
    assert 'no probabilities of classes that exclude each' in warnings[0]
