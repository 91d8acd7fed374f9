"""projects/compare_settings.py: its plan, runs of it, and its table."""

import json
from pathlib import Path

import pytest

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits
from mutualnet_mm.datasets.digit_scenes import make_digit_scenes

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
ROOT = Path(__file__).parents[1]
CLASSIFIER = str(
    ROOT / 'configs/classification/mutual-resnet14_1xb64_cluttered-digits.py'
)
DETECTOR = str(ROOT / 'configs/detection/mutual-yolox-thin_1xb8_digits.py')
ON_OFF = dict(off={}, on={'model.backbone.drop_path_rate': 0.1})


@pytest.fixture
def module(monkeypatch, enter_scope):
    enter_scope('mmpretrain')
    monkeypatch.syspath_prepend(str(ROOT / 'projects'))
    import compare_settings

    return compare_settings


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """Options for a few digits, and two epochs."""
    data = make_cluttered_digits(
        tmp_path_factory.mktemp('digits'), num_train=64, num_val=20
    )
    roots = {
        f'{stage}_dataloader.dataset.data_root': str(data)
        for stage in ('train', 'val', 'test')
    }
    return {**roots, 'train_cfg.max_epochs': 2}


@pytest.fixture
def compare(module, digits, tmp_path):
    """Compare settings of the classifier."""

    def make(settings=ON_OFF, config=CLASSIFIER, **kwargs):
        given = {name: {**digits, **own} for name, own in settings.items()}
        return module.Comparison(config, given, tmp_path, **kwargs)

    return make


def differences(one, other, path=''):
    """Where two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in {*one, *other}:
            found += differences(
                one.get(key), other.get(key), f'{path}.{key}'.strip('.')
            )
        return found
    return [] if one == other else [path]


def save_result(study, run, found):
    """Write what a run found, as it would."""
    folder = study.out / 'runs' / str(run)
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(dict(accuracy=found, seconds=1.0))
    (folder / 'result.json').write_text(content)


def test_runs_differ_in_the_setting_alone(compare, tmp_path):
    study = compare(seeds=2)
    plan = study.planned()
    assert [(run.setting, run.seed) for run in plan] == [
        (name, seed) for seed in range(2) for name in ('off', 'on')
    ]
    off, on, other = (
        study.config(run, tmp_path).to_dict() for run in plan[:3]
    )
    assert differences(off, on) == ['model.backbone.drop_path_rate']
    assert sorted(differences(off, other)) == [
        'model.mutual.seed',
        'randomness.seed',
    ]


def test_a_run(compare, tmp_path):
    """A classifier's top-1 accuracy, its weights, and no table yet."""
    study = compare(seeds=1)
    run = study.planned()[1]
    assert study._do(run, 2, 2)
    found = study.result(run)
    assert [*map(str, found)] == [
        *('1.0x-32', '0.75x-32', '0.5x-24', '0.25x-24', '0.25x-16'),
    ]
    # Right answers are whole numbers, of 20.
    assert all((value / 5).is_integer() for value in found.values())
    assert (tmp_path / 'runs/on_seed0/weights.pt').is_file()
    assert study.report() == 'no seed is finished with every setting'


def test_a_detector(module, tmp_path, enter_scope):
    """Another metric; the full network alone learns without distill."""
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    data = make_digit_scenes(tmp_path / 'data', num_train=8, num_val=2)
    truth = str(data / 'annotations/instances_val.json')
    options = {
        'train_cfg.max_epochs': 1,
        'param_scheduler.1.begin': 0,
        'train_dataloader.dataset.dataset.data_root': str(data),
    }
    for stage in ('val', 'test'):
        options[f'{stage}_dataloader.dataset.data_root'] = str(data)
        options[f'{stage}_evaluator.ann_file'] = truth
    settings = {
        f'distill-{weight}': {**options, 'model.mutual.distill': weight}
        for weight in (0, 10)
    }
    study = module.Comparison(
        DETECTOR, settings, tmp_path / 'out', 1, 'coco/bbox_mAP', percent=True
    )
    for run in study.planned():
        assert study._do(run, 2, 2)
    rows = study.report().splitlines()
    assert rows[0] == '|  | 1.0x-192 | 0.5x-160 | 0.25x-128 |'
    assert rows[2] == '| MACs | 195 M | 68.0 M | 34.2 M |'
    assert rows[5].startswith('| distill-10 over distill-0 | ')


def test_report(compare):
    """Seeds count where all settings are finished; gains are of pairs."""
    study = compare(metric='acc/top1', percent=True)

    for run in study.planned():
        if (run.setting, run.seed) != ('off', 2):
            gain = 0.01 * (run.seed + 1) * (run.setting == 'on')
            own = {'acc/top1': 0.4 + 0.01 * run.seed + gain}
            save_result(study, run, {str(s): own for s in study.subnets})
    rows = [
        [cell.strip() for cell in line.split('|')][1:3]
        for line in study.report().splitlines()
    ]
    # Student's t of one degree of freedom is 12.706: half is that by 0.5.
    assert rows == [
        ['', '1.0x-32'],
        ['---', '---'],
        ['MACs', '7.06 M'],
        ['off', '40.5 ± 0.7 (n=2)'],
        ['on', '42.0 ± 1.4 (n=2)'],
        ['on over off', '+1.5 ± 6.4'],
    ]


def test_what_is_refused_before_the_training(compare, tmp_path):
    with pytest.raises(UsageError, match='nothing to compare off with'):
        compare(dict(off={}))
    with pytest.raises(UsageError, match='off and on are the same'):
        compare(dict(off={}, on={}))
    with pytest.raises(UsageError, match='cannot be built as set'):
        compare(dict(off={}, on={'model.backbone.drop_path_rate': 'much'}))
    compare()
    with pytest.raises(UsageError, match='has runs of another on'):
        compare(dict(off={}, on={'model.backbone.drop_path_rate': 0.2}))
    plain = tmp_path / 'plain.py'
    plain.write_text(
        f'_base_ = [{CLASSIFIER!r}]\n'
        "test_cfg = dict(_delete_=True, type='TestLoop')\n"
    )
    with pytest.raises(UsageError, match='tests no subnets'):
        compare(config=str(plain))


def test_metrics_of_subnets(compare):
    """Nothing detected is 0; a wrong name is an error that loses no run."""
    import trainings

    full, small = map(Subnet.parse, ('1.0x-32', '0.5x-16'))

    class Runner:
        model = type('', (), dict(sampler=type('', (), dict(primary=full))))
        test_loop = type('', (), dict(subnets=[full, small]))

        def __init__(self, metrics):
            self.test = lambda: metrics

    own, others = {'coco/bbox_mAP': 0.5}, {'0.5x-16/coco/bbox_mAP': 0.25}
    study = compare(metric='coco/bbox_mAP')
    run = study.planned()[0]
    for metrics, expected in (
        ({**own, **others}, [0.5, 0.25]),
        (own, [0.5, 0.0]),
        (others, [0.0, 0.25]),
    ):
        found = trainings.subnet_metrics(Runner(metrics))
        save_result(study, run, found)
        assert study.result(run) == dict(zip((full, small), expected))
    study = compare(metric='coco/bbox_AP')
    message = 'coco/bbox_AP is not among the metrics of 0.5x-16: coco/bbox_mAP'
    with pytest.raises(UsageError, match=message):
        study.result(run)
    with pytest.raises(UsageError, match='metrics of 0.5x-16: there are none'):
        trainings.accuracies(Runner({'accuracy/top1': 50.0}))


def test_command_line(module, capsys):
    given = 'config.py --setting off --setting on a.b=0.1 c=[1,2]'
    args = module.parse_args(given.split())
    assert args.setting == {'off': {}, 'on': {'a.b': 0.1, 'c': [1, 2]}}
    for wrong, message in (
        ('a.b=0.1', "'a.b=0.1': begin with a name"),
        ('on a', "'a': write KEY=VALUE"),
        ('on --setting on', "'on': begin with a name of its own"),
    ):
        with pytest.raises(SystemExit):
            module.parse_args(f'config.py --setting {wrong}'.split())
        assert message in capsys.readouterr().err
