"""Names of the machine, compared with what the system says itself."""

import platform
import subprocess
from pathlib import Path

import pytest
import torch

from mutualnet_mm.cost import machine, machine_name


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def cpuinfo(monkeypatch, text):
    """Put ``text`` in the place of /proc/cpuinfo; None is no such file."""
    monkeypatch.setattr(Path, 'is_file', lambda path: text is not None)
    monkeypatch.setattr(Path, 'read_text', lambda path: text)


def test_processor_and_threads(threads):
    threads(1)
    found = machine_name()
    assert found.endswith(' (threads: 1)') and found == machine_name('cpu')
    assert '\n' not in found and len(found) > len(' (threads: 1)')
    threads(2)
    assert machine_name() == found.replace('1)', '2)')


@pytest.mark.subprocess
@pytest.mark.skipif(
    not Path('/proc/cpuinfo').is_file(), reason='no /proc/cpuinfo'
)
def test_the_name_that_grep_finds(threads):
    threads(1)
    done = subprocess.run(
        "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2 | xargs",
        shell=True,
        capture_output=True,
        text=True,
    )
    name = done.stdout.strip() or platform.processor() or platform.machine()
    assert machine_name() == f'{name} (threads: 1)'


def test_of_several_cores_the_first(threads, monkeypatch):
    threads(1)
    line = 'processor\t: {}\nmodel name\t: Some CPU @ {}.00GHz\nflags : a\n'
    cpuinfo(monkeypatch, line.format(0, 2) + line.format(1, 3))
    assert machine_name() == 'Some CPU @ 2.00GHz (threads: 1)'


@pytest.mark.parametrize('text', ['processor\t: 0\nFeatures\t: fp\n', None])
@pytest.mark.parametrize(
    'processor, expected', [('arm', 'arm'), ('', 'aarch64')]
)
def test_where_no_file_knows_it(
    threads, monkeypatch, text, processor, expected
):
    threads(1)
    cpuinfo(monkeypatch, text)
    monkeypatch.setattr(platform, 'processor', lambda: processor)
    monkeypatch.setattr(platform, 'machine', lambda: 'aarch64')
    assert machine_name() == f'{expected} (threads: 1)'


@pytest.mark.parametrize('device', ['cuda', 'cuda:1'])
def test_a_gpu_is_asked_for_its_name(monkeypatch, device):
    monkeypatch.setattr(
        machine.torch.cuda, 'get_device_name', lambda asked: f'GPU of {asked}'
    )
    assert machine_name(device) == f'GPU of {device}'
