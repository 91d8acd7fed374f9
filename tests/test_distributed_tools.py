"""tools/dist_*.sh and slurm_*.sh: as OpenMMLab's, and run for real."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import load

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / 'configs/classification/mutual-resnet14_1xb64_digits.py'
# Says what it is started with, in place of another program.
SHOW = """#!/bin/sh
for argument in "$@"; do echo "$argument"; done
echo "PYTHONPATH $PYTHONPATH"
"""
# Starts as many processes as srun does for --ntasks, of one machine.
SRUN = """#!/bin/sh
for i in 0 1; do
    while [ "$1" != python ]; do shift; done
    SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_NTASKS=2 SLURM_NODELIST=here \\
        "$@" &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid" || code=$?; done
exit ${code:-0}
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Folder of programs that are found before all others."""
    folder = tmp_path / 'programs'
    folder.mkdir()
    python = os.path.dirname(sys.executable)
    monkeypatch.setenv(
        'PATH', os.pathsep.join([str(folder), python, os.environ['PATH']])
    )
    for name in ('NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR', 'GPUS'):
        monkeypatch.delenv(name, raising=False)
    # The package is that of this clone, wherever else one is installed.
    monkeypatch.setenv('PYTHONPATH', str(ROOT))

    def add(name, text):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    return add


def run(*command, cwd=None, **variables):
    """Run a script of tools/; an error ends it, and so do 400 seconds."""
    return subprocess.run(
        ['bash', ROOT / 'tools' / command[0], *map(str, command[1:])],
        capture_output=True,
        text=True,
        timeout=400,
        cwd=cwd,
        env=dict(os.environ, **variables),
    )


@pytest.mark.parametrize(
    'command, tool, rest',
    [
        (['dist_train.sh', 'a b.py', '2'], 'train.py', []),
        (['dist_test.sh', 'a b.py', 'c d.pth', '2'], 'test.py', ['c d.pth']),
    ],
    ids=['train', 'test'],
)
@pytest.mark.parametrize('alone', [True, False], ids=['one', 'two machines'])
def test_torchrun_is_started(command, tool, rest, alone, path):
    path('python', SHOW)
    given, expected = {}, ['1', '0', '127.0.0.1', '29500']
    if not alone:
        expected = ['2', '1', '10.0.0.7', '1234']
        names = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT')
        given = dict(zip(names, expected))
    options = ['--cfg-options', 'a=[1, 2]', 'b=x y']
    done = run(*command, *options, **given)
    assert done.returncode == 0 and not done.stderr
    *found, pythonpath = done.stdout.splitlines()
    names = ('nnodes', 'node_rank', 'master_addr', 'master_port')
    assert found == [
        *('-m', 'torch.distributed.run'),
        *(f'--{name}={value}' for name, value in zip(names, expected)),
        '--nproc_per_node=2',
        str(ROOT / 'tools' / tool),
        *('a b.py', *rest, '--launcher', 'pytorch', *options),
    ]
    where = pythonpath.split(' ')[1].split(os.pathsep)[0]
    assert Path(where).resolve() == ROOT


@pytest.mark.parametrize(
    'name, rest',
    [('train', ['--work-dir=c d']), ('test', ['c d'])],
    ids=['train', 'test'],
)
def test_srun_is_started(name, rest, path):
    path('srun', SHOW)
    command = [f'slurm_{name}.sh', 'all', 'my job', 'a b.py', 'c d']
    numbers = dict(GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='3')
    for given, (gpus, per_node, cpus) in (
        ({}, ('8', '8', '5')),
        (numbers, ('16', '4', '3')),
    ):
        more = '--quotatype=auto --mem 8G' if given else ''
        done = run(*command, '--amp', SRUN_ARGS=more, **given)
        assert done.returncode == 0 and not done.stderr
        assert done.stdout.splitlines()[:-1] == [
            *('-p', 'all', '--job-name=my job', f'--gres=gpu:{per_node}'),
            *(f'--ntasks={gpus}', f'--ntasks-per-node={per_node}'),
            *(f'--cpus-per-task={cpus}', '--kill-on-bad-exit=1'),
            *(*more.split(), 'python', '-u'),
            *(str(ROOT / f'tools/{name}.py'), 'a b.py', *rest),
            *('--launcher=slurm', '--amp'),
        ]


@pytest.mark.parametrize(
    'command',
    [
        ['dist_train.sh', 'a.py'],
        ['dist_test.sh', 'a.py', 'b.pth'],
        ['slurm_train.sh', 'all', 'job', 'a.py'],
        ['slurm_test.sh', 'all', 'job', 'a.py'],
    ],
    ids=lambda command: command[0],
)
def test_what_is_missing_is_said(command):
    done = run(*command)
    assert done.returncode == 2
    assert done.stderr.startswith(f'usage: {command[0]} ')
    assert done.stderr.count('\n') == 1


@pytest.fixture
def images(tmp_path):
    """A folder with data/digits: 12 images to train on, 7 to test on."""
    cv2 = pytest.importorskip('cv2')
    pytest.importorskip('mmpretrain')
    rng = np.random.default_rng(0)
    for split, number in (('train', 12), ('val', 7)):
        for i in range(number):
            file = tmp_path / f'data/digits/{split}/{i % 2}/{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            cv2.imwrite(str(file), image)
    return tmp_path


# Two iterations an epoch of each rank.
OPTIONS = [
    '--cfg-options',
    *('train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
    *('train_dataloader.batch_size=3', 'val_dataloader.batch_size=2'),
    *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0'),
    *('train_dataloader.persistent_workers=False',),
    *('val_dataloader.persistent_workers=False',),
    *('test_dataloader.num_workers=0',),
    *('test_dataloader.persistent_workers=False',),
    "test_cfg.subnets=['1.0x-16','0.5x-12']",
]


@pytest.mark.slow
@pytest.mark.subprocess
def test_two_processes_train_on_a_cpu(images, path):
    """For real; one of them writes the log and the checkpoint."""
    done = run(
        *('dist_train.sh', CONFIG, 2, '--work-dir', 'work', *OPTIONS),
        cwd=images,
        PORT='29517',
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'Traceback' not in done.stderr
    shown = done.stdout
    assert shown.count('2 processes run on the CPU, and talk by gloo') == 1
    assert re.search(r'Epoch\(train\) +\[1\]\[2/2\]', shown)  # 6 images each
    assert re.search(r'\[1\]\[2/2\] +accuracy/top1: .*0.25x-8/accu', shown)
    work = images / 'work'
    assert (work / 'epoch_1.pth').is_file()
    assert len(list(work.glob('*/*.log'))) == 1


@pytest.mark.subprocess
@pytest.mark.parametrize('builds', [1, 2])
def test_a_process_leaves_the_others_when_it_ends(tmp_path, builds):
    """Else PyTorch 2.13 aborts it in one of ten runs, with all work done."""
    lines = [
        'import atexit, torch.distributed as dist',
        'from mutualnet_mm.config.processes import leave_group_at_exit',
        'atexit.register(lambda: print(dist.is_initialized()))',
        f'store = dist.FileStore({str(tmp_path / "store")!r}, 1)',
        "dist.init_process_group('gloo', store=store, rank=0, world_size=1)",
        *['leave_group_at_exit()'] * builds,
    ]
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join(lines)],
        capture_output=True,
        text=True,
        timeout=400,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'False'


LAUNCHED = dict(
    torchrun=['dist_test.sh', CONFIG, 'work/epoch_1.pth', 2],
    slurm=['slurm_test.sh', 'all', 'job', CONFIG, 'work/epoch_1.pth'],
)


@pytest.mark.nightly
@pytest.mark.subprocess
@pytest.mark.parametrize('launcher', LAUNCHED)
def test_two_processes_test_as_one(launcher, images, path):
    """The full network on 7 images; the others calibrate on other batches."""
    path('srun', SRUN)
    path('scontrol', '#!/bin/sh\necho 127.0.0.1\n')
    single = [sys.executable, '-m', 'mutualnet_mm']
    script, *rest = LAUNCHED[launcher]
    checkpoint = 'work/epoch_1.pth'
    for command in (
        [*single, 'train', CONFIG, '--work-dir', 'work'],
        [*single, 'test', CONFIG, checkpoint, '--out', 'one.json'],
        ['bash', ROOT / 'tools' / script, *rest, '--out', 'two.json'],
    ):
        ending = ['--out-item', 'metrics'] if '--out' in command else []
        done = subprocess.run(
            [*map(str, [*command, *ending, *OPTIONS])],
            capture_output=True,
            text=True,
            cwd=images,
            timeout=400,
            env=dict(os.environ, PORT='29518', MASTER_PORT='29519'),
        )
        assert done.returncode == 0, done.stderr
    assert '2 processes run on the CPU' in done.stdout
    one, two = load(images / 'one.json'), load(images / 'two.json')
    assert one.keys() == two.keys() and '0.5x-12/accuracy/top1' in two
    assert one['accuracy/top1'] == two['accuracy/top1']


@pytest.mark.nightly
@pytest.mark.subprocess
def test_the_command_under_torchrun(images, path):
    """``mutualnet train``, and a file that one process cannot read."""
    command = [sys.executable, '-m', 'torch.distributed.run']
    command += ['--nproc_per_node', '2', '--master_port', '29521']
    command += ['-m', 'mutualnet_mm', 'train', str(CONFIG)]
    command += ['--launcher', 'pytorch', '--work-dir', 'work', *OPTIONS]
    for broken in (False, True):
        if broken:
            (images / 'data/digits/train/1/3.png').write_bytes(b'no image')
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=images, timeout=400
        )
        assert (done.returncode == 0) != broken, done.stderr
    errors = [
        line for line in done.stderr.splitlines() if line.startswith('error')
    ]
    named = [line for line in errors if '3.png' in line]
    assert len(named) == 1
    assert re.match(r"error \(rank [01] of 2\): image '", named[0])
    for line in errors:
        assert line in named or 'another process has stopped' in line
