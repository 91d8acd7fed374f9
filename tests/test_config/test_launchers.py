"""What launchers tell processes, and how a model may be spread over them."""

import os

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import ConfigError
from mutualnet_mm.config import processes
from mutualnet_mm.config.launchers import (
    check_launched,
    count_processes,
    is_first,
)
from mutualnet_mm.config.processes import (
    check_same_length,
    check_wrapper,
    processes_without_gpu,
)

VARIABLES = dict(
    pytorch=dict(RANK='3', LOCAL_RANK='1', WORLD_SIZE='4'),
    slurm=dict(SLURM_PROCID='3', SLURM_LOCALID='1', SLURM_NTASKS='4'),
    mpi=dict(
        OMPI_COMM_WORLD_RANK='3',
        OMPI_COMM_WORLD_LOCAL_RANK='1',
        OMPI_COMM_WORLD_SIZE='4',
    ),
)


@pytest.fixture
def launch(monkeypatch):
    """Set what a launcher tells the last of four processes."""
    for variables in VARIABLES.values():
        for name in variables:
            monkeypatch.delenv(name, raising=False)
    # Undone in the end, also where it is not there yet.
    monkeypatch.setenv('LOCAL_RANK', '')
    monkeypatch.delenv('LOCAL_RANK')

    def start(launcher):
        for name, value in VARIABLES[launcher].items():
            monkeypatch.setenv(name, value)

    return start


@pytest.mark.parametrize('launcher', VARIABLES)
def test_every_launcher_says_the_same(launcher, launch):
    launch(launcher)
    check_launched(launcher)
    assert os.environ['LOCAL_RANK'] == '1'  # what MMEngine's runner reads
    assert count_processes(launcher) == 4 and not is_first(launcher)


def test_more_processes_than_gpus(launch, monkeypatch):
    launch('pytorch')
    for number in (2, 1):
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
        monkeypatch.setattr(torch.cuda, 'device_count', lambda n=number: n)
        if number == 2:
            check_launched('pytorch')
            continue
        with pytest.raises(ConfigError, match='process 1 .* no GPU'):
            check_launched('pytorch')


def model_config(kind='mutualnet_mm.MutualLearning', **settings):
    return Config(dict(model=dict(type=kind), **settings))


REFUSED = [
    *(
        ('model_wrapper_cfg', dict(type=kind))
        for kind in (
            'MMFullyShardedDataParallel',
            'mmengine.MMFullyShardedDataParallel',
            'FullyShardedDataParallel',
            'MMSeparateDistributedDataParallel',
            'DataParallel',
        )
    ),
    *(
        ('strategy', dict(type=kind))
        for kind in ('FSDPStrategy', 'DeepSpeedStrategy', 'ColossalAIStrategy')
    ),
    ('runner_type', 'FlexibleRunner'),
]


@pytest.mark.parametrize('place, setting', REFUSED)
def test_spread_in_parts(place, setting):
    with pytest.raises(ConfigError) as refusal:
        check_wrapper(model_config(**{place: setting}))
    text = str(refusal.value)
    kind = setting if isinstance(setting, str) else setting['type']
    assert place in text and kind.split('.')[-1] in text and '\n' not in text
    # In a model around a detector as well; a stock model as it likes.
    around = model_config('SemiBaseDetector', **{place: setting})
    check_wrapper(around)
    around.model.detector = dict(type='mutualnet_mm.MutualLearning')
    with pytest.raises(ConfigError):
        check_wrapper(around)


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(model_wrapper_cfg=dict(find_unused_parameters=True)),
        dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel')),
    ],
)
def test_spread_as_a_whole(settings):
    check_wrapper(model_config(**settings))


def test_samplers_of_different_lengths(launch):
    launch('pytorch')
    cfg = model_config(launcher='pytorch')
    for sampler in (
        dict(type='DefaultSampler', shuffle=True),
        dict(type='DefaultSampler', round_up=True),
    ):
        cfg.train_dataloader = dict(sampler=sampler)
        check_same_length(cfg)
    sampler['round_up'] = False
    cfg.train_dataloader = dict(sampler=sampler)
    with pytest.raises(ConfigError, match='round_up=False gives 4 processes'):
        check_same_length(cfg)
    cfg.launcher = 'none'
    check_same_length(cfg)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(processes, 'get_device', lambda: 'cpu')


def test_no_gpu(launch, without_gpu):
    """Gloo and no devices; what else is set stays."""
    launch('pytorch')
    stock = torch.cuda.set_device
    cfg = model_config(
        launcher='pytorch',
        env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=7)),
        find_unused_parameters=True,
    )
    with processes_without_gpu(cfg):
        assert torch.cuda.set_device(1) is None
    assert torch.cuda.set_device is stock
    assert cfg.env_cfg.dist_cfg == dict(backend='gloo', timeout=7)
    assert cfg.model_wrapper_cfg == dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=True,
        device_ids=None,
    )
    other = dict(type='MMFullyShardedDataParallel')
    cfg = model_config('ImageClassifier', launcher='pytorch')
    cfg.model_wrapper_cfg = other
    with processes_without_gpu(cfg):
        pass
    assert cfg.model_wrapper_cfg == other


@pytest.mark.parametrize(
    'launcher, device', [('none', 'cpu'), ('mpi', 'cuda')]
)
def test_nothing_changes(launcher, device, launch, monkeypatch):
    """With a GPU, or in a single process."""
    monkeypatch.setattr(processes, 'get_device', lambda: device)
    cfg = model_config(launcher=launcher)
    before, stock = cfg.to_dict(), torch.cuda.set_device
    with processes_without_gpu(cfg):
        assert torch.cuda.set_device is stock
    assert cfg.to_dict() == before


def test_synchronised_batch_norms_need_a_gpu(launch, without_gpu):
    launch('pytorch')
    text = 'SyncBatchNorm layers only work with GPU modules'
    for said, kind, found in (
        (text, ConfigError, f'{text}: set sync_bn=None'),  # of DDP
        ('other', ValueError, '^other$'),
    ):
        cfg = model_config(launcher='pytorch')
        with pytest.raises(kind, match=found), processes_without_gpu(cfg):
            raise ValueError(said)
