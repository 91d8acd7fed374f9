"""Files that say what their layers get: as when traced, or refused."""

import copy
import json

import adaptive_networks as nets
import pytest
import torch
from mmengine.config import Config
from verified_once import NAMES, findings

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel
from mutualnet_mm.deploy.stored_model import find_channels, stored_model
from mutualnet_mm.export import load_static
from mutualnet_mm.export.checkpoint_file import save_static
from mutualnet_mm.slimmable import known, verify

pytest.importorskip('mmpretrain')
BACKBONES = {
    'added': {},
    'concatenated': dict(
        type='mutualnet_mm.Slimmable',
        wraps='DenseNet',
        arch=dict(growth_rate=8, depths=(2, 2), init_channels=16),
    ),
    'vectors': dict(
        type='mutualnet_mm.Slimmable',
        wraps='ConvNeXt',
        arch=dict(depths=[1, 1, 1, 1], channels=[16, 32, 32, 64]),
    ),
    'split': dict(
        type='mutualnet_mm.Slimmable',
        wraps='Res2Net',
        depth=50,
        scales=4,
        base_width=8,
    ),
    'heads': dict(
        type='mutualnet_mm.Slimmable',
        wraps='VisionTransformer',
        arch=dict(
            embed_dims=32, num_layers=1, num_heads=4, feedforward_channels=64
        ),
        img_size=64,
        patch_size=16,
        out_type='avg_featmap',
    ),
    'grouped': dict(
        type='mutualnet_mm.Slimmable',
        wraps='ResNeXt',
        depth=50,
        groups=4,
        width_per_group=8,
    ),
}


@pytest.fixture
def traces(monkeypatch):
    """Lists the networks that are traced."""
    found = []

    def find(net, x, original=verify.find_joints):
        found.append(net)
        return original(net, x)

    monkeypatch.setattr(verify, 'find_joints', find)
    for module in ('shared_width', 'backbones.slimmable'):  # nothing is kept
        monkeypatch.setattr(
            f'mutualnet_mm.models.{module}.verify_slicing',
            verify.verify_slicing,
        )
    return found


def files(kind, request):
    """A file without what was found, and one with it."""
    file = nets.adaptive_file(kind, request)
    return file, copy.copy(file).__class__(
        **dict(vars(file), channels=find_channels(file.config))
    )


def build(file):
    return stored_model(file, Config.fromstring(file.config, '.py'), 'cpu')[0]


@pytest.mark.parametrize('kind', nets.KINDS)
def test_networks_are_as_when_they_are_traced(kind, request, traces):
    pytest.importorskip(nets.KINDS[kind][0])
    older, newer = files(kind, request)
    del traces[:]
    before = AdaptiveModel(older)
    assert len(traces) >= 2  # the backbone, and with what follows it
    del traces[:]
    after = AdaptiveModel(newer)
    assert not traces
    assert findings(after.model) == findings(before.model)
    joints = [net.model.backbone.slim_joints for net in (before, after)]
    assert joints[0] == joints[1]
    batch = nets.full_batch(before.model)
    for subnet in nets.KINDS[kind][1]:
        predicted = []
        for net in (before, after):
            net.use(subnet)
            inputs = batch[0].clone(), copy.deepcopy(batch[1])
            predicted.append(nets.outputs(net.predict(*inputs)))
        assert predicted[0] and nets.same(*predicted), subnet


@pytest.mark.parametrize('name', BACKBONES)
def test_every_kind_of_joint_is_kept(name, classifier_config, traces):
    model = classifier_config(dict(resolution=(64, 48)))
    if BACKBONES[name]:
        model['backbone'] = BACKBONES[name]
    if name == 'heads':
        model['mutual'] = dict(resolution=(64,))
    if name in ('heads', 'vectors'):
        model['neck'] = None
    channels = dict(
        concatenated=32, vectors=64, split=2048, heads=32, grouped=2048
    )
    model['head']['in_channels'] = channels.get(name, 128)
    config = Config(dict(default_scope='mmpretrain', model=model)).pretty_text
    text = find_channels(config)
    before = build_from(config)
    del traces[:]
    after = build_from(config, text)
    assert not traces
    assert findings(after) == findings(before)
    assert after.backbone.slim_joints == before.backbone.slim_joints
    kept = findings(before)
    if name in ('concatenated', 'split'):
        assert any(layer.get('slim_inputs') for layer in kept)
    elif name == 'vectors':
        assert any(layer.get('slim_vectors') for layer in kept)
    assert {key for layer in kept for key in layer} <= set(NAMES)


def build_from(config, text=None):
    from mutualnet_mm.deploy.stored_model import _build

    found = None
    if text is not None:
        found = known.KnownChannels.read(text)
        assert found.is_of(config)
    with known.known_channels(found):
        return _build(Config.fromstring(config, '.py'))


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(
        'mutualnet_mm.deploy.stored_model.print_log',
        lambda text, **_: found.append(text),
    )
    return found


def test_another_config_or_code_is_traced(
    request, traces, warnings, monkeypatch
):
    _, file = files('classifier', request)
    expected = findings(build(file))
    del traces[:]
    edited = copy.copy(file)
    edited.config += '\n# an edit'
    assert not warnings
    assert findings(build(edited)) == expected
    assert (
        len(warnings) == 1
        and 'config in the adaptive file was edited' in (warnings[0])
    )
    assert len(traces) == 2
    for name, value in (('__version__', '9.9'), ('_FORMAT', 99)):
        del traces[:]
        with monkeypatch.context() as patch:
            patch.setattr(known, name, value)
            assert findings(build(file)) == expected
        assert len(traces) == 2, name
    del traces[:]
    # A class whose source is another one now.
    source = tuple(
        (known.Path(__file__).read_bytes() + extra) for extra in (b'', b' ')
    )
    with monkeypatch.context() as patch:
        patch.setattr(known.Path, 'read_bytes', lambda path: source[1])
        assert findings(build(file)) == expected
    assert len(traces) == 2


def test_a_network_of_no_file_is_not_described(request, monkeypatch):
    file = nets.adaptive_file('classifier', request)
    monkeypatch.setattr(known.Path, 'is_file', lambda path: False)
    assert find_channels(file.config) is None


def test_networks_beside_it_are_traced(request, traces):
    """What is known is of one network: the next one is traced."""
    _, file = files('classifier', request)
    found = known.KnownChannels.read(file.channels)
    del traces[:]
    cfg = Config.fromstring(file.config, '.py')
    with known.known_channels(found):
        first = stored_model(
            AdaptiveFile(**dict(vars(file), channels=None)), cfg, 'cpu'
        )[0]
    assert len(traces) == 2 and first.backbone.slim_joints is not None


def spoilt(change):
    def spoil(text):
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return spoil


LAYER = 'backbone.layer1.0.conv1'
DAMAGED = {
    'no JSON': (lambda text: text[:-3], 'is damaged'),
    'no object': (lambda text: '3', 'is damaged'),
    'nothing in it': (lambda text: '{}', 'is damaged'),
    'no layers': (spoilt(lambda c: c.pop('layers')), 'is damaged'),
    'no rule of that number': (
        spoilt(lambda c: c['layers'][LAYER].__setitem__(0, 99)),
        'is damaged',
    ),
    'a rule that is none': (
        spoilt(lambda c: c['rules'].__setitem__(0, [True, -1.0])),
        'is damaged',
    ),
    'channels that are no number': (
        spoilt(
            lambda c: c['layers'][LAYER].__setitem__(1, [['9', 9, 0, 9, 0, 1]])
        ),
        'is damaged',
    ),
    'parts of no channels': (
        spoilt(
            lambda c: c['layers'][LAYER].__setitem__(1, [[16, 0, 0, 0, 0, 1]])
        ),
        'is damaged',
    ),
    'a layer too few': (
        spoilt(lambda c: c['layers'].pop(LAYER)),
        f'does not fit layer {LAYER!r}',
    ),
    'a layer too many': (
        spoilt(lambda c: c['layers'].update({'other': [0, None, None, '']})),
        "does not fit layer 'other'",
    ),
    'an input of another size': (
        spoilt(
            lambda c: c['layers'][LAYER].__setitem__(1, [[9, 9, 0, 9, 0, 1]])
        ),
        f'does not fit layer {LAYER!r}',
    ),
    'an output of another size': (
        spoilt(
            lambda c: c['layers'][LAYER].__setitem__(2, [[9, 9, 0, 9, 0, 1]])
        ),
        f'does not fit layer {LAYER!r}',
    ),
    'a vector too many': (
        spoilt(lambda c: c['vectors'].update({LAYER: {}})),
        f'does not fit layer {LAYER!r}',
    ),
}


@pytest.mark.parametrize('what', DAMAGED)
def test_what_does_not_fit_is_refused(what, request):
    spoil, message = DAMAGED[what]
    _, file = files('classifier', request)
    build(file)
    file.channels = spoil(file.channels)
    with pytest.raises(UsageError, match=message) as caught:
        build(file)
    assert '\n' not in str(caught.value)


def test_the_checksum_covers_it(request, tmp_path):
    older, newer = files('classifier', request)
    path = tmp_path / 'adaptive.pth'
    newer.save(path)
    assert AdaptiveFile.load(path).channels == newer.channels
    content = torch.load(path)
    content['channels'] = content['channels'].replace('true', 'false')
    torch.save(content, path)
    with pytest.raises(UsageError, match='is damaged: weights, statistics'):
        AdaptiveFile.load(path)
    older.save(path)
    assert AdaptiveFile.load(path).channels is None
    content = torch.load(path)
    del content['channels']  # as files were before it was kept
    torch.save(content, path)
    AdaptiveModel.from_file(path).save(path)  # says it from now on
    assert AdaptiveFile.load(path).channels == newer.channels


@pytest.mark.parametrize('fuse_bn', [False, True])
@pytest.mark.parametrize('kind', nets.KINDS)
def test_static_networks_are_as_when_they_are_traced(
    kind, fuse_bn, request, traces, tmp_path, monkeypatch
):
    pytest.importorskip(nets.KINDS[kind][0])
    net = AdaptiveModel(nets.adaptive_file(kind, request))
    subnet = nets.KINDS[kind][1][1]
    path, _ = save_static(net, subnet, tmp_path / 'a.pth', fuse_bn=fuse_bn)
    del traces[:]
    with monkeypatch.context() as patch:
        # Nor is any other pass.
        patch.setattr('mutualnet_mm.slimmable.static.run_on_meta', None)
        patch.setattr('mutualnet_mm.models.size_checks.run_on_meta', None)
        after = load_static(path)
    assert not traces
    content = torch.load(path)
    assert not any(p.is_meta for p in after.parameters())
    channels = content['meta'].pop('channels')
    torch.save(content, path)  # as files were before it was kept
    before = load_static(path)
    assert len(traces) >= 2
    assert repr(after) == repr(before)
    assert after.state_dict().keys() == before.state_dict().keys()
    batch = nets.full_batch(net.model)
    found = []
    for model in (before, after):
        inputs = batch[0].clone(), copy.deepcopy(batch[1])
        with torch.no_grad():
            found.append(nets.outputs(model(*inputs, mode='predict')))
    assert found[0] and nets.same(*found)
    # Sizes of another subnet are refused.
    content['meta']['channels'] = spoilt(halve)(channels)
    torch.save(content, path)
    with pytest.raises(UsageError, match="layer '.*' does not make"):
        load_static(path)


def halve(content):
    channels, _ = content['sizes']
    name = next(name for name, pair in channels.items() if pair[1] > 1)
    channels[name][1] //= 2


def test_static_weights_of_another_type(request, tmp_path):
    """They become what the config says, as ever."""
    net = AdaptiveModel(nets.adaptive_file('classifier', request))
    path, _ = save_static(net, '0.5x-24', tmp_path / 'a.pth')
    content = torch.load(path)
    for name, weight in content['state_dict'].items():
        if weight.is_floating_point():
            content['state_dict'][name] = weight.half()
    torch.save(content, path)
    model = load_static(path)
    assert {p.dtype for p in model.parameters()} == {torch.float}
    for name, weight in content['state_dict'].items():
        assert torch.equal(model.state_dict()[name], weight.to(torch.float))


def test_what_a_network_at_hand_knows_is_taken(request, traces):
    file = nets.adaptive_file('classifier', request)
    expected = find_channels(file.config)
    model = build(file)
    del traces[:]
    assert find_channels(file.config, model) == expected
    assert not traces
    # One that has another layer does not tell.
    model.extra = copy.deepcopy(model.backbone.conv1)
    assert find_channels(file.config, model) == expected
    assert len(traces) == 2


def test_numbers_are_drawn_as_without(request):
    file = nets.adaptive_file('classifier', request)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    find_channels(file.config)
    assert torch.equal(torch.rand(2), expected)
