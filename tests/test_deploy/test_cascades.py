"""Cascades as they run: two networks, put together by hand."""

import copy
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import adaptive_networks as nets
import pytest
import torch
from torch_versions import skip_without_export

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveModel, export_subnet, measure_latencies
from mutualnet_mm.deploy.switchable import SwitchableNetwork
from mutualnet_mm.models import static_model
from mutualnet_mm.query_table import Cascade, QueryTable

KINDS = ['classifier', 'slow', 'slowfast', 'tsn']
MODES = dict(sliced=None, static=dict(fuse_bn=False), fused=dict())
A, B = (Subnet.parse(s) for s in nets.KINDS['classifier'][1][:2])


def stages_of(kind):
    large, small = nets.KINDS[kind][1][:2]
    return Subnet.parse(small), Subnet.parse(large)


def cascade_of(stages, threshold):
    return Cascade(stages, threshold, 1.0, 2, 'accuracy/top1', 50.0)


def batch_of(model, number=8):
    inputs, samples = nets.full_batch(model, number)
    if model.task.name == 'action' and model.task.channel_axis == -4:
        inputs = torch.cat([inputs, inputs.flip(-1)], dim=1)  # two views
    for i, sample in enumerate(samples):
        sample.set_metainfo(dict(number=i))
    return inputs, samples


def alone(origin, subnet, bank, inputs, samples):
    """Predict with a narrow network of its own, image by image."""
    net = static_model(origin, subnet, bank.get(str(subnet))).eval()
    found = []
    with torch.no_grad():
        for i, sample in enumerate(samples):
            given = inputs[i : i + 1], [sample.new()]
            found += net(*given, mode='predict')
    return found


def sharpen(origin):
    """Let confidences differ, as they do after training."""
    layer = getattr(origin, 'cls_head', None) or origin.head
    for parameter in layer.parameters():
        parameter.data.mul_(8)


def by_hand(origin, bank, stages, batch):
    """Predictions of both, and a threshold that lets three images go on."""
    small, large = (alone(origin, s, bank, *batch) for s in stages)
    sure = sorted(float(s.pred_score.max()) for s in small)
    threshold = (sure[2] + sure[3]) / 2
    assert sure[3] - sure[2] > 1e-4
    return small, large, threshold


@pytest.mark.sweep(6)
@pytest.mark.parametrize('mode', list(MODES))
@pytest.mark.parametrize('kind', KINDS)
def test_two_networks_by_hand(kind, mode, request):
    origin, bank = nets.network(kind, request)
    sharpen(origin)
    batch, stages = batch_of(origin), stages_of(kind)
    small, large, threshold = by_hand(origin, bank, stages, batch)
    net = SwitchableNetwork(origin, bank)
    cascade = cascade_of(stages, threshold)
    assert net.use(cascade) is net.current is cascade
    if MODES[mode] is not None:
        net.make_static(**MODES[mode])
        assert set(net.static_subnets) == set(stages)
    before = [sample.new() for sample in batch[1]]
    found = net.predict(*batch)
    on = 0
    for i, sample in enumerate(found):
        goes_on = float(small[i].pred_score.max()) < threshold
        expected = large[i] if goes_on else small[i]
        assert sample.subnet == str(stages[goes_on])
        assert sample.number == i
        torch.testing.assert_close(
            sample.pred_score, expected.pred_score, rtol=1e-3, atol=1e-5
        )
        assert torch.equal(sample.pred_label, expected.pred_label)
        on += goes_on
    assert on == 3
    # The samples that were given are as before, and so is the network.
    assert [list(s.all_items()) for s in batch[1]] == [
        list(s.all_items()) for s in before
    ]
    assert nets.same(nets.outputs(net.predict(*batch)), nets.outputs(found))
    net.use(stages[0])
    single = net.predict(*batch)
    assert {sample.subnet for sample in single} == {str(stages[0])}
    for sample, expected in zip(single, small):
        assert torch.equal(sample.pred_label, expected.pred_label)


@pytest.fixture
def parts(request):
    """A network, and a cascade in which three of eight images go on."""
    origin, bank = nets.network('classifier', request)
    sharpen(origin)
    batch = batch_of(origin)
    _, _, threshold = by_hand(origin, bank, (B, A), batch)
    return (
        SwitchableNetwork(origin, bank),
        cascade_of((B, A), threshold),
        batch,
    )


def subnets(samples):
    return [sample.subnet for sample in samples]


def test_none_or_all_go_on(parts):
    net, cascade, batch = parts
    net.use(replace(cascade, threshold=0.0))
    assert set(subnets(net.predict(*batch))) == {str(B)}
    net.use(replace(cascade, threshold=1.1))
    found = net.predict(*batch)
    assert set(subnets(found)) == {str(A)}
    net.use(A)
    expected = nets.outputs(net.predict(*batch))
    for name, value in nets.outputs(found).items():
        torch.testing.assert_close(value, expected[name])


def test_equal_to_the_threshold_stays_and_nan_goes_on(parts, monkeypatch):
    net, cascade, batch = parts
    scores = torch.full((8, 4), 0.1)
    scores[:, 1] = torch.linspace(0.5, 0.85, 8)
    scores[6, 2] = float('nan')
    task = net._origin.task
    monkeypatch.setattr(task, 'probabilities', lambda *_: scores)
    # In single precision, all of these three would be equal.
    exact = float(scores[2, 1])
    for threshold, stays in ((exact, 1), (exact + 1e-9, 0), (exact - 1e-9, 1)):
        net.use(replace(cascade, threshold=threshold))
        found = subnets(net.predict(*batch))
        assert found[2] == str((A, B)[stays])
        assert found[:2] == [str(A)] * 2 and found[6] == str(A)
        assert [found[i] for i in (3, 4, 5, 7)] == [str(B)] * 4


def test_between_calls_the_network_is_the_first_one(parts):
    net, cascade, batch = parts
    net.use(cascade)
    seen = []
    net.model.head.register_forward_hook(
        lambda *_: seen.append(net.model.slim_state.width)
    )
    net.predict(*batch)
    assert seen == [B.width, A.width]
    assert net.model.slim_state.width == B.width

    def fail(*_):
        if net.model.slim_state.width == A.width:
            raise MemoryError

    net.model.head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        net.predict(*batch)
    assert net.model.slim_state.width == B.width and net.current is cascade


def test_handles_and_threads(parts):
    """Handles begin with the cascade; each thread has its own."""
    net, cascade, batch = parts
    net.use(cascade)
    expected = {cascade: nets.outputs(net.predict(*batch))}
    for subnet in (A, B):
        net.use(subnet)
        expected[subnet] = nets.outputs(net.predict(*batch))
    net.use(cascade)
    handles = [net.handle() for _ in range(3)]
    assert [handle.current for handle in handles] == [cascade] * 3
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number):
        handle, wrong = handles[number], 0
        for i in range(9):
            choice = (cascade, A, B)[(number + i) % 3]
            handle.use(choice)
            result = nets.outputs(handle.predict(*batch))
            wrong += not nets.same(result, expected[choice])
        return wrong

    try:
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(work, range(3))) == [0, 0, 0]
    finally:
        sys.setswitchinterval(before)
    assert net.current is cascade


def test_static_subnets_that_are_kept(parts):
    net, cascade, batch = parts
    for do in (
        lambda: net.make_static(limit=1),
        lambda: net.make_static([A], limit=1),
    ):
        net.use(cascade)
        with pytest.raises(UsageError, match='2 subnets .* limit=1 are kept'):
            do()
        assert net.static_subnets == [] and net.current is cascade
    net.use(A)
    net.make_static(limit=1)
    with pytest.raises(UsageError, match='runs 2 subnets, but make_static'):
        net.use(cascade)
    assert net.current == A and net.static_subnets == [A]
    net.make_static(limit=2, fuse_bn=False)
    net.use(cascade)
    assert net.static_subnets == [B, A]
    static = net.predict(*batch)
    net.slice()
    assert net.static_subnets == [] and net.current is cascade
    assert subnets(net.predict(*batch)) == subnets(static)
    # Named ones are kept rather than those that are active.
    net.make_static([A, '0.25x-16'], limit=2)
    assert net.static_subnets == [Subnet(0.25, 16), A]
    assert subnets(net.predict(*batch)) == subnets(static)


def test_a_calibration_is_followed(parts):
    net, cascade, batch = parts
    net.use(replace(cascade, threshold=1.1))
    before = nets.outputs(net.predict(*batch))
    statistics = net._bank[str(B)]
    images = torch.rand(8, 3, 32, 32) * 99
    given = [dict(inputs=images, data_samples=batch[1])]
    net._calibrate(given, B, False)
    assert net._stages[0].statistics is not statistics
    net.use(replace(cascade, threshold=0.0))
    after = nets.outputs(net.predict(*batch))
    assert not nets.same(before, after)
    net._calibrate(given, net.current, False)  # of both


@pytest.mark.parametrize(
    'stages, message',
    [
        ((B, Subnet(0.6, 24)), 'subnet 0.6x-24 has no batch-norm statistics'),
        ((Subnet(0.1, 16), A), 'outside of the trained'),
        ((B, Subnet(1.0, 48)), 'above the full 32'),
    ],
)
def test_an_error_changes_nothing(parts, stages, message):
    net, cascade, batch = parts
    net.use(cascade)
    before = nets.outputs(net.predict(*batch))
    with pytest.raises(UsageError, match=message):
        net.use(replace(cascade, stages=stages))
    assert net.current is cascade
    assert nets.same(nets.outputs(net.predict(*batch)), before)


def test_networks_that_have_none(request):
    origin, bank = nets.network('detector', request)
    net = SwitchableNetwork(origin, bank)
    net.use(cascade_of(stages_of('detector'), 0.5))
    with pytest.raises(UsageError, match='no cascade can run: this network'):
        net.predict(*nets.full_batch(origin))


@pytest.fixture
def net(request):
    """A deployed network whose table has two cascades."""
    file = nets.adaptive_file('classifier', request)
    table, small = file.table, Subnet(0.25, 16)
    cascades = [
        Cascade((small, A), 0.9, 820.0, 1800, table.metric, 89.0),
        Cascade((B, A), 0.99, 990.0, 1900, table.metric, 89.5),
    ]
    table = QueryTable(
        table.entries,
        table.metric,
        table.task,
        table.full,
        cascades=cascades,
    )
    return AdaptiveModel(replace(file, table=table))


def test_budgets(net):
    """The full network costs 1000 and has 90.0; 0.75x-32 700 and 87.0."""
    first, second = net.table.cascades
    for budgets, expected in (
        (dict(mean_macs=700), Subnet(0.75, 32)),
        (dict(mean_macs=819), Subnet(0.25, 16)),
        (dict(mean_macs=820), first),
        (dict(mean_macs=990), second),
        (dict(mean_macs=990, macs=1850), first),
        (dict(mean_macs=990, macs=1799), B),
        (dict(mean_macs=1000), A),
        (dict(macs=990), B),  # of any image, as ever
    ):
        assert net.set_budget(**budgets) == net.current == expected
    for budgets, message in (
        (dict(mean_macs=699), 'least is mean_macs=700 of 0.75x-32'),
        (dict(mean_macs=990, macs=600), 'the least is .* macs=700 of 0.75x'),
        (dict(mean_macs=0), 'budget mean_macs=0: use a positive number'),
        (dict(mean_macs=990, params=9), 'mean_macs goes with macs, the worst'),
        (dict(mean_macs=990, latency_ms=9), 'mean_macs goes with macs'),
        (dict(mean_macs=990, device='cpu'), 'not known, leave device out'),
        (dict(mean_macs=990, energy_mj=9), 'what else cascades take is not'),
        (dict(mean_macs=990, prefer='cheapest'), 'leave prefer out'),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            net.set_budget(**budgets)
        assert '\n' not in str(caught.value)
        assert net.current == B


@pytest.mark.parametrize(
    'kind, message',
    [
        ('classifier', 'the table has no cascades: build it again'),
        ('slow', 'the table has no cascades: build it again'),
        ('detector', 'the table has no cascades'),
    ],
)
def test_a_table_without_cascades(kind, message, request):
    net = AdaptiveModel(nets.adaptive_file(kind, request))
    before = net.current
    with pytest.raises(UsageError, match=message):
        net.set_budget(mean_macs=900)
    assert net.current == before


@pytest.mark.parametrize('copied', [copy.deepcopy, copy.copy, None])
def test_copies(net, copied):
    cascade = net.use(net.table.cascades[0])
    other = (
        copied(net) if copied else pickle.loads(pickle.dumps(net))  # noqa: S301
    )
    assert other.current == cascade and other.table.cascades
    batch = batch_of(net.model)
    found, expected = other.predict(*batch), net.predict(*batch)
    assert subnets(found) == subnets(expected)
    assert nets.same(nets.outputs(found), nets.outputs(expected))
    other.use(A)
    assert net.current == cascade


def test_saved_and_loaded(net, tmp_path):
    net.use(net.table.cascades[0])
    net.save(tmp_path / 'a.pth')
    again = AdaptiveModel.from_file(tmp_path / 'a.pth')
    assert again.table.cascades == net.table.cascades
    assert again.current == A  # as every loaded network


def test_a_deadline_chooses_among_subnets(net):
    cascade = net.use(net.table.cascades[0])
    frame = torch.zeros(1, 3, 32, 32)
    with net.latency_controller(target_ms=1e6) as controller:
        assert net.current == controller.current == A
        (sample,) = net(frame)
        assert sample.subnet == str(A)
        with pytest.raises(UsageError, match='cannot be chosen while'):
            net.use(cascade)
        with pytest.raises(UsageError, match='cannot be chosen while'):
            net.set_budget(mean_macs=990)
    assert net.current is cascade


def test_latencies_are_of_subnets(net):
    cascade = net.use(net.table.cascades[0])
    found = measure_latencies(net, repeats=1)
    assert set(found) == {entry.subnet for entry in net.table.entries}
    assert net.current is cascade


def test_lists_are_split_into_batches(net):
    net.use(net.table.cascades[0])
    images = [
        torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
        for _ in range(5)
    ]
    assert len(net(images, batch_size=2)) == 5


@pytest.mark.parametrize('format', ['onnx', 'torch', 'static', 'stock'])
def test_no_export(net, format, tmp_path):
    skip_without_export(format)
    ending = dict(onnx='onnx', torch='pt2').get(format, 'pth')
    with pytest.raises(UsageError, match='is no network of its own: export'):
        export_subnet(
            net, net.table.cascades[0], format, tmp_path / f'a.{ending}'
        )
    assert list(tmp_path.iterdir()) == []
