"""projects/compare_settings.py: its plan, runs of it, and its table."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

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


def test_what_a_run_begins_with(compare, tmp_path, monkeypatch):
    """A checkpoint of others at first, its own from then on."""
    study = compare(dict(off={}, on={'load_from': __file__}))
    run = study.planned()[1]
    seen = []
    monkeypatch.setattr(
        study, 'train', lambda cfg: seen.append((cfg.resume, cfg.load_from))
    )
    for place in (0, 1):
        assert study._do(run, 2, 2)
        (tmp_path / 'runs/on_seed0/result.json').unlink()
        if not place:
            (tmp_path / 'runs/on_seed0/last_checkpoint').touch()
    assert seen == [(False, __file__), (True, None)]


def test_trainings_of_iterations_are_kept_too(compare, tmp_path):
    train = dict(_delete_=True, by_epoch=False, max_iters=500)
    study = compare(dict(off={}, on={'train_cfg': train}))
    off, on = (
        study.prepared(run, tmp_path).default_hooks.checkpoint
        for run in study.planned()[:2]
    )
    assert (off.interval, off.get('by_epoch', True)) == (1, True)
    assert (on.interval, on.by_epoch) == (10, False)


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
    study.work()
    rows = study.report().splitlines()
    head = '| coco/bbox_mAP, % | 1.0x-192 | 0.5x-160 | 0.25x-128 |'
    assert rows[0] == head
    assert rows[2] == '| MACs | 195 M | 68.0 M | 34.2 M |'
    assert rows[5].startswith('| distill-10 over distill-0 | ')


def test_report(compare):
    """Seeds count where all settings are finished; gains are of pairs."""
    study = compare()
    for run in study.planned():
        if (run.setting, run.seed) != ('off', 2):
            gain = 0.01 * (run.seed + 1) * (run.setting == 'on')
            own = {'acc/top1': 0.4 + 0.01 * run.seed + gain}
            save_result(study, run, {s: own for s in ('1.0x-32', '0.5x-16')})
    rows = study.report().splitlines()
    assert [
        [cell.strip() for cell in row.split('|')][1:3] for row in rows[:6]
    ] == [
        # Student's t of one degree of freedom is 12.706: half is that by 0.5.
        ['top-1', '1.0x-32'],
        ['---', '---'],
        ['MACs', '7.06 M'],
        ['off', '40.5 ± 0.7 (n=2)'],
        ['on', '42.0 ± 1.4 (n=2)'],
        ['on over off', '+1.5 ± 6.4'],
    ]
    assert rows[6:] == ['', 'Seeds 0, 1. Not finished: off_seed2.']


def test_costs_of_settings_that_differ(compare):
    slim = {
        'model.backbone.base_channels': 8,
        'model.backbone.stem_channels': 8,
        'model.head.in_channels': 32,
    }
    study = compare(dict(off={}, slim=slim))
    (_, full), (_, less) = study._costs([Subnet.parse('1.0x-32')])
    assert full == '7.06 M'
    assert less != full


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(off={}), 'nothing to compare off with'),
        (dict(off={}, on={}), 'off and on train the same'),
        # Of what the study does in its own way.
        (
            dict(off={}, on={'default_hooks.checkpoint.interval': 5}),
            'off and on train the same',
        ),
        (dict(off={}, on={'randomness.seed': 5}), 'seeds are those of'),
        (dict(off={}, on={'optim_wraper.lr': 5}), 'has no optim_wraper'),
    ],
)
def test_settings_in_vain(compare, settings, message):
    with pytest.raises(UsageError, match=message):
        compare(settings)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'model.backbone.drop_path_rate': 'much'}, 'cannot be built as set'),
        ({'train_cfg.max_epoch': 3}, 'max_epoch'),
        ({'optim_wrapper.optimizer.typ': 'Adam'}, 'typ'),
        ({'test_cfg.subnets': ['2.0x-32']}, '2.0x-32'),
        ({'test_cfg.subnets': ['1.0x-32']}, 'on tests 1.0x-32: they cannot'),
        ({'test_cfg': {'_delete_': True}}, 'subnets are not tested'),
    ],
)
def test_what_is_refused_before_the_training(
    compare, options, message, monkeypatch
):
    study = compare(dict(off={}, on=options))
    monkeypatch.setattr(
        study, '_do', lambda *_: pytest.fail('trained already')
    )
    with pytest.raises(UsageError, match=message):
        study.work()


def test_a_stock_config(module, tmp_path):
    """What to do about it is told, and not of a key that nobody wrote."""
    settings = {
        name: {'train_cfg.max_epochs': number}
        for number, name in enumerate(('one', 'two'), 1)
    }
    with pytest.raises(UsageError, match='is not adaptive'):
        module.Comparison(
            'mmpretrain::resnet/resnet18_8xb16_cifar10.py', settings, tmp_path
        )


def test_a_run_of_another_config(compare, tmp_path, monkeypatch):
    """A setting that was another one is not taken for this one."""
    study = compare(seeds=1)
    run = study.planned()[1]
    changed = dict(off={}, on={'model.backbone.drop_path_rate': 0.2})
    # What failed before its first checkpoint can be put right.
    (tmp_path / 'runs/on_seed0').mkdir(parents=True)
    (tmp_path / 'runs/on_seed0/settings.py').write_text('')
    compare(changed)
    assert study._do(run, 2, 1)
    with pytest.raises(UsageError, match='trained with another config'):
        compare(changed)
    monkeypatch.chdir(tmp_path)
    study.out = Path('.')  # the same place by another name
    study._check_kept(run)


def test_metrics_of_subnets(compare):
    """Nothing detected is 0; a wrong name is an error that loses no run."""
    import trainings

    full, small = map(Subnet.parse, ('1.0x-32', '0.5x-16'))

    def runner(**metrics):
        return SimpleNamespace(
            test=lambda: {k.replace('_', '/'): v for k, v in metrics.items()},
            model=SimpleNamespace(sampler=SimpleNamespace(primary=full)),
            test_loop=SimpleNamespace(subnets=[full, small]),
        )

    own = dict(coco_mAP=torch.tensor(0.5), matrix=torch.eye(3), note='-')
    others = {'0.5x-16_coco_mAP': np.float32(0.25)}
    study = compare(metric='coco/mAP', percent=True)
    run = study.planned()[0]
    for metrics, expected in (
        ({**own, **others}, [50.0, 25.0]),
        (own, [50.0, 0.0]),
        (others, [0.0, 25.0]),
    ):
        save_result(study, run, trainings.subnet_metrics(runner(**metrics)))
        assert study.result(run) == dict(zip((full, small), expected))
    message = 'coco/AP is not among the metrics of 0.5x-16: coco/mAP'
    with pytest.raises(UsageError, match=message):
        compare(metric='coco/AP').result(run)
    with pytest.raises(UsageError, match='metrics of 1.0x-32: there are none'):
        compare().result(run)
    save_result(study, run, {'1.0x-32': {'coco/mAP': 5.0}})
    with pytest.raises(UsageError, match='is 5, and no share'):
        study.result(run)
    with pytest.raises(UsageError, match='metrics of 0.5x-16: there are none'):
        trainings.accuracies(runner(accuracy_top1=50.0))


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
