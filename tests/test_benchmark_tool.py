"""tools/benchmark.py: what is compared is equal, and figures are right."""

import copy
import json
import sys
import time
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mutualnet_mm import UsageError
from mutualnet_mm.benchmarks import BENCHMARKS, children, turns
from mutualnet_mm.benchmarks.calibrate import precise_bn, spread
from mutualnet_mm.benchmarks.pictures import batches, crop, jpegs
from mutualnet_mm.benchmarks.published_loop import PublishedLoop
from mutualnet_mm.benchmarks.subjects import (
    build_subject,
    narrow_networks,
    open_config,
    training_batch,
)
from mutualnet_mm.benchmarks.turns import ratio, take_turns
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.models import static_model
from mutualnet_mm.sampler import GivenSubnets
from mutualnet_mm.slimmable.channels import ROUNDING

ROOT = Path(__file__).parents[1]
TINY = """
_base_ = ['mutualnet_mm::classification/mutual-{name}_in1k.py']
model = dict(
    mutual=dict(resolution=(64, 48)),
    backbone=dict({backbone}),
    head=dict(num_classes=10, in_channels={channels}))
"""
NETWORKS = {
    'mobilenet-v1_8xb128': ('widen_factor=0.25', 256),
    'mobilenet-v2_8xb128': ('widen_factor=0.25', 1280),
    'resnet50_8xb64': ('stem_channels=16, base_channels=16', 512),
}


@pytest.fixture
def tiny(tmp_path):
    """Write a config with less of everything; return its path."""
    pytest.importorskip('mmpretrain')

    def write(name='mobilenet-v1_8xb128'):
        backbone, channels = NETWORKS[name]
        path = tmp_path / 'tiny.py'
        text = TINY.format(name=name, backbone=backbone, channels=channels)
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture
def tool():
    spec = spec_from_file_location('tool', ROOT / 'tools/benchmark.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, monkeypatch, tmp_path):
    """Run the tool in this process; return what it writes."""
    threads = torch.get_num_threads()

    def run(*options):
        out = tmp_path / 'out.json'
        command = ['benchmark.py', *map(str, options), '--json', str(out)]
        monkeypatch.setattr(sys, 'argv', command)
        tool.main()
        return json.loads(out.read_text())

    yield run
    torch.set_num_threads(threads)


@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', NETWORKS)
def test_the_published_loop_has_the_gradients_of_a_step(tiny, name):
    """So both do the same work: those of all subnets, summed."""
    model = build_subject(open_config(tiny(name))).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    plan = model.sampler.sample(0)
    assert len({s.width for s in plan.values()}) == 4
    model.sampler = GivenSubnets(model.sampler, plan)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(
        4, 3, 64, 64, generator=generator, dtype=torch.float64
    )
    samples = training_batch(model, 4)['data_samples']
    labels = torch.tensor([3, 1, 4, 1])
    for sample, label in zip(samples, labels):
        sample.set_gt_label(label)
    loop = PublishedLoop(
        narrow_networks(model, plan, training_batch(model, 2)), plan
    )
    model.train()
    losses = model(images, samples, mode='loss')
    model.parse_losses(losses)[0].backward()
    expected = {n: p.grad for n, p in model.named_parameters()}
    loop.net.train()
    loop.step([images], labels)
    found = dict(loop.net.named_parameters())
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(
            found[key].grad, gradient, rtol=1e-6, atol=1e-9
        )
    copies = [
        F.interpolate(
            images,
            (s.resolution, s.resolution),
            mode='bilinear',
            antialias=True,
        )
        if s.resolution < 64
        else images
        for s in plan.values()
    ]
    loop.step(copies, labels)  # as a loader gives them
    for key, gradient in expected.items():
        torch.testing.assert_close(
            found[key].grad, gradient, rtol=1e-6, atol=1e-9
        )


def test_other_layers_are_refused():
    net = torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1))
    with pytest.raises(UsageError, match='0: the published.*not for Conv3d'):
        PublishedLoop({'full': net}, {})


def test_precise_bn_is_the_mean_over_batches(tiny):
    """Of the first layer, which sees the pictures themselves."""
    model = build_subject(open_config(tiny())).eval()
    subnet = model.space.check('0.5x-64')
    pictures = jpegs(6)
    loaded = list(batches(pictures, 64, 2))
    net = static_model(model, subnet)
    found = precise_bn(net, model, subnet, copy.deepcopy(loaded))
    name, first = next(
        (n, m)
        for n, m in net.named_modules()
        if isinstance(m, torch.nn.Conv2d)
    )
    maps = []
    for batch in loaded:
        images = torch.stack(batch['inputs']).float().flip(1)  # BGR to RGB
        mean, std = (
            model.data_preprocessor.mean,
            model.data_preprocessor.std,
        )
        maps.append(first((images - mean) / std).detach())
    norm = next(iter(found))
    assert found[norm][0] == pytest.approx(
        torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0), rel=1e-4
    )
    assert found[norm][1] == pytest.approx(
        torch.stack([m.transpose(0, 1).flatten(1).var(1) for m in maps]).mean(
            0
        ),
        rel=1e-4,
    )


def test_spread():
    assert spread(list(range(10)), 4) == [0, 3, 6, 9]
    assert spread([1, 2], 64) == [1, 2]


def test_pictures():
    pytest.importorskip('mmpretrain')  # whose pipeline is a batch's
    found = jpegs(2)
    assert crop(found[0], 32).shape == (32, 32, 3)
    assert (crop(found[0], 32) != crop(found[1], 32)).any()
    sizes = [len(b['inputs']) for b in batches(found * 3, 32, 4)]
    assert sizes == [4, 2]


def test_ratios_are_those_of_pairs():
    found = ratio('a / b', [2.0, 4.0, 60.0], [1.0, 2.0, 20.0], 1.5)
    assert (found.value, found.low, found.high) == (2.0, 2.0, 3.0)
    assert found.goal == 1.5


def test_turns_are_taken_by_all(monkeypatch):
    """With a clock of which each call takes what is said here."""
    now, order = [0.0], []
    monkeypatch.setattr(turns, 'process_time', lambda: now[0])
    monkeypatch.setattr(turns, 'uses_wall_time', lambda device: False)

    def call(name, seconds):
        order.append(name)
        now[0] += seconds

    calls = dict(a=lambda: call('a', 0.5), b=lambda: call('b', 2.0))
    times = take_turns(calls, 20, warm_up=2)
    assert times == dict(a=[0.5] * 20, b=[2.0] * 20)
    assert order.count('a') == order.count('b') == 22
    assert {'a', 'b'} == set(order[::2])  # who begins a round


@pytest.mark.subprocess
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='no Linux')
def test_memory_of_a_child():
    prepare_cpu()
    torch.ones(32 << 20)  # is free memory of this process afterwards

    def work():
        before = torch.ones(2 << 20)  # 8 MiB, which count

        def call():
            large = torch.ones(8 << 20)  # 32 MiB, which are gone at the end
            time.sleep(0.5)  # what is gone at once may be missed
            del large
            return before

        return call

    found = children.in_child(work)
    assert 35 < found['mebibytes'] < 60
    assert found['seconds'] >= 0

    def fail():
        raise ZeroDivisionError

    with pytest.raises(UsageError, match='a measured process failed'):
        children.in_child(fail)


SMALL = {
    'infer': ['--batch-sizes', 1, '--rounds', 1],
    'data': ['--pictures', 1, '--rounds', 1],
    'cost': ['--step', 0.75, '--rounds', 1],
    'step': ['--batch-size', 2, '--rounds', 1],
    'calibrate': [
        '--subnets',
        '2',
        '--num-batches',
        '1',
        '--batch-size',
        '2',
        '--rounds',
        '1',
    ],
    'table': ['--subnets', '2', '--pictures', '4', '--rounds', '1'],
    'memory': ['--batch-size', 2, '--rounds', 1],
    'grow': ['--batch-size', 1, '--pictures', 4, '--rounds', 1],
    'rounding': ['--widths', 1, 0.5, '--rounds', 1],
}


def check_rounding(found):
    """The full network is whole whatever the divisor, narrow ones are not."""
    macs = found['settings']['macs']
    assert set(macs) == {
        *('1x, paper', '0.5x, paper', '0.5x, 1'),
        *('0.5x, 8', '0.5x, 16', '0.5x, 32'),
    }
    assert macs['0.5x, 1'] < macs['0.5x, 16'] < macs['0.5x, 32']
    assert set(ROUNDING) == {'paper', 'hardware'}


@pytest.mark.sweep(3)
@pytest.mark.parametrize('name', SMALL)
def test_subjects(run, tiny, name):
    """Each runs, and what it compares is found equal there."""
    options = SMALL[name]
    if name != 'data':
        options = [*options, '--network', tiny()]
    found = run(name, *options)
    assert found['subject'] == name and found['rounds'] == 1
    assert found['machine'] and found['torch'] == torch.__version__
    assert found['clock'] == 'processor'
    if name == 'rounding':
        check_rounding(found)
    for one in found['ratios']:
        assert 0 < one['low'] <= one['value'] <= one['high']
    if name == 'step':
        assert set(found['milliseconds']) == {
            *('mutual', 'published', 'full', 'min', 'rand1', 'rand2'),
        }
        assert 1 < found['settings']['arithmetic'] < 4
    if name == 'calibrate':
        assert found['settings']['difference'] < 1e-2


def test_scale(run, tiny):
    """Two processes hand over all parameters, once, whatever the subnets."""
    found = run(
        *('scale', '--network', tiny(), '--batch-size', 2, '--rounds', 1),
        *('--processes', 1, 2, '--steps', 1),
    )
    model = build_subject(open_config(tiny()))
    size = sum(4 * p.numel() for p in model.parameters())
    settings = found['settings']
    assert settings['bytes'] == {'mutual': size, 'full': size}
    assert set(settings['reductions'].values()) == {1}
    for kind in ('mutual', 'full'):
        for number in (1, 2):
            for what in ('step', 'alone', 'reduction', 'processor'):
                assert found['milliseconds'][f'{what}, {kind}, {number}'] > 0
    named = {one['what']: one['value'] for one in found['ratios']}
    assert named['bytes, mutual / full'] == 1
    assert {*named} >= {'mutual step of 2 / predicted'}


@pytest.mark.parametrize('network, size', [('resnet50', 3), ('slow', 2)])
def test_loading(run, network, size):
    if network == 'slow':
        pytest.importorskip('av')
        pytest.importorskip('decord')
    else:
        pytest.importorskip('mmpretrain')
    found = run(
        *('loading', '--network', network, '--pictures', size, '--rounds', 1)
    )['settings']
    assert found['milliseconds_of_one'] > 0
    assert 10_000 < found['bytes_of_a_file'] < 5_000_000


def test_layers_of_given_channels(run):
    found = run('rounding', '--channels', 8, 16, '--rounds', 1)
    macs = found['settings']['macs']
    assert macs['3x3, 8'] == 9 * 8 * 8 * 28 * 28
    assert macs['depthwise, 16'] == 9 * 16 * 28 * 28
    assert macs['1x1, 16'] == 16 * 16 * 28 * 28
    named = {one['what'] for one in found['ratios']}
    assert 'a MAC of 3x3, 8 / of 3x3, 16' in named


def test_the_largest_width_is_rounded_where_it_is_not_whole(run, tiny):
    found = run(
        *('rounding', '--network', tiny(), '--widths', 0.75, 0.5),
        *('--divisors', 8, 32, '--rounds', 1),
    )
    macs = found['settings']['macs']
    assert len(macs) == 6 and macs['0.75x, 8'] < macs['0.75x, 32']


@pytest.mark.nightly
def test_load(run):
    found = run('load', '--rounds', 1)
    assert set(found['milliseconds']) == {'adaptive', 'static', 'stock'}
    assert len(found['ratios']) == 4


ERRORS = [
    ('load --network slow', "network 'slow': how its stock class"),
    ('data --rounds 0', '--rounds 0: use 1 or more'),
    ('loading --pictures 0', '--pictures 0: use 1 or more'),
    ('rounding --channels 8 0', '--channels 0: use 1 or more'),
    ('loading --network mask-rcnn', 'loading takes no detectors'),
    ('grow --network mask-rcnn', 'grow takes classifiers alone'),
    ('scale --processes 2 4', 'processes .2, 4.: give 1 first'),
    ('scale --processes 1', 'processes .1.: give 1 first, then others'),
    ('data --threads 0', '--threads 0: use 1 or more'),
    ('data --json no/where.json', "make the folder '.*no' first"),
]


@pytest.mark.parametrize('options,message', ERRORS)
def test_errors(options, message, tool, monkeypatch):
    if 'mask-rcnn' in options:
        pytest.importorskip('mmdet')  # its config is read first
    monkeypatch.setattr(sys, 'argv', ['benchmark.py', *options.split()])
    with pytest.raises(SystemExit, match=message):
        tool.main()


def test_all_have_a_parser(tool, monkeypatch, capsys):
    for name in BENCHMARKS:
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', name, '--help'])
        with pytest.raises(SystemExit):
            tool.parse_args()
        assert '--json' in capsys.readouterr().out
