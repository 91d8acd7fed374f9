from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.fileio import load
from mmengine.registry import METRICS
from mmengine.runner import Runner

from mutualnet_mm import UsageError
from mutualnet_mm.engine.prediction_files import (
    check_out,
    dump_metrics,
    dump_predictions,
    separate_files,
)


@pytest.mark.parametrize(
    'name, item, message',
    [
        ('found.json', 'pred', 'predictions go to a file that ends in .pkl'),
        ('found', 'pred', 'ends in .pkl or .pickle'),
        ('found.csv', 'metrics', 'metrics go to a file that ends in .json'),
        ('folder.pkl', 'pred', 'go to a file'),
        ('file.txt/found.pkl', 'pred', 'cannot be made'),
    ],
)
def test_files_that_cannot_be_written(tmp_path, name, item, message):
    (tmp_path / 'folder.pkl').mkdir()
    (tmp_path / 'file.txt').touch()
    with pytest.raises(UsageError, match=message):
        check_out(str(tmp_path / name), item)


def test_folders_are_made(tmp_path):
    check_out(str(tmp_path / 'new/found.yaml'), 'metrics')
    assert (tmp_path / 'new').is_dir()


def test_masks_as_run_length_codes(box_detector, detector_config, tmp_path):
    """As by mmdet's tool; the full network's and a subnet's."""
    model = detector_config()
    model.test_cfg.rcnn.score_thr = 0.0
    cfg = box_detector(model=model, test_evaluator=[])
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    dump_predictions(runner, str(tmp_path / 'masks.pkl'))
    runner.test()
    for name in ('masks.pkl', 'masks.0.25x-48.pkl'):
        found = load(tmp_path / name)
        assert len(found) == 6
        for sample in found:
            instances = sample['pred_instances']
            assert len(instances['masks']) == len(instances['scores']) > 0
            for mask in instances['masks']:
                assert mask['size'] == list(sample['ori_shape'])


@METRICS.register_module(force=True)
class WrittenSums(BaseMetric):
    """Keeps predictions in a folder, which it reads at the end."""

    default_prefix = 'written'

    def __init__(self, outfile_prefix):
        super().__init__()
        self.outfile_prefix = outfile_prefix
        Path(outfile_prefix).mkdir()

    def process(self, data_batch, data_samples):
        for sample in data_samples:
            name = Path(sample['img_path']).name
            file = Path(self.outfile_prefix) / f'{name}.txt'
            square = sample['pred_score'].double().pow(2).sum().item()
            file.write_text(repr(square))
            self.results.append(file)

    def compute_metrics(self, results):
        return dict(squares=sum(float(file.read_text()) for file in results))


@pytest.mark.parametrize('group_size', [1, 3])
def test_metrics_that_write_at_once(make_config, tmp_path, group_size):
    """As CityScapesMetric does: no subnet writes over another's files."""
    cfg = make_config()
    cfg.test_cfg.update(
        subnets=['0.5x-16', '1.0x-32', '0.25x-32'], group_size=group_size
    )
    metric = dict(type='WrittenSums', outfile_prefix=str(tmp_path / 'out'))
    cfg.test_evaluator = [metric, *cfg.test_evaluator]
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    found = runner.test()
    sums = set()
    for prefix in ('', '0.5x-16/', '0.25x-32/'):
        written = found[f'{prefix}written/squares']
        assert written == found[f'{prefix}sums/squares']
        sums.add(written)
    assert len(sums) == 3
    for name in ('out', 'out.0.5x-16', 'out.0.25x-32'):
        assert len([*(tmp_path / name).iterdir()]) == 12


def test_proposals(tmp_path):
    """Their file is joined with its folder when the metric is built."""
    metrics = pytest.importorskip('mmdet.evaluation')
    evaluator = Evaluator(metrics.DumpProposals(str(tmp_path / 'out')))
    (metric,) = evaluator.metrics
    for suffix, score in (('', 0.9), ('.0.5x-16', 0.1)):
        found = dict(scores=torch.tensor([score]), bboxes=torch.ones(1, 4))
        with separate_files(evaluator, suffix):
            sample = dict(img_path='a/b.png', pred_instances=found)
            evaluator.process([sample])
            evaluator.evaluate(1)
    assert {file.name for file in tmp_path.rglob('*')} == {
        *('out', 'proposals.pkl', 'proposals.0.5x-16.pkl')
    }
    for name, score in (('', 0.9), ('.0.5x-16', 0.1)):
        kept = load(tmp_path / f'out/proposals{name}.pkl')['a/b.png']
        assert kept.scores == pytest.approx([score])
    assert metric.proposals_file == str(tmp_path / 'out/proposals.pkl')


def test_metrics_that_add_to_a_file():
    """Of mmpretrain's shape bias: rows of subnets would be mixed."""
    evaluator = Evaluator(WrittenSums.__new__(WrittenSums))
    evaluator.metrics[0].csv_path = 'rows.csv'
    with separate_files(evaluator, ''):
        pass
    other = separate_files(evaluator, '.0.5x-16')
    with pytest.raises(UsageError, match='to one file, rows.csv'), other:
        pass


def test_files_named_by_the_second(make_config, tmp_path, monkeypatch):
    """Of AVA's metric: parts of a table in one folder would share them."""

    @METRICS.register_module(force=True)
    class AVAMetric(WrittenSums):
        def compute_metrics(self, results):
            lock = FileLock('.ava_metric.lock')
            with pytest.raises(Timeout):
                lock.acquire(timeout=0)
            return dict(squares=1.0)

    cfg = make_config()
    metric = dict(type='AVAMetric', outfile_prefix=str(tmp_path / 'out'))
    cfg.test_evaluator = [metric]
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert Runner.from_cfg(cfg).test()['written/squares'] == 1.0
    with FileLock('.ava_metric.lock').acquire(timeout=0):
        pass


@pytest.mark.parametrize('suffix', ['json', 'yaml', 'pkl'])
def test_metrics_that_are_no_numbers(tmp_path, suffix):
    """A confusion matrix is not lost after the test that has found it."""
    matrix = torch.tensor([[3, 1], [0, 2]])
    metrics = {
        'accuracy/top1': 80.0,
        'confusion_matrix/result': matrix,
        'per class': [np.float32(0.5), None],
        'what': {1: Path('a.txt')},
    }
    path = str(tmp_path / f'found.{suffix}')
    dump_metrics(metrics, path)
    found = load(path)
    assert found['accuracy/top1'] == 80.0
    assert torch.equal(
        torch.as_tensor(found['confusion_matrix/result']), matrix
    )
    assert found['per class'] == [0.5, None]
    if suffix == 'pkl':  # as it is
        assert found['what'] == metrics['what']
    else:
        assert found['what'] == {'1': 'a.txt'}
