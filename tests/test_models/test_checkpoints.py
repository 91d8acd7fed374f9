"""``Pretrained`` loads strictly, or says in one line why not."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from mutualnet_mm import UsageError
from mutualnet_mm.models.checkpoints import (
    check_checkpoint,
    check_finite,
    check_resumed,
)

SMALL = dict(depth=18, stem_channels=16, base_channels=16)


@pytest.fixture
def build(enter_scope):
    enter_scope('mmpretrain')

    def make(*init_cfg, **kwargs):
        settings = dict(SMALL, **kwargs)
        if init_cfg:
            settings['init_cfg'] = init_cfg[0]
        return MODELS.build(
            dict(type='mutualnet_mm.SlimmableResNet', **settings)
        )

    return make


@pytest.fixture
def source(enter_scope):
    """State dict of a stock backbone with random numbers everywhere."""
    enter_scope('mmpretrain')
    torch.manual_seed(7)
    state = MODELS.build(dict(type='ResNet', **SMALL)).state_dict()
    return {
        k: torch.rand_like(v) if v.is_floating_point() else v + 5
        for k, v in state.items()
    }


@pytest.fixture
def save(tmp_path):
    def write(content):
        path = tmp_path / 'weights.pth'
        torch.save(content, path)
        return str(path)

    return write


def prefixed(state, prefix):
    return {prefix + k: v for k, v in state.items()}


def assert_arrived(net, source):
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, source[name]), name


@pytest.mark.parametrize(
    'form', ['classifier', 'wrapped', 'bare', 'bare in state_dict']
)
def test_forms_of_checkpoints(build, source, save, form):
    head = {'head.fc.weight': torch.ones(4, 128)}
    content = {
        'classifier': lambda: dict(
            meta={}, state_dict={**prefixed(source, 'backbone.'), **head}
        ),
        'wrapped': lambda: dict(
            state_dict=prefixed(source, 'module.backbone.')
        ),
        'bare': lambda: dict(source, **{'fc.weight': torch.ones(4, 128)}),
        'bare in state_dict': lambda: dict(state_dict=source),
    }[form]()
    net = build(dict(type='Pretrained', checkpoint=save(content)))
    net.init_weights()
    assert_arrived(net, source)


def test_prefix(build, source, save):
    path = save({**prefixed(source, 'net.body.'), 'backbone.x': torch.ones(1)})
    for prefix in ('net.body', 'net.body.'):
        init = dict(type='Pretrained', checkpoint=path, prefix=prefix)
        net = build(init)
        net.init_weights()
        assert_arrived(net, source)


def test_other_initialisation_beside_it(build, source, save):
    path = save(source)
    net = build(
        [
            dict(type='Constant', layer='Conv2d', val=3.0),
            dict(type='Pretrained', checkpoint=path),
        ]
    )
    net.init_weights()
    assert_arrived(net, source)


def test_no_checkpoint_means_from_scratch(build, monkeypatch):
    """With the stock class's own initialisation, and not silently."""
    told = []
    monkeypatch.setattr(
        'mutualnet_mm.models.checkpoints.print_log',
        lambda message, **kwargs: told.append(message),
    )
    nets = [
        build(dict(type='Pretrained', checkpoint=None)),
        MODELS.build(dict(type='ResNet', **SMALL)),
    ]
    for net in nets:
        torch.manual_seed(3)
        net.init_weights()
    ours, stock = (net.state_dict() for net in nets)
    for name, tensor in stock.items():
        assert torch.equal(ours[name], tensor), name
    assert len(told) == 1 and 'from scratch' in told[0]


def test_own_initialisation_is_used(build):
    net = build([dict(type='Constant', layer='Conv2d', val=3.0)])
    net.init_weights()
    assert (net.conv1.weight == 3).all()


def missing_key(source):
    source.pop('layer1.0.conv1.weight')


def wrong_shape(source):
    source['conv1.weight'] = torch.ones(32, 3, 7, 7)


@pytest.mark.parametrize(
    'damage, expected',
    [
        (missing_key, 'layer1.0.conv1.weight'),
        (wrong_shape, 'conv1.weight'),
        (dict.clear, 'conv1.weight'),
    ],
)
def test_what_does_not_fit(build, source, save, damage, expected):
    damage(source)
    path = save(dict(state_dict=prefixed(source, 'backbone.')))
    with pytest.raises(UsageError) as error:
        build(dict(type='Pretrained', checkpoint=path)).init_weights()
    text = str(error.value)
    assert expected in text and path in text and '\n' not in text


@pytest.mark.parametrize('kind', ['missing', 'garbage', 'empty', 'list'])
def test_files_that_cannot_be_read(build, tmp_path, kind):
    path = tmp_path / 'weights.pth'
    if kind == 'garbage':
        path.write_bytes(b'no checkpoint\n' * 20)
    elif kind == 'empty':
        path.touch()
    elif kind == 'list':
        torch.save([1, 2], path)
    with pytest.raises(UsageError) as error:
        build(dict(type='Pretrained', checkpoint=str(path))).init_weights()
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'content, said',
    [
        (b'', 'it is empty'),
        (b'<!DOCTYPE html>\n<html>', "begins with '<!DOCTYPE html>', as no"),
        (b'version https://git-lfs.github.com', 'fetch it again'),
        (torch.nn.Linear(2, 2), 'save the model'),
        (torch.jit.script(torch.nn.ReLU()), 'is a TorchScript program'),
    ],
    ids=['empty', 'page', 'pointer', 'module', 'program'],
)
def test_what_is_no_checkpoint(build, tmp_path, content, said):
    """In words of our own: torch's advise to run whatever the file says."""
    path = tmp_path / 'weights.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, torch.jit.ScriptModule):
        torch.jit.save(content, path)
    else:
        torch.save(content, path)
    with pytest.raises(UsageError) as error:
        build(dict(type='Pretrained', checkpoint=str(path))).init_weights()
    assert said in str(error.value) and '\n' not in str(error.value)
    assert 'weights_only' not in str(error.value)


def test_a_misspelt_setting(build, source, save):
    init = dict(type='Pretrained', checkpoint=save(source), srot='bn')
    with pytest.raises(UsageError, match="has 'srot', which is none of its"):
        build(init)


def test_checkpoint_of_a_mutually_trained_classifier(
    build, build_classifier, save
):
    model = build_classifier()
    path = save(dict(state_dict=model.state_dict()))
    net = build(dict(type='Pretrained', checkpoint=path))
    net.init_weights()
    assert_arrived(net, model.backbone.state_dict())


def test_weights_arrive_in_a_detector(detector_config, save):
    pytest.importorskip('mmdet')
    stock = MODELS.build(
        dict(type='mmdet.ResNet', depth=18, base_channels=16)
    ).state_dict()
    source = {
        k: torch.rand_like(v) if v.is_floating_point() else v
        for k, v in stock.items()
    }
    path = save(dict(state_dict=prefixed(source, 'backbone.')))
    init = dict(type='Pretrained', checkpoint=path)
    model = MODELS.build(detector_config(init_cfg=init))
    model.init_weights()
    assert_arrived(model.backbone, source)


def test_weights_that_the_backbone_does_not_have(
    build, source, save, monkeypatch
):
    """As in files made from Caffe's, whose first layer has a bias."""
    told = []
    monkeypatch.setattr(
        'mutualnet_mm.models.checkpoints.print_log',
        lambda message, **kwargs: told.append(message),
    )
    path = save(dict(source, **{'conv1.bias': torch.ones(16)}))
    net = build(dict(type='Pretrained', checkpoint=path))
    net.init_weights()
    assert_arrived(net, source)
    assert 'conv1.bias' in told[-1] and 'ignored' in told[-1]


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite(build, source, save, value):
    """One of them makes every score of the network wrong."""
    source['layer1.0.bn1.running_var'][0] = value
    path = save(dict(state_dict=source))
    net = build(dict(type='Pretrained', checkpoint=path))
    message = r'layer1.0.bn1.running_var of .*weights.pth.* is not finite'
    with pytest.raises(UsageError, match=message):
        net.init_weights()
    net = build()
    resumed = Config(dict(load_from=path, resume=True, work_dir='x'))
    started = Config(dict(load_from=path, work_dir='x'))
    for check in (
        lambda: check_checkpoint(path, net),
        lambda: check_resumed(resumed, net),
        lambda: check_resumed(started, net),
    ):
        with pytest.raises(UsageError, match=message):
            check()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize(
    'dtype', [torch.float, torch.double, torch.half, torch.bfloat16]
)
@pytest.mark.parametrize('place', [0, 500, 999])
def test_any_value_that_is_not_finite(value, dtype, place):
    top = torch.finfo(dtype).max
    weight = torch.linspace(-1, 1, 1000).to(dtype)
    weight[1], weight[2] = top, -top
    others = dict(empty=torch.empty(0), steps=torch.tensor(3))
    check_finite(dict(others, weight=weight), 'a file')
    weight[place] = value
    with pytest.raises(UsageError, match='^weight of a file is not finite'):
        check_finite(dict(others, weight=weight), 'a file')


def test_a_flipped_bit(build, source, save):
    path = save(dict(state_dict=source))
    whole = Path(path).read_bytes()
    at = whole.index(source['conv1.weight'].numpy().tobytes())
    Path(path).write_bytes(
        whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    )
    assert torch.load(path)['state_dict'].keys() == source.keys()
    net = build(dict(type='Pretrained', checkpoint=path))
    with pytest.raises(UsageError, match='weights.pth.* cannot be read: chec'):
        net.init_weights()


def test_a_dictionary_of_this_and_that(build, source, save):
    path = save(dict(state_dict=dict(source, epoch=3)))
    net = build(dict(type='Pretrained', checkpoint=path))
    with pytest.raises(UsageError, match='weights.pth.* is not a checkpoint'):
        net.init_weights()
