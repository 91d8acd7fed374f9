"""projects: the study on video clips, its data, runs and report."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.query_table import load_table

pytest.importorskip('mmaction')
TOOL = Path(__file__).parents[1] / 'projects'


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL))
    import fight_data
    import fight_study
    import trainings

    yield fight_data, fight_study, trainings
    for name in ('fight_data', 'fight_study', 'trainings'):
        sys.modules.pop(name, None)


@pytest.fixture
def videos(tmp_path):
    """Ten clips of each class; those of one are brighter."""
    data = tmp_path / 'data'
    data.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for i in range(20):
        path = data / f'{i % 2}_{i}.avi'
        code = cv2.VideoWriter_fourcc(*'MJPG')
        writer = cv2.VideoWriter(str(path), code, 20, (192, 108))
        for _ in range(30):
            frame = rng.integers(0, 100, (108, 192, 3), np.uint8)
            writer.write(frame + np.uint8(100 * (i % 2)))
        writer.release()
        lines.append(f'{path.name} {i % 2}')
    (data / 'train.txt').write_text('\n'.join(lines[:14]))
    (data / 'val.txt').write_text('\n'.join(lines[14:]))
    return data


def test_clips_are_shrunk_and_dealt(modules, videos, tmp_path):
    fight_data, _, _ = modules
    out = tmp_path / 'clips'
    fight_data.prepare_clips(videos, out, 5)
    tests = []
    for i in range(5):
        train, test = (
            (out / f'fold{i}_{part}.txt').read_text().splitlines()
            for part in ('train', 'test')
        )
        assert (len(train), len(test)) == (16, 4)
        assert not set(train) & set(test)
        assert sorted(line[-1] for line in test) == ['0', '0', '1', '1']
        tests += test
    assert len(set(tests)) == 20
    names = {
        n: (out / n).read_text().splitlines() for n in ('train.txt', 'val.txt')
    }
    assert {k: len(v) for k, v in names.items()} == {
        'train.txt': 14,
        'val.txt': 6,
    }
    assert set(tests) == {*names['train.txt'], *names['val.txt']}
    for line in tests:
        path, label = line.split()
        assert path == f'{label}{path[1:-4]}.mp4'
        video = cv2.VideoCapture(str(out / path))
        assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 30
        assert video.get(cv2.CAP_PROP_FPS) == 20
        frame = video.read()[1]
        assert frame.shape == (72, 96, 3)
        assert (frame.mean() > 100) == (label == '1')


def test_a_clip_that_cannot_be_read_is_named(modules, videos, tmp_path):
    fight_data, _, _ = modules
    (videos / '0_0.avi').write_bytes(b'')
    with pytest.raises(UsageError, match=r'0_0\.avi.* no frame'):
        fight_data.prepare_clips(videos, tmp_path / 'clips', 5)
    with pytest.raises(UsageError, match=r'train\.txt.* does not exist'):
        fight_data.prepare_clips(tmp_path, tmp_path / 'clips', 5)


@pytest.mark.nightly
@pytest.mark.slow
def test_study(modules, videos, tmp_path, monkeypatch):
    """A run of each kind in earnest, the others made up; then the report."""
    fight_data, fight_study, trainings = modules
    out = tmp_path / 'out'
    fight_data.prepare_clips(videos, out / 'clips', 5)
    earnest = ['slow_mutual_fold0', 'slowfast_0.63x-40-2_fold0']
    real_train = trainings.train

    def train(cfg):
        name = Path(cfg.work_dir).name
        if name in earnest:
            earnest.remove(name)
            accuracy = real_train(cfg)
            assert list(accuracy) == list(cfg.test_cfg.subnets)
            assert all(0 <= v <= 1 for v in accuracy.values())
        value = 0.75 if 'mutual' in name else 0.5
        value += 0.25 * ('fold4' in name)
        return {s: value for s in cfg.test_cfg.subnets}

    monkeypatch.setattr(trainings, 'train', train)
    study = fight_study.Study(out, epochs=1)
    # 5 folds of 2 networks: together, and 6 subnets alone.
    assert len(study.planned()) == 5 * 2 * 7
    study.work()
    assert not earnest
    text = study.report()
    # 80 % and 55 % of 20 clips, with Wilson's intervals.
    assert '| slow | 1.0x-64-8 | ' in text
    assert text.count('| 80 (58 to 92) | 55 (34 to 74) |') == 12
    # Six subnets of a network together, one alone.
    rows = (out / 'accuracy.csv').read_text().splitlines()
    assert len(rows) == 1 + 5 * 2 * (6 + 6)
    assert 'slow,mutual,0,0.63x-40-3,' in '\n'.join(rows)
    table = load_table(out / 'slowfast-alone.json')
    assert len(table.entries) == 6 and table.num_images == 20
    assert (out / 'curves.png').stat().st_size > 1000


@pytest.mark.slow
def test_mmaction2s_own_tools(videos, tmp_path, monkeypatch):
    """The config trains and tests by the tools that mmaction2 ships."""
    import mmaction

    tools = Path(mmaction.__file__).parent / '.mim/tools'
    config = TOOL.parent / (
        'configs/video/mutual-slow-r10_1xb10_fight-64px.py'
    )
    monkeypatch.chdir(tmp_path)
    work_dir = tmp_path / 'work'
    options = [
        f'{loader}.dataset.data_root={videos}'
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ]
    options += ['train_cfg.max_epochs=1', 'model.mutual.resolution=(64,40)']
    for command in (
        ['train.py', config],
        ['test.py', config, work_dir / 'epoch_1.pth'],
    ):
        result = run_program(
            *(tools / command[0], *command[1:], '--work-dir', work_dir),
            *('--cfg-options', *options),
        )
        assert result.returncode == 0, result.stderr[-3000:]
    log = result.stdout + result.stderr
    assert 'acc/top1' in log and '0.63x-40-3/acc/top1' in log
