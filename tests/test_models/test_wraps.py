import copy
import pickle
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

import mutualnet_mm
from mutualnet_mm import ConfigError
from mutualnet_mm.models.backbones import SlimmableMixin

SMALL = dict(depth=18, stem_channels=8, base_channels=8)


@pytest.fixture
def resnet(enter_scope):
    enter_scope('mmpretrain')
    from mmpretrain.models import ResNet

    return ResNet


def build(wraps):
    return MODELS.build(
        dict(type='mutualnet_mm.Slimmable', wraps=wraps, **SMALL)
    )


def test_a_class_is_made_once(resnet):
    named, scoped, given = map(build, ('ResNet', 'mmpretrain.ResNet', resnet))
    assert type(named) is type(scoped) is type(given)
    assert type(named).__name__ == 'SlimmableResNet'
    assert type(named).__module__.startswith('mutualnet_mm.')
    assert isinstance(named, resnet) and isinstance(named, SlimmableMixin)


def test_a_class_by_its_path(resnet, tmp_path, monkeypatch):
    """Of a package of one's own, which has no registry; as lazy configs do."""
    package = tmp_path / 'pathless'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'nets.py').write_text(
        'from mmpretrain.models import ResNet\nclass Own(ResNet): pass\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    made = build('pathless.nets.Own')
    assert isinstance(made, resnet)
    assert type(made).stock_class.__module__ == 'pathless.nets'
    with pytest.raises(ConfigError, match='pathless.nets.Other.*is not'):
        build('pathless.nets.Other')
    with pytest.raises(ConfigError, match="No module named 'pathful'"):
        build('pathful.nets.Own')


def test_the_same_name_in_two_projects(resnet, enter_scope):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    from mmdet.models import ResNet

    ours = MODELS.build(
        dict(type='mutualnet_mm.Slimmable', wraps='ResNet', depth=18)
    )
    assert isinstance(ours, ResNet) and not isinstance(ours, resnet)
    assert isinstance(build('mmpretrain.ResNet'), resnet)


def test_pickle(resnet):
    net = build('ResNet')
    net.eval()
    again = pickle.loads(pickle.dumps(net))
    assert type(again) is type(net)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x)[0], net(x)[0])
    states = {
        id(m.slim_state) for m in again.modules() if hasattr(m, 'slim_state')
    }
    assert len(states) == 1


@pytest.mark.subprocess
def test_pickle_of_a_whole_model_in_another_process(
    build_classifier, tmp_path
):
    model = build_classifier().eval()
    file = tmp_path / 'model.pkl'
    file.write_bytes(pickle.dumps(model))
    x = torch.ones(1, 3, 64, 64)
    expected = model(x, mode='tensor')[0].sum().item()
    code = (
        'import sys, pickle, torch, mutualnet_mm\n'
        'model = pickle.load(open(sys.argv[1], "rb"))\n'
        'x = torch.ones(1, 3, 64, 64)\n'
        'print(type(model).__name__, model(x, mode="tensor")[0].sum().item())'
    )
    root = mutualnet_mm.__path__[0]
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code, str(file)],
        cwd=f'{root}/..',
        capture_output=True,
        text=True,
        check=True,
    )
    name, value = done.stdout.split()
    assert name == 'MutualImageClassifier'
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_new_style_config(resnet, tmp_path):
    """``wraps`` takes a class, and ``type`` the function."""
    file = tmp_path / 'config.py'
    file.write_text(
        'from mmpretrain.models import ResNet\n'
        'from mutualnet_mm.models import Slimmable\n'
        'model = dict(type=Slimmable, wraps=ResNet, depth=18)\n'
    )
    net = MODELS.build(Config.fromfile(file).model)
    assert isinstance(net, resnet) and isinstance(net, SlimmableMixin)


class Plain(nn.Module):
    def __init__(self, channels=16):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)

    def forward(self, x):
        return (self.conv(x),)


def test_a_plain_module(enter_scope):
    """Classes that no registry knows can be wrapped as well."""
    net = MODELS.build(dict(type='mutualnet_mm.Slimmable', wraps=Plain))
    assert isinstance(net, Plain)
    with mutualnet_mm.slimmable.active_width(net, 0.5):
        assert net(torch.randn(1, 3, 8, 8))[0].shape[1] == 8


@pytest.mark.parametrize(
    'copied',
    [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))],
    ids=['deepcopy', 'pickle'],
)
def test_copies_of_compiled_networks_run_themselves(resnet, copied):
    net = build(resnet)
    net.eval()
    net.compile(backend='eager')
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = net(x)[0]
        other = copied(net)
        for parameter in other.parameters():
            parameter.zero_()
        assert torch.equal(net(x)[0], before)
        assert other(x)[0].abs().max() == 0  # not the original's
