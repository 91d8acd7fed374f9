"""projects: the paper's experiments, from the first config to the report."""

import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.query_table import load_table

ROOT = Path(__file__).parents[1]
TOOL = ROOT / 'projects/paper.py'


@pytest.fixture
def modules(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import paper
    import paper_recipes

    yield paper, paper_recipes
    for name in ('paper', 'paper_recipes', 'paper_small'):
        sys.modules.pop(name)


def arguments(**given):
    settings = dict(start=[], gpus=1, step=None, small=False, dry_run=False)
    return Namespace(**dict(settings, **given))


def test_every_config_exists(modules):
    _, recipes = modules
    for name, recipe in recipes.RECIPES.items():
        labels = [member.label for member in recipe.members]
        assert len(set(labels)) == len(labels), name
        for member in recipe.members:
            assert (ROOT / f'configs/{member.config}.py').is_file()
            assert member.tests is None or member.tests in labels


def test_commands(modules, tmp_path, capsys):
    """As a user would type them."""
    pytest.importorskip('mmpretrain')
    paper, recipes = modules
    args = arguments(gpus=8, dry_run=True, step=0.1)
    recipe = recipes.RECIPES['num-subnets']
    paper.Experiment(recipe, tmp_path, args).run()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].startswith('$ torchrun --nproc_per_node 8 tools/train.py')
    assert 'mutual-mobilenet-v1_8xb128-n1_in1k.py --resume' in lines[0]
    assert lines[1].startswith('$ python tools/build_table.py')
    assert lines[1].endswith(f'--out {tmp_path}/n1/table --step 0.1')
    recipe = recipes.RECIPES['transfer-cifar100']
    start = ['MutualNet=a.pth', 'US-Net=b.pth', 'I-Net=c.pth']
    args = arguments(dry_run=True, start=start)
    paper.Experiment(recipe, tmp_path, args).run()
    lines = capsys.readouterr().out.splitlines()
    option = '--cfg-options model.backbone.init_cfg.checkpoint='
    assert [line.rpartition(option)[2] for line in lines[::2]] == [
        'a.pth',
        'b.pth',
        'c.pth',
    ]
    with pytest.raises(UsageError, match='--start MutualNet=CHECKPOINT'):
        paper.Experiment(recipe, tmp_path, arguments(dry_run=True)).run()
    with pytest.raises(UsageError, match='--start wrong'):
        paper.Experiment(recipe, tmp_path, arguments(start=['wrong=a.pth']))


@pytest.fixture
def called(modules, monkeypatch):
    """The commands, each of which does nothing but leave a checkpoint."""
    commands = []

    def call(command, gpus, environment):
        commands.append(command)
        if 'train.py' in command[0]:
            folder = Path(command[command.index('--work-dir') + 1])
            (folder / 'last_checkpoint').write_text(str(folder / 'a.pth'))

    monkeypatch.setattr(modules[0], 'call', call)
    return commands


def test_a_test_without_training_takes_the_others_checkpoint(
    modules, tmp_path, called
):
    pytest.importorskip('mmaction')
    paper, recipes = modules
    experiment = paper.Experiment(
        recipes.RECIPES['video-slow'], tmp_path, arguments()
    )
    experiment.run()
    kinds = [Path(command[0]).stem for command in called]
    train, table = 'train', 'build_table'
    assert kinds == [train, table, table, train, table]
    assert called[2][2] == str(tmp_path / 'MutualNet/a.pth')
    experiment.run()
    assert len(called) == 5, 'what is finished was done again'
    shutil.rmtree(tmp_path / 'MutualNet')
    experiment.run()
    kinds = [Path(command[0]).stem for command in called[5:]]
    assert kinds == [train, table, table], 'ten views are of an old training'


@pytest.mark.parametrize('stopped', [False, True])
def test_a_changed_command_does_not_take_old_results(
    stopped, modules, tmp_path, called, monkeypatch
):
    """Neither finished ones, nor those of a training that was stopped."""
    pytest.importorskip('mmpretrain')
    paper, recipes = modules
    one = recipes.Member('a', 'classification/resnet50_8xb64_in1k')

    def run(member, **given):
        recipe = recipes.Recipe('one', (member,))
        paper.Experiment(recipe, tmp_path, arguments(**given)).run()

    if stopped:
        monkeypatch.setattr(paper, 'call', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(one)
    else:
        run(one)
    changed = replace(one, options={'optim_wrapper.optimizer.lr': 0.1})
    other = replace(one, config='classification/seresnet50_8xb64_in1k')
    for member, given, shown in (
        (changed, {}, 'optimizer.lr=0.1'),
        (other, {}, 'seresnet50'),
        (one, dict(gpus=8), 'nproc_per_node 8'),
        (one, dict(gpus=8, dry_run=True), 'nproc_per_node 8'),
    ):
        before = len(called)
        with pytest.raises(UsageError, match=shown) as caught:
            run(member, **given)
        assert 'configs/classification/resnet50_8xb64' in str(caught.value)
        assert str(tmp_path / 'a') in str(caught.value)
        assert len(called) == before


def test_a_small_one_runs(modules, tmp_path, monkeypatch):
    """Two iterations of a network of ours, and of a stock one."""
    pytest.importorskip('mmpretrain')
    paper, recipes = modules
    recipe = recipes.RECIPES['boost-cifar10']
    trained = []

    def call(command, gpus, environment):
        result = run_program(ROOT / command[0], *command[1:])
        assert result.returncode == 0, result.stderr[-2000:]
        if 'train.py' in command[0]:
            trained.append(command[1])

    monkeypatch.setattr(paper, 'call', call)
    recipe = recipes.Recipe(
        recipe.shows, recipe.members[:2], recipe.divisor, recipe.small
    )
    experiment = paper.Experiment(recipe, tmp_path, arguments(small=True))
    experiment.run()
    assert len(trained) == 2
    assert all(
        Config.fromfile(path).train_cfg.max_iters == 2 for path in trained
    )
    rows = (tmp_path / 'report.md').read_text().splitlines()[4:]
    own = load_table(tmp_path / recipe.members[0].label / 'table/table.json')
    assert len(own.entries) == 2
    first = [row for row in rows if f'| {recipe.members[0].label} |' in row]
    assert len(first) == len(own.pareto)
    assert f'{own.score(own.pareto[0]):.4g}' in first[-1]
    assert any(f'| {recipe.members[1].label} |' in row for row in rows)
    assert (tmp_path / 'curves.png').stat().st_size > 5000


def test_list_and_failures(modules, tmp_path, monkeypatch):
    result = run_program(TOOL, '--list')
    assert 'lower-bound' in result.stdout and 'Fig. 13' in result.stdout

    def fail(command, **settings):
        raise subprocess.CalledProcessError(3, command)

    monkeypatch.setattr(subprocess, 'run', fail)
    result = run_program(TOOL, 'kl', '--out', tmp_path)
    assert result.returncode == 1
    assert 'ended with status 3' in result.stderr


def test_a_small_one_of_several_evaluators(modules, enter_scope, tmp_path):
    """Each reads the truth of the made data; of loaders there may be one."""
    pytest.importorskip('mmdet')
    from paper_small import shrink

    path = ROOT / 'configs/detection/mutual-mask-rcnn_vgg16_fpn_1xb4_digits.py'

    def config():
        cfg = Config.fromfile(path)
        cfg.test_evaluator = [cfg.test_evaluator, dict(type='DumpDetResults')]
        return cfg

    cfg = config()
    shrink(cfg, 1, {}, 2, tmp_path)
    first, second = cfg.test_evaluator
    assert Path(first.ann_file).is_relative_to(tmp_path)
    assert Path(first.ann_file).is_file()
    assert 'ann_file' not in second
    cfg = config()
    cfg.test_dataloader = [cfg.test_dataloader]
    with pytest.raises(UsageError, match='has a list of test_dataloaders'):
        shrink(cfg, 1, {}, 2, tmp_path)


def test_a_small_one_of_actions(modules, enter_scope, tmp_path):
    """The files that the metric reads are made, and clips tested singly."""
    pytest.importorskip('mmdet')
    pytest.importorskip('mmaction')
    from paper_small import shrink

    cfg = Config.fromfile(ROOT / 'configs/video/slow_r50_8xb4-8x8_ava21.py')
    shrink(cfg, 4, {}, 2, tmp_path)
    for name in ('ann_file', 'exclude_file', 'label_file'):
        file = Path(cfg.test_evaluator[name])
        assert file.is_relative_to(tmp_path) and file.is_file()
    assert cfg.test_dataloader.batch_size == 1
    assert cfg.train_dataloader.batch_size == 2
