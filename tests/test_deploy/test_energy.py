"""Energy by counters that are made up: folders of Linux, and NVML."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.deploy import energy
from mutualnet_mm.deploy.energy import EnergyMeter, energy_meter

RANGE = 262_143_328_850  # microjoules, as of a real processor


class Processors:
    """A folder as Linux shows it, whose counters rise when told to."""

    def __init__(self, root):
        self.root = root
        self.folders = {}

    def add(self, folder, name, start=0, most=RANGE):
        path = self.root / folder
        path.mkdir(parents=True)
        (path / 'name').write_text(f'{name}\n')
        (path / 'max_energy_range_uj').write_text(f'{most}\n')
        self.folders[folder] = most
        self.set(folder, start)

    def set(self, folder, value):
        (self.root / folder / 'energy_uj').write_text(f'{value}\n')

    def use(self, folder, microjoules):
        path = self.root / folder / 'energy_uj'
        now = int(path.read_text()) + microjoules
        self.set(folder, now % self.folders[folder])


@pytest.fixture
def processors(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, 'POWERCAP', tmp_path)
    return Processors(tmp_path)


def test_packages_are_added_up(processors):
    """Their parts, memory and the whole system would count twice."""
    for folder, name in (
        ('intel-rapl:0', 'package-0'),
        ('intel-rapl:0:0', 'core'),
        ('intel-rapl:0:1', 'dram'),
        ('intel-rapl:1', 'package-1'),
        ('intel-rapl:2', 'psys'),
        ('intel-rapl-mmio:0', 'package-0'),
    ):
        processors.add(folder, name, start=7_000_000)
    meter = energy_meter('cpu')
    assert meter.millijoules() == 0
    for folder in processors.folders:
        processors.use(folder, 3_000)
    assert meter.millijoules() == pytest.approx(3 + 3)
    processors.use('intel-rapl:1', 500)
    assert meter.millijoules() == pytest.approx(6.5)
    assert meter.millijoules() == pytest.approx(6.5)


def test_a_counter_that_starts_over(processors):
    """Once, and again and again, as long as it is read in between."""
    processors.add('intel-rapl:0', 'package-0', RANGE - 2_000)
    processors.add('intel-rapl:1', 'package-1', 0, most=10_000)
    meter = energy_meter('cpu')
    processors.use('intel-rapl:0', 5_000)
    assert meter.millijoules() == pytest.approx(5)
    for _ in range(10):
        processors.use('intel-rapl:1', 4_000)
        meter.millijoules()
    assert meter.millijoules() == pytest.approx(5 + 10 * 4)


def test_energy_of_a_run(processors):
    """It runs until the time is over; a counter starts over meanwhile."""
    processors.add('intel-rapl:0', 'package-0', 9_000_000, most=10_000_000)
    meter, now = energy_meter('cpu'), [0.0]
    processors.use('intel-rapl:0', 77_000)  # before the first run: not its

    def run():
        now[0] += 0.3
        processors.use('intel-rapl:0', 600_000)

    found = meter.of_a_run(run, seconds=2.0, clock=lambda: now[0])
    assert found == pytest.approx(600) and now[0] == pytest.approx(2.1)
    now[0] = 0.0  # one run takes longer than that
    found = meter.of_a_run(run, seconds=0.1, clock=lambda: now[0])
    assert found == pytest.approx(600) and now[0] == pytest.approx(0.3)


def test_a_counter_that_stands_still(processors):
    processors.add('intel-rapl:0', 'package-0', 5)
    with pytest.raises(UsageError, match='intel-rapl:0 stood still'):
        energy_meter('cpu').of_a_run(lambda: None, seconds=0)


def test_a_counter_that_is_reset():
    """Of what has no range, it is no starting over."""
    values = iter([5.0, 7.0, 1.0])
    meter = EnergyMeter({'cuda:0': lambda: next(values)})
    assert meter.millijoules() == 2
    with pytest.raises(UsageError, match='of cuda:0 was reset'):
        meter.millijoules()


def test_a_processor_that_does_not_tell(processors, monkeypatch):
    with pytest.raises(UsageError, match='no RAPL in .*leave --energy out'):
        energy_meter('cpu')
    processors.add('intel-rapl:0', 'psys')
    with pytest.raises(UsageError, match='no RAPL in'):
        energy_meter('cpu')
    processors.add('intel-rapl:1', 'package-0')
    processors.set('intel-rapl:1', 'nothing')
    with pytest.raises(UsageError, match='energy_uj.* cannot be read'):
        energy_meter('cpu')

    def refuse(path):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(type(processors.root), 'read_text', _only(refuse))
    with pytest.raises(UsageError, match='energy_uj.*chmod a.r') as error:
        energy_meter('cpu')
    assert '\n' not in str(error.value)


def _only(refuse):
    """Refuse counters, as Linux does unless one is the administrator."""
    real = Path.read_text

    def read_text(path, *args, **settings):
        if path.name == 'energy_uj':
            refuse(path)
        return real(path, *args, **settings)

    return read_text


class Error(Exception):
    """As NVML raises it."""


@pytest.fixture
def nvml(monkeypatch):
    """NVML of two GPUs in an order that PyTorch does not have."""
    counters = {'GPU-b': 10_000, 'GPU-a': 500}
    made = SimpleNamespace(NVMLError=Error, counters=counters, started=0)

    def start():
        made.started += 1

    def find(uuid):
        if uuid not in counters:
            raise Error('Not Found')
        return uuid

    def read(handle):
        if counters[handle] is None:
            raise Error('Not Supported')
        return counters[handle]

    made.nvmlInit = start
    made.nvmlDeviceGetHandleByUUID = find
    made.nvmlDeviceGetTotalEnergyConsumption = read
    monkeypatch.setitem(sys.modules, 'pynvml', made)
    monkeypatch.setattr(
        torch.cuda,
        'get_device_properties',
        lambda device: SimpleNamespace(uuid='ab'[device.index or 0]),
    )
    return made


def test_the_gpu_that_pytorch_uses(nvml):
    first, second = energy_meter('cuda:0'), energy_meter('cuda:1')
    assert nvml.started
    nvml.counters['GPU-a'] += 30
    nvml.counters['GPU-b'] += 7
    assert (first.millijoules(), second.millijoules()) == (30, 7)


def test_gpus_that_do_not_tell(nvml, monkeypatch):
    nvml.counters['GPU-a'] = None
    with pytest.raises(UsageError, match='cuda:0 does not tell .*Supported'):
        energy_meter('cuda:0')
    del nvml.counters['GPU-b']
    with pytest.raises(UsageError, match='cuda:1 does not tell .*Not Found'):
        energy_meter('cuda:1')
    monkeypatch.setattr(
        torch.cuda, 'get_device_properties', lambda device: SimpleNamespace()
    )
    with pytest.raises(UsageError, match='does not tell which GPU cuda:0 is'):
        energy_meter('cuda:0')
    monkeypatch.setitem(sys.modules, 'pynvml', None)
    with pytest.raises(UsageError, match='pip install nvidia-ml-py'):
        energy_meter('cuda:0')


def test_other_devices():
    with pytest.raises(UsageError, match="energy of 'mps' cannot be measured"):
        energy_meter('mps')
