"""Devices: those that are not there are refused first of all, in one line."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.devices import check_device, prepare_cpu

TOOLS = Path(__file__).parents[1] / 'tools'
# None of the files exists, which every tool would say otherwise.
COMMANDS = {
    'analysis/cam.py': 'c.py c.pth a.png --out out',
    'analysis/cam_video.py': 'c.py c.pth a.mp4 --out out',
    'analysis/compare_subnets.py': 'c.py c.pth a.png --out out',
    'analysis/localize.py': 'c.py c.pth --boxes boxes.json',
    'benchmark.py': 'infer',
    'convert_checkpoint.py': 'c.py c.pth --out out.pth',
    'measure_latency.py': 'adaptive.pth',
    'demo.py': 'adaptive.pth',
}


def test_a_device_that_is_there():
    assert check_device('cpu') == torch.device('cpu')
    assert check_device(torch.device('cpu')) == torch.device('cpu')


@pytest.mark.parametrize('device', ['cuda:99', 'nonsense', '', 'xla', 'meta'])
def test_devices_that_are_not_there(device):
    with pytest.raises(
        UsageError, match=f"device='{device}' cannot be used: .*'cpu'"
    ) as caught:
        check_device(device)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize('device', ['cuda:99', 'nonsense'])
@pytest.mark.parametrize('tool', COMMANDS)
def test_tools_refuse_them_before_any_work(
    tool, device, tmp_path, monkeypatch
):
    if tool == 'demo.py':
        pytest.importorskip('gradio')
    monkeypatch.chdir(tmp_path)
    result = run_program(
        TOOLS / tool, *COMMANDS[tool].split(), '--device', device
    )
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: device='{device}' cannot be used")
    assert result.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_all_tools_with_a_device_are_above():
    found = {
        str(file.relative_to(TOOLS))
        for file in TOOLS.rglob('*.py')
        if 'add_device(' in (text := file.read_text())
        or 'trained_parser(' in text
        or 'maps_parser(' in text
        or "'--device'" in text
    }
    # Its device is a column of the table.
    assert found == set(COMMANDS) | {'plot_curves.py'}


def test_numbers_below_the_normal_ones_are_zero():
    prepare_cpu()
    assert (torch.tensor([2e-38]) * 0.1).item() == 0


@pytest.mark.skipif(
    platform.libc_ver()[0] != 'glibc', reason='of malloc of glibc'
)
def test_freed_memory_is_kept():
    # In processes of their own: the setting is for the rest of a process.
    ask = (
        'import resource, torch\n'
        'from mutualnet_mm.devices import prepare_cpu\n'
        '{}\n'
        'def faults():\n'
        '    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n'
        'def fill():\n'
        '    for size in (64, 16, 40):\n'
        '        torch.ones(size, 2**18)\n'  # of 2**20 bytes each row
        'counts = [faults()]\n'
        'for _ in range(6):\n'
        '    fill()\n'
        '    counts.append(faults())\n'
        'print(min(b - a for a, b in zip(counts, counts[1:])))'
    )
    plain, kept = (
        int(
            subprocess.run(
                [sys.executable, '-W', 'ignore', '-c', ask.format(first)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for first in ('', 'prepare_cpu()')
    )
    assert kept < 100 and kept <= plain
