"""Statistics of subnets that the table does not have."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from unittest.mock import Mock
from weakref import WeakSet

import adaptive_networks as nets
import pytest
import torch
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel
from mutualnet_mm.engine import BNCalibrationHook, calibrate
from mutualnet_mm.query_table import Latency, table_to_dict

pytest.importorskip('mmpretrain')
A, B, C, D = nets.KINDS['classifier'][1]
NEW = '0.65x-24'
USED = 2  # batches, of four that there are


@pytest.fixture
def net(request, pictures):
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='CustomDataset',
            data_root=str(pictures / 'train'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        ),
    )
    file = nets.adaptive_file('classifier', request, train_dataloader=loader)
    assert file.calibration['num_batches'] == USED
    return AdaptiveModel(file)


def batches(net, seed=0):
    """As the data loader gives them, made without the model."""
    config = net.cfg.train_dataloader.to_dict()
    return list(Runner.build_dataloader(config, seed=seed))


def equal(a, b):
    return a.keys() == b.keys() and all(
        torch.equal(x, y) for name in a for x, y in zip(a[name], b[name])
    )


def run(net, batch):
    return nets.outputs(net.predict(*batch))


@pytest.mark.parametrize('given', ['settings', 'loader', 'generator'])
def test_statistics_of_the_first_batches(net, given):
    expected = calibrate(
        net._origin, [Subnet.parse(NEW)], batches(net)[:USED]
    )[NEW]
    kept = {key: dict(value) for key, value in net._bank.items()}
    taken = []

    def generate():
        for batch in batches(net):
            taken.append(batch)
            yield batch

    config = net.cfg.train_dataloader
    loader = dict(
        settings=config,
        loader=Runner.build_dataloader(config.to_dict(), seed=0),
        generator=generate(),
    )[given]
    net.calibrate(loader, NEW)
    assert equal(net._bank.pop(NEW), expected)
    assert net._bank.keys() == kept.keys()
    assert all(equal(net._bank[key], kept[key]) for key in kept)
    assert len(taken) == (USED if given == 'generator' else 0)
    assert str(net.current) == A


def test_the_pipeline_that_the_training_ended_with(net):
    """As the statistics of the table are, after a hook has switched it."""
    mirror = dict(type='RandomFlip', prob=1.0)
    first = net.cfg.train_dataloader.dataset.pipeline
    last = [first[0], mirror, first[1]]
    switch = dict(
        type='mmdet.PipelineSwitchHook', switch_epoch=1, switch_pipeline=last
    )
    net.calibrate(net.cfg.train_dataloader, NEW)
    plain = net._bank.pop(NEW)
    net.cfg.custom_hooks = [switch]
    net.calibrate(net.cfg.train_dataloader, NEW)
    switched = net._bank.pop(NEW)
    assert not equal(switched, plain)
    own = net.cfg.train_dataloader.to_dict()
    own['dataset']['pipeline'] = [dict(first[0]), dict(first[1])]
    own['dataset']['test_mode'] = False  # so that it is another one
    net.calibrate(own, NEW)
    assert equal(net._bank.pop(NEW), plain)
    net.cfg.custom_hooks = []
    loader = net.cfg.train_dataloader.to_dict()
    loader['dataset']['pipeline'] = last
    net.calibrate(loader, NEW)
    assert equal(net._bank.pop(NEW), switched)


@pytest.mark.parametrize('given', [None, {}, 3, dict(batch_size=2)])
def test_what_gives_no_batches(net, given):
    with pytest.raises(UsageError) as error:
        net.calibrate(given, NEW)
    assert f'{given!r}: give a data loader' in str(error.value)
    assert 'net.cfg.train_dataloader' in str(error.value)


def test_a_broken_image(net, pictures, tmp_path):
    config = net.cfg.train_dataloader.to_dict()
    (tmp_path / '0').mkdir()
    (tmp_path / '0/a.png').write_bytes(b'no image')
    config['dataset']['data_root'] = str(tmp_path)
    with pytest.raises(UsageError, match='^image .*a.png. cannot be read'):
        net.calibrate(config, NEW)


def test_a_subnet_runs_on_them(net):
    batch = nets.full_batch(net.model)
    with pytest.raises(UsageError, match=r"calibrate\(dataloader, '0.65x-24"):
        net.use(NEW)
    net.calibrate(batches(net), NEW)
    statistics = net._bank[NEW]
    assert str(net.use(NEW)) == NEW
    expected = nets.loop_outputs(net._origin, NEW, statistics, *batch)
    assert nets.same(run(net, batch), expected)
    other = net.handle()  # also of before
    assert nets.same(run(other, batch), expected)


@pytest.mark.parametrize('mode', ['sliced', 'static'])
def test_the_active_one_follows_at_once(net, mode):
    batch = nets.full_batch(net.model)
    net.use(B)
    if mode == 'static':
        net.make_static([C, B], fuse_bn=False)
    kept = net._static.get(Subnet.parse(C)) if net._static else None
    before = run(net, batch)
    net.calibrate(batches(net), [B, NEW])
    after = run(net, batch)
    assert not nets.same(after, before)
    expected = nets.loop_outputs(net._origin, B, net._bank[B], *batch)
    assert nets.same(after, expected)
    if kept:  # nothing but what has changed is made anew
        assert net._static.get(Subnet.parse(C)) is kept


def test_save_and_load(net, tmp_path):
    batch = nets.full_batch(net.model)
    before = net.file.statistics.keys()
    net.calibrate(batches(net), NEW)
    net.save(tmp_path / 'adaptive.pth')
    assert net.file.statistics.keys() == before == {B, C, D}
    file = AdaptiveFile.load(tmp_path / 'adaptive.pth')
    assert file.statistics.keys() == {B, C, D, NEW}
    for name in ('config', 'width', 'rounding', 'calibration', 'versions'):
        assert getattr(file, name) == getattr(net.file, name)
    assert table_to_dict(file.table) == table_to_dict(net.table)
    again = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    for subnet in (A, B, C, D, NEW):
        net.use(subnet)
        again.use(subnet)
        assert nets.same(run(again, batch), run(net, batch)), subnet


def test_scores_of_other_statistics_are_not_saved(net, tmp_path, monkeypatch):
    """A subnet of the table that was calibrated has another accuracy."""
    said = []
    monkeypatch.setattr(
        'mutualnet_mm.deploy.adaptive_model.print_log',
        lambda text, **settings: said.append(text),
    )
    net.calibrate(batches(net), NEW)
    assert not said
    net.calibrate(batches(net), [NEW, B])
    assert f'{B} is of the table' in said[0]
    with pytest.raises(UsageError, match=f'{B} of the table was calibrated'):
        net.save(tmp_path / 'adaptive.pth')
    assert not (tmp_path / 'adaptive.pth').exists()


def test_a_copy_knows_what_its_scores_are_of(net, tmp_path):
    net.calibrate(batches(net), B)
    copied = pickle.loads(pickle.dumps(net))  # noqa: S301
    assert equal(copied._bank[B], net._bank[B])
    with pytest.raises(UsageError, match=f'{B} of the table was calibrated'):
        copied.save(tmp_path / 'adaptive.pth')


def test_the_last_calibration_is_saved(net, tmp_path):
    """Over a file that has an earlier one of the same subnet."""
    path = tmp_path / 'adaptive.pth'
    net.calibrate(batches(net), NEW)
    net.save(path)
    first = AdaptiveFile.load(path).statistics[NEW]
    net.calibrate(islice(batches(net), 1), NEW)
    net.save(path)
    last = AdaptiveFile.load(path).statistics[NEW]
    assert equal(last, net._bank[NEW]) and not equal(last, first)


def test_a_table_of_other_scores_stays(net, tmp_path):
    """Neither is known to be the newer one; a part of one's own goes."""
    path, table = tmp_path / 'adaptive.pth', net.table
    net.save(path)
    file = AdaptiveFile.load(path)
    few = copy.copy(file.table)
    few.num_images = 1
    replace(file, table=few).save(path)
    with pytest.raises(UsageError, match='has a table of other scores'):
        net.save(path)
    assert AdaptiveFile.load(path).table.num_images == 1

    kept = [e for e in table.entries if str(e.subnet) != B]
    part = replace(file, table=table._of(kept, table.metric))
    newer = AdaptiveModel(part)
    newer.calibrate(islice(batches(net), 1), NEW)
    part = replace(part, statistics=dict(newer._bank))
    part.save(path)
    net.save(path)
    saved = AdaptiveFile.load(path)
    assert table_to_dict(saved.table) == table_to_dict(table)
    assert equal(saved.statistics[NEW], newer._bank[NEW])
    # What was not calibrated since does not replace what was.
    older = replace(part, statistics={**part.statistics, NEW: _halved(newer)})
    older = AdaptiveModel(older)
    net.save(path)
    older.save(path)
    saved = AdaptiveFile.load(path)
    assert equal(saved.statistics[NEW], newer._bank[NEW])


def _halved(net):
    return {
        name: (mean / 2, variance)
        for name, (mean, variance) in net._bank[NEW].items()
    }


def test_latencies_of_both_are_kept(net, tmp_path):
    """Of one device the newer ones, those of the file."""
    path, table = tmp_path / 'adaptive.pth', net.table
    subnets = [entry.subnet for entry in table.entries]
    first, newer, other = (
        dict.fromkeys(subnets, Latency(t, t)) for t in (7.0, 8.0, 3.0)
    )
    replace(net.file, table=table.with_latencies('cpu', newer)).save(path)
    older = table.with_latencies('cpu', first).with_latencies('gpu', other)
    AdaptiveModel(replace(net.file, table=older)).save(path)
    saved = AdaptiveFile.load(path).table
    for entry in saved.entries:
        found = {name: told.median for name, told in entry.latency_ms.items()}
        assert found == dict(cpu=8.0, gpu=3.0)


def test_calibrated_as_before(net, tmp_path, monkeypatch):
    """The scores are of these statistics again."""
    before = dict(net._bank)
    net.calibrate(batches(net), B)
    again = Mock(side_effect=lambda *given: net._bank.update(before))
    monkeypatch.setattr(net, '_collect', again)
    net.calibrate(batches(net), B)
    assert again.called
    net.save(tmp_path / 'adaptive.pth')


def test_a_subnet_that_both_got(net, tmp_path):
    """Calibrated here, and added to the table there."""
    path = tmp_path / 'adaptive.pth'
    net.save(path)
    file = AdaptiveFile.load(path)
    kept = [e for e in file.table.entries if str(e.subnet) != B]
    statistics = {n: s for n, s in file.statistics.items() if n != B}
    table = file.table._of(kept, file.table.metric)
    few = AdaptiveModel(replace(file, statistics=statistics, table=table))
    few.calibrate(islice(batches(net), 1), B)
    with pytest.raises(UsageError, match=f'{B} was calibrated, and .* has'):
        few.save(path)
    assert equal(AdaptiveFile.load(path).statistics[B], file.statistics[B])


def test_subnets_that_the_file_got_meanwhile(net, tmp_path):
    """As `mutualnet table --subnet` adds them; statistics go with them."""
    path = tmp_path / 'adaptive.pth'
    net.save(path)
    file = AdaptiveFile.load(path)
    kept = [e for e in file.table.entries if str(e.subnet) != B]
    few = AdaptiveModel(
        replace(file, table=file.table._of(kept, file.table.metric))
    )
    few.calibrate(batches(net), NEW)
    few.save(path)
    again = AdaptiveFile.load(path)
    assert table_to_dict(again.table) == table_to_dict(file.table)
    assert again.statistics.keys() == {B, C, D, NEW}
    assert equal(again.statistics[B], file.statistics[B])


def test_settings_of_data_that_is_not_there(net, tmp_path):
    config = net.cfg.train_dataloader.to_dict()
    config['dataset']['data_root'] = str(tmp_path / 'nowhere')
    with pytest.raises(UsageError, match='are calibrated on .* cannot be'):
        net.calibrate(config, NEW)


@pytest.mark.parametrize('number', [None, 0, 1, 3])
@pytest.mark.parametrize('static', [False, True])
def test_a_sample_for_each_input(net, number, static):
    inputs, samples = nets.full_batch(net.model)
    assert len(inputs) == 2
    if static:
        net.make_static()
    given = None if number is None else (samples * 2)[:number]
    with pytest.raises(UsageError, match='2 inputs and .* one sample for'):
        net.predict(inputs, given)
    with pytest.raises(UsageError, match='0 inputs and 0 data samples'):
        net.predict(inputs[:0], [])


def no_data():
    raise AssertionError('data was read')
    yield


@pytest.mark.parametrize(
    'data, subnets, message',
    [
        (no_data(), '0.2x-32', 'outside of the trained'),
        (no_data(), [NEW, '0.65x-33'], 'above the full 32'),
        ([], NEW, 'data loader gave no batch'),
    ],
)
def test_what_is_refused(net, data, subnets, message):
    bank = dict(net._bank)
    with pytest.raises(UsageError, match=message):
        net.calibrate(data, subnets)
    assert net._bank == bank


def test_a_data_loader_that_fails(net):
    def break_down():
        yield from islice(batches(net), 1)
        raise OSError('the disk is gone')

    batch = nets.full_batch(net.model)
    net.use(B)
    before, bank = run(net, batch), dict(net._bank)
    with pytest.raises(OSError, match='the disk'):
        net.calibrate(break_down(), [B, NEW])
    assert net._bank == bank and str(net.current) == B
    assert nets.same(run(net, batch), before)


def test_as_for_the_table_where_data_is_random(net):
    config = net.cfg.train_dataloader
    crop = dict(type='RandomCrop', crop_size=32, padding=8)
    config.dataset.pipeline.insert(1, crop)
    runner = SimpleNamespace(
        cfg=net.cfg, build_dataloader=Runner.build_dataloader
    )
    drawn = BNCalibrationHook(num_batches=USED).batches(runner)
    expected = calibrate(net._origin, [Subnet.parse(NEW)], drawn)[NEW]
    for _ in range(2):
        net.calibrate(config, NEW)
        assert equal(net._bank[NEW], expected)


def test_beside_a_model_of_another_project(net):
    DefaultScope.get_instance('another', scope_name='mmengine')
    net.calibrate(net.cfg.train_dataloader, NEW)


def test_another_handle_that_made_static(net):
    batch = nets.full_batch(net.model)
    other = net.handle()
    other.make_static(B, fuse_bn=False)
    net.calibrate(batches(net), B)
    net.use(B)
    other.use(B)
    assert nets.same(run(other, batch), run(net, batch))


class LateLock:
    """The lock of a handle; one thread gets it only when it is told to."""

    def __init__(self, lock):
        self.lock, self.late = lock, None
        self.waiting, self.go_on = threading.Event(), threading.Event()

    def __enter__(self):
        if threading.get_ident() == self.late:
            self.waiting.set()
            assert self.go_on.wait(30)
        self.lock.acquire()

    def __exit__(self, *args):
        self.lock.release()


@pytest.mark.parametrize('mode', ['sliced', 'static'])
def test_a_switch_that_waits_for_a_calibration(net, mode):
    """It takes the new statistics, whoever gets the lock first."""
    batch = nets.full_batch(net.model)
    if mode == 'static':
        net.make_static([A, B], fuse_bn=False)
    lock = net._lock = LateLock(net._lock)

    def use():
        lock.late = threading.get_ident()
        net.use(B)

    with ThreadPoolExecutor(1) as pool:
        switch = pool.submit(use)
        assert lock.waiting.wait(30)
        net.calibrate(batches(net), B)
        lock.go_on.set()
        switch.result()
    expected = nets.loop_outputs(net._origin, B, net._bank[B], *batch)
    assert nets.same(run(net, batch), expected)


def test_static_networks_that_are_made_meanwhile(net, monkeypatch):
    """Also those that no handle runs yet have the new statistics."""
    from mutualnet_mm.deploy import switchable

    make, batch = switchable.static_model, nets.full_batch(net.model)
    net.use(B)
    data, made = batches(net), []

    def make_meanwhile(*args):
        network = make(*args)
        made.append(network)
        if len(made) == 3:
            net.calibrate(data, [B, C])
        return network

    monkeypatch.setattr(switchable, 'static_model', make_meanwhile)
    net.make_static([B, C, D], fuse_bn=False)
    for subnet in (B, C, D):
        net.use(subnet)
        statistics = net._bank[subnet]
        expected = nets.loop_outputs(net._origin, subnet, statistics, *batch)
        assert nets.same(run(net, batch), expected), subnet
    assert len(made) > 3


def test_handles_that_are_made_meanwhile(net):
    """All of them follow, and listing them does not fail."""
    batch, made = nets.full_batch(net.model), []

    class Handles(WeakSet):
        def __iter__(self):
            listed = super().__iter__()
            yield next(listed)
            thread.start()
            thread.join(0.2)
            yield from listed

    net.use(B)
    net.make_static([C, B], fuse_bn=False)
    net._handles = Handles(net._handles)
    others = [net.handle(), net.handle()]
    thread = threading.Thread(target=lambda: made.append(net.handle()))
    net.calibrate(batches(net), B)
    thread.join(30)
    expected = nets.loop_outputs(net._origin, B, net._bank[B], *batch)
    for handle in (net, *others, *made):
        assert nets.same(run(handle, batch), expected)
    assert len(made) == 1
