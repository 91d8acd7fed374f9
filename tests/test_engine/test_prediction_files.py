import pytest
from mmengine.fileio import load
from mmengine.runner import Runner

from mutualnet_mm import UsageError
from mutualnet_mm.engine.prediction_files import check_out, dump_predictions


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
