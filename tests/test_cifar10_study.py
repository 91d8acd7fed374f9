"""projects: the CIFAR-10 study goes on where stopped, and reports."""

import json
import statistics
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmpretrain')
TOOL = Path(__file__).parents[1] / 'projects'
CLASSES = [f'class{i}' for i in range(10)]


@pytest.fixture
def modules(monkeypatch):
    """The tool's modules, with only two methods and learning rates."""
    monkeypatch.syspath_prepend(str(TOOL))
    import cifar10_images as files
    import cifar10_report as report
    import cifar10_study as study

    methods = study.methods
    monkeypatch.setattr(study, 'LEARNING_RATES', (0.01, 0.1))
    monkeypatch.setattr(
        study,
        'methods',
        lambda sizes: {
            k: v
            for k, v in methods(sizes).items()
            if k in ('usnet', 'mutualnet', 'inet-1.0x-16', 'mutualnet-0.9')
        },
    )
    yield files, study, report
    for name in ('images', 'methods', 'study', 'report'):
        sys.modules.pop(f'cifar10_{name}')
    sys.modules.pop('trainings', None)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (('train', 6), ('test', 3)):
        for name in CLASSES:
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (32, 32, 3), np.uint8)
                cv2.imwrite(str(folder / f'{i}.jpg'), image)
    return tmp_path / 'data'


def test_images_are_split_by_class(modules, images, tmp_path):
    files, _, _ = modules
    out = tmp_path / 'out'
    files.prepare_images(images, out, size=16, train=5, test=2)
    lines = {
        name: (out / f'{name}.txt').read_text().splitlines()
        for name in ('train', 'search', 'holdout', 'test')
    }
    assert {k: len(v) for k, v in lines.items()} == dict(
        train=50, search=40, holdout=10, test=20
    )
    assert sorted(lines['train']) == sorted(lines['search'] + lines['holdout'])
    for line in lines['train'] + lines['test']:
        name, label = line.split()
        assert CLASSES[int(label)] in name
        assert cv2.imread(str(out / name)).shape == (16, 16, 3)
    with pytest.raises(ValueError, match='another recipe'):
        files.prepare_images(images, out, size=16, train=4, test=2)
    with pytest.raises(ValueError, match='ten folders'):
        files.prepare_images(images / 'train', tmp_path / 'no', 16, 4, 2)


@pytest.mark.nightly
@pytest.mark.slow
def test_a_stopped_study_goes_on(modules, images, tmp_path, monkeypatch):
    files, study, report = modules
    recipe = study.Recipe(
        depth=10,
        widen_factor=1,
        sizes=(16, 12),
        train_images=5,
        test_images=2,
        batch_size=10,
        epochs=4,
        seeds=2,
        workers=0,
    )
    out = tmp_path / 'out'
    files.prepare_images(images, out / 'images', 16, 5, 2)
    trained = []

    def train(cfg):
        """Train two runs in earnest; make up the results of the others."""
        name = Path(cfg.work_dir).name
        trained.append(name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        if len(trained) < 3:
            accuracy = real_train(cfg)
            assert all(0 <= v <= 100 for v in accuracy.values())
            return accuracy
        rate = 50 if '_lr0.1_' in name else 40
        rate += 10 * ('inet' in name) + 4 * ('seed1' in name)
        return {s: float(rate) for s in cfg.test_cfg.subnets}

    trainings = sys.modules['trainings']
    real_train = trainings.train
    monkeypatch.setattr(trainings, 'train', train)
    with pytest.raises(KeyboardInterrupt):
        study.Study(recipe, out).work()
    study.Study(recipe, out).work()
    names = [*trained[:2], *trained[3:]]
    assert len(set(names)) == len(names), 'a finished run was done again'
    # 4 methods x 2 rates, 4 x 2 seeds, 3 methods x 2 seeds x 3 schedules.
    assert len(names) == 8 + 8 + 18
    assert trained[2] == trained[3], 'the stopped one was left out'

    done = study.Study(recipe, out)
    scores = {
        lr: statistics.mean(
            v
            for s, v in done.result(
                study.Run('mutualnet', lr, 1, 0, True)
            ).items()
        )
        for lr in (0.01, 0.1)
    }
    assert done.best_lr('mutualnet') == max(scores, key=scores.get)
    assert done.best_lr('inet-1.0x-16') == 0.1

    report.Report(done).write(out)
    text = (out / 'report.md').read_text()
    # Seeds 0 and 1 of the I-Net: 60 and 64.
    assert '62.0 ± 2.8 (n=2)' in text
    rows = (out / 'accuracy.csv').read_text().splitlines()
    # 16 subnets of two methods, one of the boosted and one alone, two seeds;
    # the boosted and the one alone three times more, MutualNet all of them.
    per_seed = 8 + 8 + 1 + 1 + 3 * (8 + 1 + 1)
    assert len(rows) == 1 + 2 * per_seed
    assert (out / 'curves.png').stat().st_size > 1000
    content = json.loads(
        next((out / 'runs').glob('*/result.json')).read_text()
    )
    assert content['seconds'] > 0
