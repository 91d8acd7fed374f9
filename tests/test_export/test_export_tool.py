"""The tool that exports a subnet."""

import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
from torch_versions import skip_without_export

from mutualnet_mm.apis import AdaptiveModel, count_macs, count_params
from mutualnet_mm.export.checkpoint_file import load_static

pytest.importorskip('mmpretrain')
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def tool():
    spec = spec_from_file_location('tool', ROOT / 'tools/export_subnet.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """With an adaptive file and two images; the current one."""
    nets.adaptive_file('classifier', request).save(tmp_path / 'adaptive.pth')
    rng = np.random.default_rng(0)
    for i in range(2):
        picture = rng.integers(0, 255, (32, 32, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.png'), picture)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(tool, folder, monkeypatch, capsys):
    """Run the tool in this process; return its lines."""

    def run(options, path='adaptive.pth'):
        command = ['export_subnet.py', path, *options.split()]
        monkeypatch.setattr(sys, 'argv', command)
        tool.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_says_what_it_wrote(run, folder):
    first, *files, last = run(
        '--subnet 0.5x-24 --format static --out half.pth '
        '--inputs 0.png 1.png --fuse-bn'
    )
    model = AdaptiveModel.from_file('adaptive.pth').model
    macs = count_macs(model, '0.5x-24') / 1e6
    params = sum(p.numel() for p in load_static('half.pth').parameters())
    assert first == f'subnet 0.5x-24: {macs:.2f} MMACs, {params:,} parameters'
    assert files == [
        f'{name}: {(folder / name).stat().st_size:,} bytes'
        for name in ('half.pth', 'half.py')
    ]
    start, _, rest = last.partition(': ')
    absolute, _, relative = rest.split(' of the largest')[0].partition(', ')
    assert start == 'largest difference'
    assert 0 < float(absolute) < 1e-4 and 0 < float(relative) < 1e-4
    assert last.endswith(
        ' of the largest value (logits and predictions, batches of 1 and 2 '
        'inputs)'
    )


@pytest.mark.sweep(2)
@pytest.mark.parametrize(
    'format, file, subnet',
    [
        ('onnx', 'a.onnx', '0.5x-24'),
        ('torch', 'a.pt2', '0.5x-24'),
        ('stock', 'a.pth', '1.0x-32'),
    ],
)
def test_formats(format, file, subnet, run):
    skip_without_export(format)
    if format == 'onnx':
        pytest.importorskip('onnxscript')
        pytest.importorskip('onnxruntime')
    lines = run(
        f'--subnet {subnet} --format {format} --out {file} --inputs 0.png'
    )
    assert Path(file).is_file() and lines[1].startswith(f'{file}: ')
    model = AdaptiveModel.from_file('adaptive.pth').model
    number = int(lines[0].split()[-2].replace(',', ''))
    if format == 'onnx':  # batch norms are folded
        assert number < count_params(model, subnet)
    else:
        assert number == count_params(model, subnet)


@pytest.mark.parametrize(
    'options, message',
    [
        (
            '--subnet 0.5x-24 --inputs no.png',
            "image 'no.png' cannot be read",
        ),
        ('--subnet 0.5x-24', 'the test data set of the config cannot be re'),
        ('--subnet 0.6x-24 --inputs 0.png', 'subnet 0.6x-24 has no batch'),
        ('--subnet half --inputs 0.png', "'half'"),
        (
            '--subnet 0.5x-24 --inputs 0.png --fuse-bn --tolerance 0',
            'the exported subnet 0.5x-24 differs from the adaptive network ',
        ),
    ],
)
def test_ends_in_one_line(options, message, run, folder):
    with pytest.raises(SystemExit) as end:
        run(f'--format static --out a.pth {options}')
    text = str(end.value)
    assert text.startswith('error: ') and message in text
    assert '\n' not in text
    assert not (folder / 'a.pth').exists() and not (folder / 'a.py').exists()


def test_help(tool, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['export_subnet.py', '--help'])
    with pytest.raises(SystemExit) as end:
        tool.main()
    assert not end.value.code and '--fuse-bn' in capsys.readouterr().out


@pytest.mark.subprocess
def test_as_a_program(tmp_path):
    options = 'none.pth --out a.pth --subnet 0.5x-24 --format static'
    done = subprocess.run(
        [sys.executable, ROOT / 'tools/export_subnet.py', *options.split()],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: adaptive file 'none.pth' does not exist"
    )
