"""tools/sort_channels.py: what it writes, replaces and refuses."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from programs import run_program
from torch import nn

pytest.importorskip('mmpretrain')
TOOL = Path(__file__).parents[1] / 'tools/sort_channels.py'
STOCK = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=128),
)
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mutualnet_mm'], allow_failed_imports=False)
model = dict(
    type='mutualnet_mm.MutualLearning',
    wraps='ImageClassifier',
    mutual=dict(width_range=(0.5, 1.0), resolution=(64, 48)),
    backbone=dict(
        type='mutualnet_mm.Slimmable', wraps='ResNet', depth=18,
        stem_channels=16, base_channels=16),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=4, in_channels=128))
"""


@pytest.fixture
def stock(enter_scope):
    """A stock classifier of random weights and statistics."""
    enter_scope('mmpretrain')
    net = MODELS.build(STOCK)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return net


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Write a checkpoint and run the tool in the folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').write_text(CONFIG)

    def act(content=None, *arguments, out='sorted.pth'):
        if content is not None:
            torch.save(content, 'trained.pth')
        given = ('a.py', 'trained.pth', '--out', out, *arguments)
        return run_program(TOOL, *given)

    return act


def scores(net, state, images):
    net.load_state_dict(state)  # strictly
    net.double().eval()
    with torch.no_grad():
        return net(images.double(), mode='tensor')


@pytest.mark.parametrize('by', ['bn', 'l1'])
def test_what_is_written(stock, run, by):
    """The stock network's weights in another order, and its notes alone."""
    state = copy.deepcopy(stock.state_dict())
    notes = dict(epoch=3, dataset_meta=dict(classes=['a', 'b', 'c', 'd']))
    content = dict(
        meta=notes,
        state_dict=state,
        ema_state_dict=state,
        optimizer=dict(state={0: torch.ones(2)}),
        param_schedulers=[],
        message_hub={},
    )
    done = run(content, '--by', by)
    assert done.returncode == 0, done.stderr
    assert '720 channels sorted, in 12 coupled groups' in done.stdout
    assert 'load_from=sorted.pth' in done.stdout.splitlines()[-1]
    found = torch.load('sorted.pth', weights_only=True)
    assert found.keys() == {'meta', 'state_dict'}
    assert found['meta'] == dict(notes, sorted_by=by)
    assert found['state_dict'].keys() == state.keys()
    images = torch.randn(2, 3, 64, 64)
    expected = scores(stock, state, images)
    after = scores(stock, found['state_dict'], images)
    torch.testing.assert_close(after, expected)
    rows = found['state_dict']['backbone.layer1.0.conv1.weight']
    values = rows.abs().sum((1, 2, 3))
    if by == 'bn':
        values = found['state_dict']['backbone.layer1.0.bn1.weight']
    assert (values.diff() <= 1e-6).all()
    assert not (state['backbone.layer1.0.bn1.weight'].diff() <= 0).all()


def test_forms_of_checkpoints(stock, run):
    """Of a parallel wrapper, or of weights alone; with others beside."""
    state = stock.state_dict()
    wrapped = {f'module.{key}': value for key, value in state.items()}
    for content in (dict(state_dict=wrapped), wrapped, state):
        done = run({**content}, out='a.pth')
        assert done.returncode == 0, done.stderr
        found = torch.load('a.pth', weights_only=True)['state_dict']
        assert found.keys() == state.keys()
    more = {**state, 'neck.extra': torch.ones(2)}
    done = run(dict(state_dict=more), out='b.pth')
    assert 'left out, which the config has not: neck.extra' in done.stdout
    assert torch.load('b.pth', weights_only=True)['state_dict'].keys() == (
        state.keys()
    )


def test_an_older_result_is_replaced_whole_or_not_at_all(
    stock, run, tmp_path, monkeypatch
):
    def half(content, file):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    (tmp_path / 'sorted.pth').write_text('old')
    with monkeypatch.context() as patch:
        patch.setattr('mutualnet_mm.models.sorting.save_tensors', half)
        done = run(stock.state_dict())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: 'sorted.pth' cannot be written: No space left on device"
    )
    assert (tmp_path / 'sorted.pth').read_text() == 'old'
    assert run().returncode == 0
    assert 'state_dict' in torch.load('sorted.pth', weights_only=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {'a.py', 'trained.pth', 'sorted.pth'}


def with_other(key, value):
    return lambda state: {**state, key: value}


@pytest.mark.parametrize(
    'change, settings, message',
    [
        (dict, ['--by', 'l2'], "argument --by: invalid choice: 'l2'"),
        (None, [], "checkpoint 'trained.pth' does not exist"),
        (
            with_other('head.fc.weight', torch.ones(2, 3)),
            [],
            "checkpoint 'trained.pth' does not fit the config: "
            'head.fc.weight is (2, 3), the model has (4, 128)',
        ),
        (
            with_other('head.fc.bias', torch.full((4,), torch.inf)),
            [],
            "head.fc.bias of checkpoint 'trained.pth' is not finite",
        ),
        (dict, ['--out', 'trained.pth'], 'is the checkpoint itself'),
        (dict, ['--out', 'no/sorted.pth'], 'make the folder'),
    ],
)
def test_one_line_errors(stock, run, tmp_path, change, settings, message):
    content = None if change is None else change(stock.state_dict())
    done = run(content, *settings)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'sorted.pth').exists()
    if content is not None:
        kept = torch.load('trained.pth', weights_only=True)
        assert kept.keys() == content.keys()


def test_a_stock_config(stock, run, tmp_path):
    """It has no subnets to sort for."""
    (tmp_path / 'a.py').write_text(
        f"default_scope = 'mmpretrain'\nmodel = {STOCK}\n"
    )
    done = run(stock.state_dict())
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: model.type='ImageClassifier' has no subnets: use "
        "type='mutualnet_mm.MutualLearning'"
    )


def test_a_sorted_network_is_a_start(stock, run, tmp_path):
    """It loads into the adaptive model, whose subnets may be tested."""
    from mutualnet_mm.apis import build_model, load_config
    from mutualnet_mm.models.checkpoints import load_trained

    assert run(stock.state_dict()).returncode == 0
    model = build_model(load_config('a.py', stages=()))
    assert load_trained(model, 'sorted.pth') == []
    model.check_trained([model.space.smallest])
