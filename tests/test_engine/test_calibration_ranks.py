"""Calibration, validation and errors in two processes, on the CPU."""

from datetime import timedelta
from unittest.mock import Mock, patch

import pytest
import torch
import torch.distributed as dist
from forked import run_forked
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import SequentialSampler

import mutualnet_mm  # noqa: F401
from mutualnet_mm import UsageError
from mutualnet_mm.engine import calibrate
from mutualnet_mm.subnet import Subnet

pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.subprocess
SUBNETS = [Subnet(1.0, 48), Subnet(0.25, 32)]


def build(norm):
    from mmpretrain.utils import register_all_modules

    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('ranks', scope_name='mmpretrain')
    register_all_modules(init_default_scope=False)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='ImageClassifier',
            mutual=dict(resolution=(64, 48, 32)),
            backbone=dict(
                type='mutualnet_mm.SlimmableResNet',
                depth=18,
                stem_channels=8,
                base_channels=8,
                norm_cfg=dict(type=norm),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=4, in_channels=64),
        )
    )
    return model.train()


def batch(seed, size=64, number=1, channels=3):
    from mmpretrain.structures import DataSample

    torch.manual_seed(seed)
    return dict(
        inputs=torch.randn(number, channels, size, size) + seed,
        data_samples=[DataSample().set_gt_label(0) for _ in range(number)],
    )


def joined(batches):
    return dict(
        inputs=torch.cat([b['inputs'] for b in batches]),
        data_samples=sum((b['data_samples'] for b in batches), []),
    )


def validate(model, batches, folder):
    """Validate the full network by the loop, on data of this rank's own."""
    images = [
        dict(inputs=image, data_samples=sample.clone())
        for batch in batches
        for image, sample in zip(batch['inputs'], batch['data_samples'])
    ]
    runner = Runner(
        model=model,
        work_dir=folder,
        val_dataloader=dict(
            batch_size=1,
            dataset=images,
            sampler=SequentialSampler(images),
            collate_fn=dict(type='pseudo_collate'),
        ),
        val_evaluator=dict(type='mmpretrain.Accuracy'),
        val_cfg=dict(type='mutualnet_mm.SubnetValLoop', subnets=['1.0x-64']),
        default_scope='mmpretrain',
        log_level='ERROR',
    )
    return runner.val()


class Torn:
    def __iter__(self):
        raise OSError('no space left')


def message(run):
    try:
        run()
    except Exception as error:
        return type(error).__name__, str(error)


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo',
        f'file://{folder}/ranks',
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),  # where a rank is waited for
    )
    sync = build('SyncBN')
    # Rank 1 has one batch less: it must not keep the other waiting.
    batches = [batch(10 * rank + i) for i in range(3 - rank)]
    bank = calibrate(sync, SUBNETS, batches)
    model = build('BN')
    colours = [(3, 1), (3, 3)][rank]
    wrong = [batch(i, number=2, channels=c) for i, c in enumerate(colours)]
    errors = [message(lambda: calibrate(model, SUBNETS, wrong))]
    bad = batch(3)
    bad['inputs'] *= float('nan') if rank else 1.0
    errors.append(message(lambda: calibrate(model, SUBNETS, [bad, bad])))
    data = batch(3, channels=3 if rank else 1)
    errors.append(message(lambda: model.loss(**data)))
    errors.append(message(lambda: model.loss(**batch(3, number=2)) and None))
    # Rank 1 fails at its last batch.
    sizes = [(64, 64, 64), (64, 64, 48)][rank]
    wrong = [batch(i, size) for i, size in enumerate(sizes)]
    errors.append(message(lambda: validate(model, wrong, folder)))
    right = [batch(i) for i in range(2)]
    errors.append(message(lambda: validate(model, right, folder)))
    # A loader that cannot start its workers; samples that do not resize.
    loader = right if rank else Torn()
    errors.append(message(lambda: calibrate(sync, SUBNETS, loader)))
    resize = sync.task.resize
    if rank:
        resize = Mock(side_effect=KeyError('no boxes'))
    with patch.object(sync.task, 'resize', resize):
        errors.append(message(lambda: calibrate(sync, SUBNETS, right)))
    torch.save((bank, errors), f'{folder}/{rank}.pth')
    dist.destroy_process_group()


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What both processes found."""
    folder = tmp_path_factory.mktemp('ranks')
    run_forked(work, str(folder))
    return [
        torch.load(folder / f'{rank}.pth', weights_only=True)
        for rank in range(2)
    ]


def test_sync_batch_norm_is_synchronised(ranks, enter_scope):
    """As if one process had the batches of both at a time."""
    enter_scope('mmpretrain')
    model = build('BN')
    pairs = [joined([batch(i), batch(10 + i)]) for i in range(2)]
    expected = calibrate(model, SUBNETS, pairs)
    for bank, _ in ranks:
        assert bank.keys() == expected.keys()
        for subnet, statistics in expected.items():
            assert bank[subnet].keys() == statistics.keys()
            for name, pair in statistics.items():
                for ours, theirs in zip(bank[subnet][name], pair):
                    torch.testing.assert_close(
                        ours, theirs, rtol=1e-3, atol=1e-4
                    )


@pytest.mark.parametrize(
    'case, text',
    [
        (0, 'inputs of 1 channels'),
        (1, 'batch 1 of the calibration data'),
        (2, 'inputs of 1 channels'),
        (4, 'delivers 48 x 48'),
        (6, 'no space left'),
        (7, 'no boxes'),
    ],
    ids=[
        *('calibration', 'not finite', 'training', 'validation'),
        *('loader', 'samples'),
    ],
)
def test_all_ranks_stop_with_the_same_line(ranks, case, text):
    (first, one), (second, two) = (errors[case] for _, errors in ranks)
    assert one == two and text in one
    # Of a kind that the other ranks cannot know, they say so.
    other = {'RuntimeError', 'OSError', 'KeyError'}
    usage = {'ConfigError', UsageError.__name__}
    assert {first, second} <= (other if case >= 6 else usage)


@pytest.mark.parametrize('case', [3, 5], ids=['training', 'validation'])
def test_what_is_right_is_right_on_both(ranks, case):
    assert [errors[case] for _, errors in ranks] == [None, None]
