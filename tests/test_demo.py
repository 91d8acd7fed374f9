"""The web demo: its predictions, and its page in a browser."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mutualnet_mm import Subnet
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel, count_macs
from mutualnet_mm.query_table import QueryTable, TableEntry

ROOT = Path(__file__).parents[1]
CLASSES = ['crane', 'dog', 'cat', 'crane', 'owl', 'fox']


@pytest.fixture(scope='module')
def tool():
    spec = spec_from_file_location('demo', ROOT / 'tools/demo.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_table(macs, task='classification', views=None):
    """Return the table of subnets by their MACs, each better than before."""
    entries = [
        TableEntry(
            Subnet.parse(subnet), cost, 44_370 * (i + 1), {'top1': 50.0 + i}
        )
        for i, (subnet, cost) in enumerate(sorted(macs.items(), key=_second))
    ]
    worse = TableEntry(
        Subnet(0.9, 16), max(macs.values()) - 1, 1, {'top1': 1.0}
    )
    full = max(map(Subnet.parse, macs), key=lambda s: (s.width, s.resolution))
    return QueryTable([*entries, worse], 'top1', task, full, views=views)


def _second(item):
    return item[1]


@pytest.fixture
def make_net():
    """Return a network of random weights whose outputs differ a lot."""

    def make(cfg, subnets, batches, classes, head, views=None):
        model = MODELS.build(cfg.model)
        model.init_weights()
        torch.nn.init.normal_(head(model).weight, std=0.1)
        macs = {s: count_macs(model, Subnet.parse(s)) for s in subnets}
        net = AdaptiveModel(
            AdaptiveFile(
                config=cfg.pretty_text,
                weights=model.state_dict(),
                statistics={},
                table=make_table(macs, model.task.name, views),
                width=(model.space.min_width, model.space.max_width),
                rounding=model.slim_state.rounding,
                calibration=dict(num_batches=len(batches), dataloader=None),
                dataset_meta=dict(classes=classes) if classes else {},
            )
        )
        primary = str(model.sampler.primary)  # has its running ones
        net.calibrate(batches, [s for s in subnets if s != primary])
        return net

    return make


@pytest.fixture(scope='module')
def picture(tmp_path_factory):
    """File of a picture whose red and blue differ."""
    path = tmp_path_factory.mktemp('picture') / 'picture.png'
    image = np.random.default_rng(0).integers(0, 90, (32, 32, 3), np.uint8)
    image[8:20, 4:24, 2] += 160
    assert cv2.imwrite(str(path), image)
    return str(path)


@pytest.fixture
def make_classifier(make_net, classifier_config):
    def make(load=True):
        from mmpretrain.structures import DataSample

        model = classifier_config(dict(resolution=(32, 16)))
        model['head'].update(num_classes=len(CLASSES))
        steps = [dict(type='LoadImageFromFile')] * load
        cfg = dict(
            default_scope='mmpretrain',
            model=dict(
                model,
                data_preprocessor=dict(
                    mean=[120, 110, 100], std=[60, 50, 40], to_rgb=load
                ),
            ),
            test_dataloader=dict(
                dataset=dict(
                    type='CustomDataset' if load else 'CIFAR100',
                    pipeline=[*steps, dict(type='PackInputs')],
                )
            ),
        )
        batch = dict(
            inputs=torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8),
            data_samples=[DataSample() for _ in range(8)],
        )
        subnets = ['1.0x-32', '0.5x-32', '0.5x-16']
        return make_net(
            Config(cfg), subnets, [batch], CLASSES, lambda m: m.head.fc
        )

    return make


def budget_of(net, subnet):
    (entry,) = [e for e in net.table.entries if str(e.subnet) == subnet]
    return entry.macs


def assert_scores(prediction, scores, names):
    assert list(prediction) == names
    assert list(prediction.values()) == pytest.approx(scores.tolist())


@pytest.mark.parametrize(
    'subnet, budget, params',
    [('1.0x-32', 10**12, '133.1 k'), ('0.5x-16', 0, '44.4 k')],
)
def test_classes(tool, make_classifier, picture, subnet, budget, params):
    net = make_classifier()
    budget = budget or budget_of(net, subnet)
    prediction, entry, facts = tool.Demo(net).look(picture, budget)
    assert str(entry.subnet) == subnet == facts['subnet'][0]
    assert facts['parameters'][0] == params
    assert float(facts['time'][0].removesuffix(' ms')) > 0
    assert facts['time'][1] == 'median of 5, warmed up'
    other = net.handle()
    other.use(subnet)
    (sample,) = other(picture)
    names = ['crane (0)', 'dog', 'cat', 'crane (3)', 'owl', 'fox']
    assert_scores(prediction, sample.pred_score, names)


def test_data_sets_of_arrays_get_rgb(tool, make_classifier, picture):
    """As mmpretrain's CIFAR100 has them."""
    net = make_classifier(load=False)
    prediction, entry, _ = tool.Demo(net).look(picture, 10**12)
    assert net.current == entry.subnet
    bgr = cv2.imread(picture)
    right, wrong = net([bgr[..., ::-1], bgr])
    best = max(prediction.values())
    assert best == pytest.approx(right.pred_score.max().item(), abs=1e-6)
    assert abs(best - wrong.pred_score.max().item()) > 0.01


@pytest.mark.parametrize('load', [True, False])
@pytest.mark.parametrize('content', [b'', b'404 not found'])
def test_broken_files(tool, make_classifier, tmp_path, load, content):
    """In one line, which the page shows."""
    file = tmp_path / 'broken.png'
    file.write_bytes(content)
    demo = tool.Demo(make_classifier(load=load))
    with pytest.raises(tool.UsageError, match=r"'.*broken.png' cannot be rea"):
        demo.look(str(file), 10**12)


def test_visitors_do_not_disturb_each_other(tool, make_classifier, picture):
    net = make_classifier()
    demo = tool.Demo(net)
    budgets = [entry.macs for entry in net.table.pareto]
    alone = [demo.look(picture, macs)[:2] for macs in budgets]
    assert len({str(scores) for scores, _ in alone}) == len(budgets) == 3
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(demo.look, [picture] * 30, budgets * 10))
    assert [f[:2] for f in found] == alone * 10


def test_facts_alone(tool, make_classifier):
    net = make_classifier()
    demo = tool.Demo(net)
    prediction, entry, facts = demo.look(None, budget_of(net, '0.5x-32'))
    assert prediction is None and str(entry.subnet) == '0.5x-32'
    assert facts['time'][0] == '–' and facts['top1'][0] == '51'
    text = tool.write_facts({'<a>': ('1 & 2', 'why')})
    assert '<b>1 &amp; 2</b>' in text and '<a>' not in text
    figure = tool.draw_curve(net.table, entry)
    best, marked = figure.axes[0].lines
    macs = [entry.macs for entry in net.table.pareto]
    assert best.get_xydata().tolist() == list(
        map(list, zip(macs, [50, 51, 52]))
    )
    assert marked.get_xydata().tolist() == [[entry.macs, 51.0]]


def test_tasks_of_others(tool, make_classifier):
    """By ``register_task``: nothing is known of what their MACs are of."""
    demo = tool.Demo(make_classifier())
    demo.task = 'ranking'
    assert demo.look(None, 10**12)[2]['MACs'][1] == 'of one input'


@pytest.mark.parametrize('seed', range(4))
def test_each_of_the_best_subnets_can_be_reached(tool, seed):
    rng = np.random.default_rng(seed)
    costs = rng.choice(10 ** (4 + seed), rng.integers(1, 9), replace=False) + 9
    macs = {f'{(i + 1) / 10:g}x-32': int(c) for i, c in enumerate(costs)}
    demo = tool.Demo.__new__(tool.Demo)
    demo.table = make_table(macs)
    least, most, step = demo.budgets()
    found = {
        demo.table.best(macs=budget).subnet
        for budget in range(least, most + 1, step)
    }
    assert found == {entry.subnet for entry in demo.table.pareto}
    assert all(budget % step == 0 for budget in (least, most))


@pytest.fixture
def detector(make_net, detector_config, load_batch):
    cfg = dict(
        default_scope='mmdet',
        model=detector_config(),
        test_dataloader=dict(
            dataset=dict(
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='Resize', scale=(107, 64), keep_ratio=True),
                    dict(type='PackDetInputs'),
                ]
            )
        ),
    )
    return make_net(
        Config(cfg),
        ['1.0x-64', '0.5x-48'],
        [load_batch((0, 1))],
        ['box', 'triangle'],
        lambda model: model.roi_head.bbox_head.fc_cls,
    )


def test_objects(tool, detector, tiny_coco, monkeypatch):
    from mmdet.visualization import DetLocalVisualizer

    file = str(tiny_coco / 'val0.png')
    rgb = cv2.imread(file)[..., ::-1]
    demo = tool.Demo(detector)
    subnet = '0.5x-48'
    np.random.seed(0)
    found, entry, facts = demo.look(file, budget_of(detector, subnet))
    assert str(entry.subnet) == subnet
    assert facts['MACs'][1] == 'of backbone and neck'
    other = detector.handle()
    other.use(subnet)
    (sample,) = other(file)
    scores = sample.pred_instances.scores
    assert facts['objects'][0] == str(int((scores > 0.3).sum())) != '0'
    np.random.seed(0)  # masks of a class have slightly different colours
    stock = DetLocalVisualizer()
    stock.dataset_meta = dict(classes=['box', 'triangle'])
    stock.add_datasample('', rgb, sample, draw_gt=False, pred_score_thr=0.3)
    assert np.array_equal(found, stock.get_image())
    assert (found != rgb).any()
    # Nothing left to draw: the picture as it is.
    monkeypatch.setattr(tool, 'SCORE', 1.0)
    found, _, facts = demo.look(file, budget_of(detector, subnet))
    assert facts['objects'][0] == '0' and np.array_equal(found, rgb)


@pytest.fixture
def recognizer(make_net, enter_scope, slow_model):
    enter_scope('mmaction')
    from mmaction.structures import ActionDataSample

    cfg = dict(
        default_scope='mmaction',
        model=slow_model(resolution=(32, 16), frames=(4, 2)),
        test_dataloader=dict(
            dataset=dict(
                type='VideoDataset',
                pipeline=[
                    dict(type='OpenCVInit'),
                    dict(
                        type='SampleFrames',
                        clip_len=4,
                        frame_interval=2,
                        num_clips=2,
                        test_mode=True,
                    ),
                    dict(type='OpenCVDecode'),
                    dict(type='Resize', scale=(-1, 40)),
                    dict(type='CenterCrop', crop_size=32),
                    dict(type='FormatShape', input_format='NCTHW'),
                    dict(type='PackActionInputs'),
                ],
            )
        ),
    )
    batch = dict(
        inputs=[
            torch.randint(0, 256, (1, 3, 4, 32, 32), dtype=torch.uint8)
            for _ in range(4)
        ],
        data_samples=[ActionDataSample() for _ in range(4)],
    )
    return make_net(
        Config(cfg),
        ['1.0x-32-4', '0.5x-16-2'],
        [batch],
        None,
        lambda model: model.cls_head.fc_cls,
        views=2,
    )


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp('clip') / 'clip.avi'
    code = cv2.VideoWriter_fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), code, 15, (64, 48))
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    still = np.random.default_rng(0).integers(0, 150, (48, 64, 3), np.uint8)
    for t in range(12):
        frame = still.copy()
        frame[10:30, 4 * t : 4 * t + 12, 2] += 100
        writer.write(frame)
    writer.release()
    return str(path)


@pytest.mark.parametrize('subnet', ['1.0x-32-4', '0.5x-16-2'])
def test_actions(tool, recognizer, clip, subnet):
    budget = budget_of(recognizer, subnet)
    prediction, entry, facts = tool.Demo(recognizer).look(clip, budget)
    assert str(entry.subnet) == subnet
    assert facts['MACs'][1] == 'of each of 2 views'
    other = recognizer.handle()
    other.use(subnet)
    (sample,) = other(clip)
    names = ['class 0', 'class 1', 'class 2']
    assert_scores(prediction, sample.pred_score, names)


def test_slow_predictions_run_less_often(
    tool, make_classifier, picture, monkeypatch
):
    monkeypatch.setattr(tool, 'ENOUGH_MS', 0.001)
    _, _, facts = tool.Demo(make_classifier()).look(picture, 10**12)
    assert facts['time'][1] == 'the first run'


@pytest.fixture
def run_main(tool, monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['demo.py', *map(str, arguments)])
        with pytest.raises(SystemExit) as error:
            tool.main()
        return str(error.value)

    return run


def test_one_line_errors(run_main, make_classifier, tmp_path, monkeypatch):
    message = run_main(tmp_path / 'no.pth')
    assert message.endswith("no.pth' does not exist") and '\n' not in message
    file = tmp_path / 'adaptive.pth'
    make_classifier().save(file)
    message = run_main(file, '--port', 7860, 'no.png')
    assert message == "error: example 'no.png' does not exist"
    with monkeypatch.context() as context:
        context.setitem(sys.modules, 'gradio', None)
        message = run_main(file)
    assert message == (
        'error: gradio is missing: pip install "mutualnet_mm[demo]"'
    )
    pytest.importorskip('gradio')
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        message = run_main(file, '--port', port)
    assert message == (
        f'error: cannot serve at 127.0.0.1:{port}: use another --port, or a '
        '--host of this machine'
    )
    for options in (('--port', 99999), ('--host', '192.0.2.1')):
        message = run_main(file, *options)
        assert message.endswith('--port, or a --host of this machine')


# Runs the tool and notes every address that it looks up or connects to.
WATCHED = """
import runpy, sys

def watch(event, arguments):
    if event in ('socket.connect', 'socket.getaddrinfo'):
        place = arguments[event == 'socket.connect']
        with open({log!r}, 'a') as file:
            print(place[0] if isinstance(place, tuple) else place, file=file)

sys.addaudithook(watch)
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name='__main__')
"""


@pytest.fixture
def served(make_classifier, tmp_path):
    """Address of a server, and a file of all that it connects to."""
    pytest.importorskip('gradio')
    make_classifier().save(tmp_path / 'adaptive.pth')
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    log, argv = tmp_path / 'connections.txt', [str(ROOT / 'tools/demo.py')]
    argv += [str(tmp_path / 'adaptive.pth'), '--port', str(port)]
    process = subprocess.Popen(
        [sys.executable, '-c', WATCHED.format(log=str(log), argv=argv)],
        env=dict(
            os.environ,
            PYTHONPATH=str(ROOT),
            PYTHONWARNINGS='ignore',
            GRADIO_TEMP_DIR=str(tmp_path / 'uploads'),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()  # once it serves
        assert line == f'http://127.0.0.1:{port}, Ctrl-C ends it\n'
        yield line.split(',')[0], log
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        uploads = (tmp_path / 'uploads').rglob('*')
        assert not [path for path in uploads if path.is_file()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    names = ('chromium', 'chromium-browser', 'google-chrome')
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip('no chromium or google-chrome to open the page with')
    options = ['headless', 'no-sandbox', 'disable-gpu', 'disable-quic']
    options += ['no-first-run', 'disable-background-networking']
    options += ['disable-component-update', 'disable-sync']
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=path, args=[f'--{name}' for name in options]
        )
        yield browser
        browser.close()


@pytest.mark.subprocess
def test_page(browser, served, picture, tmp_path):
    address, log = served
    page = browser.new_page(viewport=dict(width=1280, height=900))
    page.set_default_timeout(20_000)
    requests = []
    page.on('request', lambda request: requests.append(request.url))

    def facts(subnet):
        """All of them, once that subnet is shown."""
        page.locator('[data-fact=subnet] b', has_text=subnet).wait_for()
        shown = page.locator('[data-fact]').all()
        return {
            fact.get_attribute('data-fact'): fact.locator('b').inner_text()
            for fact in shown
        }

    page.goto(address)
    before = facts('1.0x-32')
    assert before['time'] == '–'
    page.set_input_files('input[type=file]', picture)
    page.locator('[data-fact=time] b', has_text=' ms').wait_for()
    large = facts('1.0x-32')
    assert large == dict(before, time=large['time'])
    assert page.get_by_text('crane').count()
    page.locator('input[type=range]').press('Home')
    small = facts('0.5x-16')
    assert small['time'].endswith(' ms')
    assert small['MACs'] != large['MACs']
    assert small['parameters'] == '44.4 k' != large['parameters']
    (tmp_path / 'broken.svg').write_text('no image')
    page.set_input_files('input[type=file]', tmp_path / 'broken.svg')
    page.get_by_text('cannot be read').first.wait_for()

    hosts = {url.split('/')[2] for url in requests if url.startswith('http')}
    assert {f'http://{host}' for host in hosts} == {address}
    page.close()
    assert set(log.read_text().split()) <= {'127.0.0.1', 'localhost', 'None'}
