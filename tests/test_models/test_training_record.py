"""What a checkpoint says of its training; nothing of it is run."""

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.models.training_record import TrainingRecord
from mutualnet_mm.sampler import SubnetSampler
from mutualnet_mm.subnet import SubnetSpace


@pytest.fixture
def record(tmp_path):
    def make(cfg=None, **meta):
        if cfg is not None:
            meta.update(cfg=cfg)
        path = tmp_path / 'a.pth'
        torch.save(dict(state_dict={}, meta=meta), path)
        return TrainingRecord(str(path))

    return make


def written(**mutual):
    """The text that MMEngine's runner keeps."""
    model = dict(type='A', backbone=dict(type='B'), mutual=mutual)
    return Config(dict(model=model, train_cfg=dict(a=1))).pretty_text


@pytest.mark.parametrize(
    'mutual, expected',
    [
        (
            dict(resolution=(32, 16), num_random=0, include_min=False),
            {Subnet(1.0, 32)},
        ),
        (
            dict(resolution=(32, 16), single_subnet='0.5x-16'),
            {Subnet(0.5, 16)},
        ),
        (
            dict(widths=(0.5,), width_range=None, resolution=(16,)),
            {Subnet(0.5, 16)},
        ),
        (
            dict(resolution=[32, 16], seed=3),
            set(
                SubnetSampler(SubnetSpace((0.25, 1.0), (32, 16)), seed=3)
                .sample(0)
                .values()
            ),
        ),
    ],
)
def test_subnets(record, mutual, expected):
    assert record(written(**mutual)).trained_subnets() == expected


@pytest.mark.parametrize(
    'text',
    [
        None,
        Config(dict(model=dict(type='A'))).pretty_text,  # a stock one
        'model = dict(mutual=dict(unknown=1))',
        'model = build(mutual=1)',
        'model =',
        '',
    ],
)
def test_what_says_nothing(record, text):
    assert record(text).trained_subnets() is None


def test_text_is_not_run(record, tmp_path):
    flag = tmp_path / 'ran'
    text = (
        f'open({str(flag)!r}, "w")\n'
        f'model = dict(mutual=dict(resolution=open({str(flag)!r}, "w")))\n'
    )
    assert record(text).trained_subnets() is None
    assert not flag.exists()


def test_classes(record):
    meta = dict(classes=('a', 'b'))
    assert record(dataset_meta=meta).dataset_meta == meta
    assert record().dataset_meta == {}


def test_weights_alone(tmp_path):
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    found = TrainingRecord(str(tmp_path / 'a.pth'))
    assert found.trained_subnets() is None
    (tmp_path / 'b.pth').write_text('nothing')
    with pytest.raises(UsageError, match=r"b\.pth' cannot be read"):
        TrainingRecord(str(tmp_path / 'b.pth'))
