"""The static form of every network equals the network it is taken from."""

import copy
import io
import pickle

import pytest
import torch
from mmengine.registry import MODELS
from passes import on_running_statistics

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_params
from mutualnet_mm.models import static, static_model
from mutualnet_mm.slimmable import SlimLayer, slim_batch_norms

REGNET = dict(w0=16, wa=16.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0)
RESNET = dict(base_channels=16, stem_channels=16)
BN = dict(norm_cfg=dict(type='BN'))
# Backbones of classifiers: type, settings, output channels.
CLASSIFIERS = {
    'mobilenet-v1': ('MobileNetV1', dict(widen_factor=0.25), 256),
    'mobilenet-v2': ('MobileNetV2', dict(widen_factor=0.5), 1280),
    'mobilenet-v3': ('MobileNetV3', dict(arch='small'), 576),
    'resnet-18': ('ResNet', dict(RESNET, depth=18), 128),
    'resnet-50': ('ResNet', dict(RESNET, depth=50), 512),
    'resnet-cifar': ('ResNet_CIFAR', dict(RESNET, depth=18), 128),
    'wide-resnet': ('WideResNet', dict(depth=10, widen_factor=2), 128),
    'vgg': ('VGG', dict(BN, depth=11), 512),
    'regnet': ('RegNet', dict(arch=REGNET), 128),
}
# Of recognizers: 3D networks that no fixture makes.
RECOGNIZERS = {
    'i3d': (
        'ResNet3d',
        dict(depth=50, base_channels=16, stage_blocks=(1, 1, 1, 1)),
        512,
    ),
    'x3d': ('X3D', dict(gamma_w=1, gamma_b=2.25), 432),
}
VGG = dict(BN, type='SlimmableVGG', depth=11, out_indices=(1, 2, 3, 4))
RETINA_HEAD = dict(
    type='RetinaHead',
    num_classes=2,
    in_channels=32,
    feat_channels=16,
    stacked_convs=1,
    anchor_generator=dict(
        type='AnchorGenerator',
        scales=[4.0],
        ratios=[1.0],
        strides=[4, 8, 16, 32],
    ),
)
DETECTORS = ('mask-rcnn', 'vgg-mask-rcnn', 'retinanet', 'retinanet-one-map')
CASES = [*CLASSIFIERS, 'slow', 'slowfast', *RECOGNIZERS, *DETECTORS]


def slimmable(kind, settings):
    if kind == 'RegNet':
        return dict(settings, type='mutualnet_mm.Slimmable', wraps=kind)
    return dict(settings, type=f'mutualnet_mm.Slimmable{kind}')


@pytest.fixture
def configure_case(request):
    """Return the config of a small network, by its name above."""
    get = request.getfixturevalue

    def make(name):
        if name in CLASSIFIERS:
            config = get('classifier_config')()
            kind, settings, channels = CLASSIFIERS[name]
            config['backbone'] = slimmable(kind, settings)
            config['head']['in_channels'] = channels
        elif name in ('slow', 'slowfast'):
            config = get('recognizer_config')(name)
        elif name in RECOGNIZERS:
            config = get('recognizer_config')()
            kind, settings, channels = RECOGNIZERS[name]
            config['backbone'] = slimmable(kind, settings)
            config['cls_head']['in_channels'] = channels
        else:
            config = get('detector_config')()
            adapt_detector(config, name)
        return copy.deepcopy(config)  # stock code writes into it

    return make


def adapt_detector(config, name):
    if name == 'vgg-mask-rcnn':
        config.backbone = dict(VGG, type=f'mutualnet_mm.{VGG["type"]}')
        config.neck.in_channels = [128, 256, 512, 512]
    if not name.startswith('retinanet'):
        return
    for part in ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        config.pop(part)
    head = copy.deepcopy(RETINA_HEAD)
    config.neck.num_outs = 4
    if name == 'retinanet-one-map':
        config.neck = None
        config.backbone.out_indices = (2,)
        head['in_channels'] = 64
        head['anchor_generator']['strides'] = [16]
    config.update(wraps='RetinaNet', bbox_head=head)


@pytest.fixture
def build_case(configure_case, plain):
    """Return a network in double precision, with statistics that differ."""
    torch.set_default_dtype(torch.double)
    yield lambda name: plain.randomise(
        MODELS.build(configure_case(name))
    ).eval()
    torch.set_default_dtype(torch.float)


def three_subnets(space):
    """The full and the smallest one, and another in between."""
    width = round(0.4 * space.min_width + 0.6 * space.max_width, 2)
    frames = space.frames and space.frames[1]
    between = Subnet(width, space.resolutions[1], frames)
    return [space.full, between, space.smallest]


def run(model, x):
    """Outputs of the part whose sizes depend on the width, as a list."""
    with torch.no_grad():
        out = model.task.forward_sliced(model, x)
    while not isinstance(out[0], torch.Tensor):  # one list for each output
        out = [tensor for part in out for tensor in part]
    return [out] if isinstance(out, torch.Tensor) else [*out]


def make_input(model, subnet):
    shape = model.task.input_shape(model, subnet, None)
    return torch.randn(2, *shape[1:])


def random_statistics(model, subnet, x):
    """Not calibrated: those of maps of a pixel or two have no variance."""
    sizes, handles = {}, []
    for name, layer in slim_batch_norms(model):

        def record(layer, args, name=name):
            sizes[name] = args[0].shape[1]

        handles.append(layer.register_forward_pre_hook(record))
    with on_running_statistics(model, subnet):
        run(model, x)
    for handle in handles:
        handle.remove()
    return {
        name: (0.3 * torch.randn(n), torch.rand(n) + 0.5)
        for name, n in sizes.items()
    }


def saved_bytes(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    return len(file.getvalue())


@pytest.mark.sweep(5)
@pytest.mark.parametrize('name', CASES)
def test_static_equals_sliced(build_case, name):
    """At three subnets: bit by bit, and with batch norms folded."""
    model = build_case(name)
    text, previous = str(model), float('inf')
    before = {n: t.clone() for n, t in model.state_dict().items()}
    for subnet in three_subnets(model.space):
        x = make_input(model, subnet)
        statistics = random_statistics(model, subnet, x)
        assert statistics
        with model.activate(subnet, statistics):
            expected = run(model, x)
        static = static_model(model, str(subnet), statistics)
        fused = static_model(model, subnet, statistics, fuse_bn=True)
        for net in (static, fused):
            assert isinstance(net, type(model).stock_class)
            assert not any(isinstance(m, SlimLayer) for m in net.modules())
            assert not any(m.training for m in net.modules())
            assert net.subnet == subnet
        assert all(map(torch.equal, run(static, x), expected))
        for ours, theirs in zip(run(fused, x), expected):
            assert theirs.std() > 1e-6  # else nothing is compared
            scale = theirs.abs().max().item()
            torch.testing.assert_close(
                ours, theirs, rtol=1e-9, atol=1e-9 * scale
            )
        state = static.state_dict()
        if name != 'retinanet-one-map':  # heads count whole
            count = sum(p.numel() for p in static.parameters())
            assert count == count_params(model, subnet)
        # A file holds what is narrow alone: of each tensor, and of all.
        numbers = sum(t.numel() * t.element_size() for t in state.values())
        assert numbers < saved_bytes(static) < numbers + 1024 * len(state)
        assert numbers < 0.9 * previous
        previous = numbers
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert str(model) == text


@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', ['mobilenet-v3', 'slowfast', 'mask-rcnn'])
def test_built_from_a_config(build_case, configure_case, name):
    """Takes the weights strictly; copies and pickles as any other model."""
    model = build_case(name)
    subnet = three_subnets(model.space)[1]
    x = make_input(model, subnet)
    statistics = random_statistics(model, subnet, x)
    for fuse_bn, verified in [(False, False), (True, True), (False, True)]:
        net = static_model(model, subnet, statistics, fuse_bn)
        settings = dict(subnet=str(subnet), fuse_bn=fuse_bn, verified=verified)
        config = dict(configure_case(name), type='mutualnet_mm.StaticSubnet')
        built = MODELS.build(dict(config, **settings))
        assert not all(map(torch.equal, run(built, x), run(net, x)))
        built.load_state_dict(net.state_dict(), strict=True)
        own = {p.data_ptr() for p in net.parameters()}
        copied = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        for other in (built, *copied):
            assert type(other) is type(net) and other.subnet == subnet
            assert not any(m.training for m in other.modules())
            assert all(map(torch.equal, run(other, x), run(net, x)))
            assert not own & {p.data_ptr() for p in other.parameters()}


def test_the_whole_network_takes_no_memory(configure_case, monkeypatch):
    """Once it is verified, the static form alone is made."""
    whole = []

    def remember(model, *args):
        whole.extend(model.named_parameters())
        settle(model, *args)

    settle = static._settle
    monkeypatch.setattr(static, '_settle', remember)
    config = dict(configure_case('mobilenet-v2'), subnet='0.5x-24')
    net = MODELS.build(
        dict(config, type='mutualnet_mm.StaticSubnet', verified=True)
    )
    assert whole and all(p.is_meta for _, p in whole)
    assert not any(p.is_meta for p in net.parameters())
    # Initialised: a network may be trained from it without a checkpoint.
    assert all(p.isfinite().all() for p in net.parameters())
    assert net.backbone.conv1.conv.weight.std() > 0.01
