"""What counts segments follows the active subnet, or is refused.

Networks with the shifts of TSM narrow by the parts that are shifted.
"""

import copy
import pickle

import pytest
import segment_networks as nets
import torch
from mmcv.cnn.bricks import NonLocal3d
from mmengine.registry import MODELS
from passes import on_running_statistics
from torch import nn

from mutualnet_mm import ConfigError, Subnet
from mutualnet_mm.apis import count_params
from mutualnet_mm.models import static_model
from mutualnet_mm.slimmable import SlimState, active_width

pytest.importorskip('mmaction')
from mutualnet_mm.models.segments import follow_segments  # noqa: E402

TSM = dict(type='TSMHead', num_segments=4, dropout_ratio=0)
RESNET = dict(depth=50, pretrained2d=False, num_segments=4)
# Of each: the backbone, and the channels of its map.
SHIFTED = dict(
    mobilenet=(
        dict(
            wraps='MobileNetV2TSM',
            widen_factor=0.5,
            num_segments=4,
            pretrained2d=False,
        ),
        1280,
    ),
    blocks=(
        dict(RESNET, wraps='ResNetTSM', depth=18, shift_place='block'),
        512,
    ),
)


@pytest.fixture(autouse=True)
def scope(enter_scope):
    enter_scope('mmaction')


def config(kind, frames=(4, 3, 2), slimmable=True, segments=4):
    backbone, channels = SHIFTED[kind]
    backbone = dict(backbone, num_segments=segments)
    name = backbone.pop('wraps')
    own = dict(type='mutualnet_mm.Slimmable', wraps=name)
    head = dict(TSM, num_segments=segments, in_channels=channels)
    head.update(num_classes=nets.CLASSES, average_clips='score')
    made = dict(
        type='Recognizer2D',
        backbone=dict(backbone, **(own if slimmable else dict(type=name))),
        cls_head=head,
    )
    if slimmable:
        space = dict(width_range=(0.5, 1.0), resolution=(32, 24))
        made.update(
            type='mutualnet_mm.MutualLearning',
            wraps='Recognizer2D',
            mutual=dict(space, frames=frames),
        )
    return made


def build(kind, **settings):
    model = MODELS.build(config(kind, **settings))
    nets.randomise(model)
    nn.init.normal_(model.cls_head.fc_cls.weight, std=0.05)
    return model.eval()


def scores(samples):
    return torch.stack([sample.pred_score for sample in samples])


@pytest.mark.sweep(1)
@pytest.mark.parametrize('kind', SHIFTED)
def test_fewer_segments_are_a_stock_network_of_as_many(kind):
    """With the same weights, bit by bit, of several views."""
    model = build(kind)
    frames, samples = nets.batch(2, frames=8)
    stand_alone = []
    for segments in (4, 3, 2):
        stock = MODELS.build(config(kind, slimmable=False, segments=segments))
        stock.load_state_dict(model.state_dict(), strict=True)
        subnet = Subnet(1.0, 32, segments)
        resized, copies = model.task.resize(model, frames, samples, subnet)
        picked = {4: range(4), 3: (0, 2, 3), 2: (1, 3)}[segments]
        both = [*picked, *(4 + i for i in picked)]
        assert torch.equal(resized, frames[:, both])
        with torch.no_grad(), model.activate(subnet):
            model.slim_state.running_stats = True
            found = scores(model(resized, copies, mode='predict'))
            wanted = scores(
                stock.eval()(frames[:, both], samples, mode='predict')
            )
        assert torch.equal(found, wanted)
        stand_alone.append(found)
        static = static_model(model, subnet)
        with torch.no_grad():
            own = scores(static(frames, samples, mode='predict'))
        assert torch.equal(own, wanted)
    assert not torch.allclose(*stand_alone[:2])
    with torch.no_grad():  # back at the number that it was built for
        again = scores(model(frames, samples, mode='predict'))
    assert torch.equal(again, stand_alone[0])


@pytest.mark.sweep(1)
@pytest.mark.parametrize('mode', ['gaussian', 'embedded_gaussian'])
def test_non_local_blocks(mode):
    """Half of it is a stock block of half the channels."""
    blocks = ((0, 0, 0), (1, 0, 0, 0), (0,) * 6, (0, 0, 0))
    settings = dict(RESNET, type='mutualnet_mm.Slimmable', wraps='ResNetTSM')
    inside = dict(sub_sample=True, mode=mode)
    settings.update(non_local=blocks, non_local_cfg=inside)
    net = MODELS.build(settings)
    net.double().eval()
    net.slim_state.running_stats = True
    ours = net.layer2[0].non_local_block
    nn.init.normal_(ours.conv_out.conv.weight)  # zero at first
    narrow = NonLocal3d(ours.g[0].out_channels, reduction=1, **inside)
    narrow.double().eval()
    with active_width(net, 0.5):  # of each part that TSM shifts
        ranges = ours.conv_out.conv.rows(512)
    kept = [n for start, stop in ranges for n in range(start, stop)]
    weights = dict(ours.named_parameters())
    for name, parameter in narrow.named_parameters():
        whole = weights[name].detach()
        axis = 0 if name.startswith('conv_out') else 1
        if whole.shape != parameter.shape:
            whole = whole.index_select(axis, torch.tensor(kept))
        parameter.data = whole.clone()
    x = torch.randn(2, narrow.in_channels, 4, 6, 6, dtype=torch.double)
    with torch.no_grad(), active_width(net, 0.5):
        torch.testing.assert_close(ours(x), narrow(x))
    assert ours.g[0].conv.slim_rule.fixed


def test_copies():
    model = build('mobilenet')
    with model.activate('1.0x-32-2'):
        for other in (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
        ):
            assert other.cls_head.num_segments == 2
            other.slim_state.set(1.0, frames=3)
            assert other.cls_head.num_segments == 3
            assert model.cls_head.num_segments == 2
            counting = [
                m for m in other.backbone.modules() if hasattr(m, 'shift_div')
            ]
            assert len(counting) > 5  # and the backbone, as it was built
            assert {m.num_segments for m in counting} == {3, 4}
    assert model.cls_head.num_segments == 4


FIXED = {
    'TRNHead': (
        dict(type='ResNet', depth=18),
        dict(type='TRNHead', in_channels=512, num_segments=4, hidden_dim=8),
    ),
    'TABlock': (
        dict(type='TANet', depth=50, num_segments=4),
        dict(type='TSNHead', in_channels=2048),
    ),
    'TemporalInterlace': (
        dict(RESNET, type='ResNetTIN', depth=18),
        dict(type='TSNHead', in_channels=512),
    ),
}


@pytest.mark.parametrize('name', FIXED)
def test_weights_for_one_number(name):
    """Nothing is changed before the error."""
    backbone, head = FIXED[name]
    stock = MODELS.build(
        dict(
            type='Recognizer2D',
            backbone=backbone,
            cls_head=dict(head, num_classes=3),
        )
    )
    classes = [type(module) for module in stock.modules()]
    with pytest.raises(ConfigError) as caught:
        follow_segments(stock, (4, 2), SlimState())
    text = str(caught.value)
    assert name in text or 'TANet' in text
    assert 'mutual.frames=(4,)' in text and '\n' not in text
    assert [type(module) for module in stock.modules()] == classes
    assert follow_segments(stock, (4,), SlimState())


@pytest.mark.parametrize('place', ['backbone', 'cls_head'])
def test_another_number_than_the_full_one(place):
    settings = config('mobilenet')
    settings[place]['num_segments'] = 8
    with pytest.raises(ConfigError) as caught:
        MODELS.build(settings)
    text = str(caught.value)
    assert f'model.{place} (' in text and 'built for 8 segments' in text
    assert 'mutual.frames[0] is 4' in text and 'num_segments=4' in text


def test_networks_that_do_not_count():
    """TSN takes any number of frames."""
    stock = MODELS.build(nets.config(slimmable=False))
    classes = [type(module) for module in stock.modules()]
    assert not follow_segments(stock, (4, 2), SlimState())
    assert [type(module) for module in stock.modules()] == classes


def plain_shifted(state, subnet):
    """The plain network of a subnet, with its parts of the weights."""
    net = nets.PlainShifted(
        'tsm', subnet.width, subnet.resolution, subnet.frames
    ).double()
    own = net.state_dict()
    assert own.keys() == state.keys()
    for name, tensor in own.items():
        if tensor.dim():
            where = nets.place_of_shifted(name, state[name], tensor)
            tensor.copy_(state[name][where])
    return net


@pytest.mark.sweep(1)
@pytest.mark.parametrize('subnet', ['1.0x-32-3', '0.63x-25-2'])
def test_narrow_shifts(subnet):
    """Forward and gradients: an eighth of what is left is shifted."""
    model = nets.build('tsm').double().eval()
    subnet = Subnet.parse(subnet)
    state = model.state_dict()
    net = plain_shifted(state, subnet).eval()
    frames, samples = nets.batch(2, frames=4)
    frames = frames.double()
    inputs, _ = model.task.resize(model, frames, samples, subnet)
    with on_running_statistics(model, subnet):
        found = model(inputs, mode='tensor', stage='head')
    expected = net(frames)
    assert expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    for scores_ in (found, expected):
        scores_.pow(2).sum().backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    for name, parameter in net.named_parameters():
        where = nets.place_of_shifted(name, state[name], parameter)
        torch.testing.assert_close(
            gradients[name][where], parameter.grad, rtol=1e-8, atol=1e-11
        )
        rest = gradients[name].clone()
        rest[where] = 0
        assert not rest.any(), name
    number = sum(p.numel() for p in net.parameters())
    assert count_params(model, subnet) == number


def test_one_step(plain):
    """Eq. 5: losses and gradients of networks of different segments."""
    model = nets.build('tsm').double().train()
    frames, samples = nets.batch(2)
    frames = frames.double()
    labels = torch.stack([sample.gt_label for sample in samples])
    subnets = dict(
        full=Subnet(1.0, 32, 4),
        min=Subnet(0.63, 21, 2),
        rand1=Subnet(0.8, 32, 3),
    )
    model.sampler.sample = lambda step: subnets
    state = {k: v.clone() for k, v in model.state_dict().items()}
    gradients = {name: torch.zeros_like(v) for name, v in state.items()}
    losses = {}
    for tag, subnet in subnets.items():
        net = plain_shifted(state, subnet).train()
        logits = net(frames)
        if tag == 'full':
            losses[tag] = -logits.log_softmax(1).gather(1, labels).mean()
            teacher = logits.detach()
        else:
            losses[tag] = plain.divergence(logits, teacher)
        losses[tag].backward()
        for name, parameter in net.named_parameters():
            where = nets.place_of_shifted(name, state[name], parameter)
            gradients[name][where] += parameter.grad
    logged = model.loss(frames, samples)
    for tag, loss in losses.items():
        key = 'loss_cls' if tag == 'full' else f'{tag}/total'
        assert logged[key].item() == pytest.approx(loss.item(), 1e-9)
    total, _ = model.parse_losses(logged)
    total.backward()
    for name, parameter in model.named_parameters():
        wanted = gradients[name]
        error = (parameter.grad - wanted).norm()
        assert error <= 1e-9 * wanted.norm() + 1e-12, name
