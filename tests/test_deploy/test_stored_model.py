"""The parts of an adaptive file fit together, or one line says what not."""

import copy
from pathlib import Path

import adaptive_networks as nets
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.deploy.stored_model import stored_model
from mutualnet_mm.models.checkpoints import load_strictly
from mutualnet_mm.slimmable import slim_batch_norms

pytest.importorskip('mmpretrain')
SUBNET = '0.5x-24'
LAYER = 'backbone.layer1.0.bn1'  # of 16 channels, 8 of them at this width
_made = []


@pytest.fixture
def file(request):
    """A file that a test may spoil."""
    if not _made:
        _made.append(nets.adaptive_file('classifier', request))
    return copy.deepcopy(_made[0])


def load(file, device='cpu'):
    return stored_model(file, Config.fromstring(file.config, '.py'), device)


def test_all_of_the_file_is_there(file):
    file.dataset_meta = dict(classes=['cat', 'dog'])
    model, bank = load(file)
    state = model.state_dict()
    assert state.keys() == file.weights.keys()
    assert all(torch.equal(state[k], v) for k, v in file.weights.items())
    assert not any(module.training for module in model.modules())
    assert model.dataset_meta == dict(classes=['cat', 'dog'])
    assert bank.keys() == file.statistics.keys()
    for subnet, statistics in file.statistics.items():
        assert bank[subnet].keys() == statistics.keys()
        for name, pair in statistics.items():
            assert all(map(torch.equal, pair, bank[subnet][name]))


def test_weights_are_made_once(file, monkeypatch):
    """The network is built without any; the file's take their place."""
    found = []

    def remember(model, *args, **kwargs):
        found.extend(p.is_meta for p in model.parameters())
        return load_strictly(model, *args, **kwargs)

    monkeypatch.setattr(
        'mutualnet_mm.deploy.stored_model.load_strictly', remember
    )
    model, _ = load(file)
    assert found and all(found)
    for name, parameter in model.named_parameters():
        assert parameter.data_ptr() == file.weights[name].data_ptr(), name


def test_on_another_device(file, monkeypatch):
    """One that has no memory stands in for a GPU."""
    monkeypatch.setattr(
        'mutualnet_mm.deploy.stored_model.check_device', torch.device
    )
    model, bank = load(file, 'meta')
    tensors = [*model.state_dict().values()]
    for statistics in bank.values():
        tensors += [tensor for pair in statistics.values() for tensor in pair]
    assert {tensor.device.type for tensor in tensors} == {'meta'}
    assert {t.device.type for t in file.weights.values()} == {'cpu'}


@pytest.mark.parametrize('device', ['gpu', 'cuda:99', 'mps:7'])
def test_devices_that_are_not_there(file, device):
    message = f"device='{device}' cannot be used: "
    with pytest.raises(UsageError, match=message) as caught:
        load(file, device)
    assert '\n' not in str(caught.value)


def pair(length):
    return torch.zeros(length), torch.ones(length)


SPOILT = {
    'another rounding': (
        lambda file: setattr(file, 'rounding', 'hardware'),
        r"of widths \(0.25, 1.0\) with rounding='hardware', but .* 'paper'",
    ),
    'another width': (
        lambda file: setattr(file, 'width', (0.5, 1.0)),
        r'of widths \(0.5, 1.0\) .* builds \(0.25, 1.0\)',
    ),
    'weights of another size': (
        lambda file: file.weights.update({'head.fc.bias': torch.zeros(7)}),
        r"^the adaptive file .*'torch': .* does not fit .*: head.fc.bias is",
    ),
    'a weight too few': (
        lambda file: file.weights.pop('head.fc.bias'),
        'does not fit .*: it has no head.fc.bias',
    ),
    'a weight too many': (
        lambda file: file.weights.update(other=torch.zeros(1)),
        'does not fit .*: it has other, which',
    ),
    'statistics of more channels': (
        lambda file: file.statistics[SUBNET].update({LAYER: pair(17)}),
        f'damaged: its statistics of {SUBNET} do not fit layer {LAYER!r}',
    ),
    'a mean and a variance that differ': (
        lambda file: file.statistics[SUBNET].update(
            {LAYER: (torch.zeros(8), torch.ones(16))}
        ),
        f'statistics of {SUBNET} do not fit layer {LAYER!r}',
    ),
    'a weight that is not finite': (
        lambda file: file.weights['head.fc.bias'].fill_(float('nan')),
        'head.fc.bias of the adaptive file is not finite',
    ),
    'a mean that is not finite': (
        lambda file: file.statistics[SUBNET][LAYER][0].fill_(float('inf')),
        f'statistics of {SUBNET} do not fit layer {LAYER!r}',
    ),
    'a variance below zero': (
        lambda file: file.statistics[SUBNET][LAYER][1].fill_(-1.0),
        f'statistics of {SUBNET} do not fit layer {LAYER!r}',
    ),
    'statistics of another layer': (
        lambda file: file.statistics[SUBNET].update({'head.bn': pair(8)}),
        "do not fit layer 'head.bn'",
    ),
    'a stock model': (
        lambda file: setattr(
            file,
            'config',
            "default_scope='mmpretrain'\nmodel=dict(type='ImageClassifier', "
            "backbone=dict(type='ResNet', depth=18))",
        ),
        "'ImageClassifier' has no subnets: use type='mutualnet_mm.Mut",
    ),
}


@pytest.mark.parametrize('case', sorted(SPOILT))
def test_parts_that_do_not_fit(file, case):
    spoil, message = SPOILT[case]
    spoil(file)
    with pytest.raises(UsageError, match=message) as caught:
        AdaptiveModel(file)
    assert '\n' not in str(caught.value)


def test_statistics_of_a_layer_too_few(file):
    del file.statistics[SUBNET][LAYER]
    with pytest.raises(UsageError, match='damaged'):
        AdaptiveModel(file)


def rewrite(path, change):
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = {
    'missing': (Path.unlink, 'does not exist'),
    'truncated': (
        lambda path: path.write_bytes(path.read_bytes()[:-1000]),
        'is damaged, or not an adaptive.pth, which .*: BadZipFile',
    ),
    'a bit flipped': (flip_a_bit, 'is damaged, or not an adaptive.pth'),
    'a checkpoint': (
        lambda path: torch.save(dict(state_dict={}, meta={}), path),
        'is not an adaptive.pth: make one with mutualnet table',
    ),
    'a checkpoint with more than tensors': (
        lambda path: torch.save(dict(message_hub=HistoryBuffer()), path),
        'not an adaptive.pth, which mutualnet table makes of a checkpoint',
    ),
    'newer': (
        lambda path: rewrite(path, lambda c: c.update(schema=2, more=[])),
        'has schema 2, this release reads up to 1: update mutualnet_mm',
    ),
    'a newer table': (
        lambda path: rewrite(path, lambda c: c['table'].update(schema=9)),
        'the table of .* has schema 9.*: update mutualnet_mm',
    ),
    'no statistics': (
        lambda path: rewrite(path, lambda c: c.pop('statistics')),
        'is damaged: it has no statistics',
    ),
}


@pytest.mark.parametrize('case', sorted(FILES))
def test_files_that_cannot_be_used(file, tmp_path, case):
    path = tmp_path / 'adaptive.pth'
    file.save(path)
    spoil, message = FILES[case]
    spoil(path)
    with pytest.raises(UsageError, match=message) as caught:
        AdaptiveModel.from_file(path)
    assert str(path) in str(caught.value)
    assert '\n' not in str(caught.value)


def test_layers_are_those_of_the_network(file):
    """What the cases above rely on."""
    sizes = {n: m.num_features for n, m in slim_batch_norms(load(file)[0])}
    assert sizes[LAYER] == 16
    assert len(file.statistics[SUBNET][LAYER][0]) == 8


def test_nothing_that_training_alone_needs_is_looked_for(request):
    """Such as the weights that a backbone starts from."""
    file = nets.adaptive_file('classifier', request)
    cfg = Config.fromstring(file.config, '.py')
    cfg.model.backbone.init_cfg = dict(
        type='Pretrained', checkpoint='missing.pth'
    )
    cfg.load_from = 'missing.pth'
    model, _ = stored_model(file, cfg, 'cpu')
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, file.weights[name]), name


@pytest.mark.parametrize('given', ['adaptive.pth', Path('adaptive.pth'), None])
def test_a_path_in_place_of_a_file(given):
    with pytest.raises(UsageError, match='open adaptive.pth with .*from_file'):
        AdaptiveModel(given)
