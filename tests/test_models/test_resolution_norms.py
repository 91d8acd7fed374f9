"""Batch norms with a weight and a bias for each resolution."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_state_dict
from option_steps import (
    LINEAR,
    RESOLUTIONS,
    images_of,
    label_loss,
    narrow,
    samples_of,
)

from mutualnet_mm import ConfigError, Subnet, SubnetSpace, UsageError
from mutualnet_mm.apis import calibrate, count_params
from mutualnet_mm.models import static_model
from mutualnet_mm.slimmable import slim_batch_norms

NORM = dict(norm='per-resolution')
AT = tuple(f'at_{r}' for r in RESOLUTIONS[1:])


def randomise(model):
    """Other weights and biases for each resolution."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if '.at_' in name:
                parameter.uniform_(0.3, 1.0)
    return model


@pytest.fixture
def build(build_learner):
    def make(head=LINEAR, **options):
        return randomise(build_learner(head, **dict(NORM, **options)))

    return make


def stored(name, resolution):
    """Where a parameter of a narrow network of a resolution comes from."""
    layer, _, last = name.rpartition('.')
    is_norm = layer.rpartition('.')[2] in ('bn1', 'bn2', 'norm')
    if resolution == RESOLUTIONS[0] or not is_norm or 'running' in last:
        return name
    return name if 'num' in last else f'{layer}.at_{resolution}.{last}'


def stock_state(state, resolution):
    """The state of a stock network of a resolution."""
    names = [name for name in state if '.at_' not in name]
    return {name: state[stored(name, resolution)] for name in names}


def separate_step(plain, state, images, subnets, is_kl=True):
    """Losses, gradients and buffers of separate narrow networks."""
    losses, gradients, teacher = {}, {}, None
    for tag, (width, size) in subnets.items():
        net = plain.fill(narrow(width).double(), stock_state(state, size))
        x = images
        if size != images.shape[-1]:
            x = F.interpolate(
                x, [int(size)] * 2, mode='bilinear', antialias=True
            )
        logits = net.train()(x)
        if tag == 'full' or not is_kl:
            loss = label_loss(logits)
        else:
            loss = plain.divergence(logits, teacher)
        if tag == 'full':
            teacher = logits.detach()
            buffers = dict(net.named_buffers())
        loss.backward()
        losses[tag] = loss.item()
        for name, parameter in net.named_parameters():
            key = stored(name, size)
            whole = gradients.setdefault(key, torch.zeros_like(state[key]))
            whole[plain.slices_of(parameter)] += parameter.grad
    return losses, gradients, buffers


@pytest.mark.parametrize(
    'options, seed',
    [
        ({}, 2),
        ({}, 5),
        (dict(supervision='label'), 2),
        (dict(resolution_mode='shared'), 2),
        (dict(resolution_mode='shared'), 3),
    ],
    ids=str,
)
def test_a_step_equals_separate_networks(build, plain, options, seed):
    """Parameters of resolutions that are not drawn get no gradient."""
    model = build(seed=seed, **options)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    shared = options.get('resolution_mode') == 'shared'
    subnets = plain.drawn(0, (0.25, 1.0), RESOLUTIONS, shared, seed)
    losses, gradients, buffers = separate_step(
        plain, state, images_of(), subnets, 'supervision' not in options
    )
    logged = model.loss(images_of(), samples_of())
    total, _ = model.parse_losses(logged)
    assert total.item() == pytest.approx(sum(losses.values()), rel=1e-6)
    total.backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    assert {n for n, g in found.items() if g is not None} == set(gradients)
    floor = 1e-9 * max(g.norm() for g in gradients.values())
    for name, expected in gradients.items():
        error = (found[name] - expected).norm()
        assert error <= 1e-6 * expected.norm() + floor, name
    for name, value in buffers.items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)


@pytest.fixture
def statistics(build):
    """Return a network, and statistics of some of its subnets."""

    def make(*subnets):
        model = build().float().eval()
        batch = dict(
            inputs=list(images_of(number=6) * 50), data_samples=samples_of()
        )
        return model, calibrate(model, subnets, [batch])

    return make


SUBNETS = ('1.0x-32', '1.0x-24', '0.5x-32', '0.6x-24', '0.25x-16')


@pytest.mark.parametrize('subnet', SUBNETS)
@pytest.mark.parametrize('fuse_bn', [False, True])
def test_static_forms_are_stock_networks(statistics, plain, subnet, fuse_bn):
    """Under stock names, with the vectors of the resolution."""
    model, bank = statistics(*SUBNETS)
    subnet = Subnet.parse(subnet)
    state = stock_state(model.state_dict(), subnet.resolution)
    net = plain.fill(narrow(subnet.width), state).eval()
    for name, (mean, variance) in bank[str(subnet)].items():
        layer = net.get_submodule(name)
        layer.running_mean, layer.running_var = mean, variance
    images = images_of(size=subnet.resolution, seed=3).float()
    with torch.no_grad():
        expected = net(images)
        with model.activate(subnet, bank[str(subnet)]):
            sliced = model(images, mode='tensor')
        static = static_model(model, subnet, bank[str(subnet)], fuse_bn)
        found = static(images, mode='tensor')
    for scores in (sliced, found):
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    if not fuse_bn:
        assert list(static.state_dict()) == list(net.state_dict())
    own = sum(p.numel() for p in net.parameters())
    assert count_params(model, subnet) == own
    assert isinstance(copy.deepcopy(static), type(static))


def test_the_full_network_is_a_stock_checkpoint(statistics, configure):
    model, bank = statistics('1.0x-32')
    net = MODELS.build(configure(LINEAR, stock=True)).eval()
    net.load_state_dict(static_model(model, '1.0x-32').state_dict())
    images = images_of(seed=3).float()
    with torch.no_grad():
        expected = net(images, mode='tensor')
        assert torch.equal(model(images, mode='tensor'), expected)


def loaders():
    return dict(
        torch=lambda net, state: net.load_state_dict(state),
        assigned=lambda net, state: net.load_state_dict(state, assign=True),
        mmengine=lambda net, state: load_state_dict(net, state, strict=True),
    )


@pytest.mark.parametrize('loader', loaders())
@pytest.mark.parametrize('sync', [False, True])
def test_stock_weights_are_those_of_all_resolutions(
    build, build_learner, loader, sync
):
    """Also if other layers have taken the place of the batch norms."""
    stock, model = build_learner().float(), build().float()
    if sync:
        model = convert_sync_batchnorm(model)
    loaders()[loader](model, stock.state_dict())
    state, expected = model.state_dict(), stock.state_dict()
    count = 0
    for name, value in state.items():
        other = name
        for part in AT:
            other = other.replace(f'{part}.', '')
        assert torch.equal(value, expected[other]), name
        count += name != other
    assert count == 2 * 2 * len([*slim_batch_norms(stock)])
    pointers = [value.data_ptr() for value in state.values()]
    assert len(set(pointers)) == len(pointers)
    # And its own weights, as they are.
    twin = build().float()
    loaders()[loader](twin, copy.deepcopy(randomise(model).state_dict()))
    for name, value in twin.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_synchronised_batch_norms_keep_them(build):
    """The parameters themselves, which optimizers may hold already."""
    model = build().float()
    before = dict(model.named_parameters())
    images = images_of().float()
    with model.activate('0.5x-24'):
        expected = model(images[..., :24, :24], mode='tensor')
    for convert in (convert_sync_batchnorm, revert_sync_batchnorm):
        model = convert(model)
        after = dict(model.named_parameters())
        assert after.keys() == before.keys()
        assert all(after[name] is p for name, p in before.items())
    with model.activate('0.5x-24'):
        found = model(images[..., :24, :24], mode='tensor')
    assert torch.equal(found, expected)


def test_weights_begin_alike(classifier_config, tmp_path):
    """As initialised, with branches that begin at zero, and as pretrained."""
    config = classifier_config(NORM, zero_init_residual=True)
    model = MODELS.build(config)
    model.init_weights()
    last = model.backbone.layer1[0].bn2
    assert not last.weight.any() and not last.at_32.weight.any()
    for _, layer in slim_batch_norms(model):
        for name in ('at_48', 'at_32'):
            affine = layer.get_submodule(name)
            assert torch.equal(affine.weight, layer.weight)
            assert torch.equal(affine.bias, layer.bias)
    # A network that was trained in this way keeps what it learned.
    randomise(model)
    for affines in (True, False):
        state = {
            name: value
            for name, value in model.state_dict().items()
            if affines or '.at_' not in name
        }
        torch.save(dict(state_dict=state), tmp_path / 'weights.pth')
        pretrained = dict(
            type='Pretrained', checkpoint=str(tmp_path / 'weights.pth')
        )
        config = classifier_config(NORM, init_cfg=pretrained)
        net = MODELS.build(config)
        net.init_weights()
        affine = net.backbone.bn1.at_32
        source = model.backbone.bn1
        if affines:
            source = source.at_32
        assert torch.equal(affine.weight, source.weight)
        net.init_weights()  # stock code warns, and does nothing


def test_optimizers_take_them_for_those_of_norms(build):
    model = build()
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=0.1, weight_decay=0.5),
            paramwise_cfg=dict(
                norm_decay_mult=0.0, custom_keys={'layer3': dict(lr_mult=2.0)}
            ),
        ),
    )
    groups = {
        id(p): group
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    count = 0
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        assert group['lr'] == (0.2 if 'layer3' in name else 0.1)
        if '.at_' in name and 'layer3' not in name:
            assert group['weight_decay'] == 0
            count += 1
    assert count and groups[id(model.head.fc.weight)]['weight_decay'] == 0.5


WRONG = {
    'another word': (dict(norm='private'), "norm='private'", "'shared'"),
    'one resolution': (dict(NORM, resolution=(32,)), 'single resolution', ''),
    'drawn alone': (
        dict(NORM, widths=(1.0,)),
        'a single resolution',
        '',
    ),
    'alone': (dict(NORM, single_subnet='0.5x-24'), 'leave it out', ''),
}


@pytest.mark.parametrize('name', WRONG)
def test_what_cannot_be(configure, name):
    options, *parts = WRONG[name]
    with pytest.raises(ConfigError) as error:
        MODELS.build(configure(LINEAR, options))
    text = str(error.value)
    assert '\n' not in text and 'mutual.norm' in text
    for part in parts:
        assert part in text


def test_networks_without_batch_norm(configure):
    settings = configure(LINEAR, NORM)
    settings['backbone'] = dict(
        type='mutualnet_mm.Slimmable',
        wraps='VGG',
        depth=11,
        num_classes=-1,
        out_indices=(4,),
    )
    settings['head']['in_channels'] = 512
    with pytest.raises(ConfigError, match='has no batch norm with a weight'):
        MODELS.build(settings)


def test_other_resolutions_have_none(build):
    model = build().eval()
    with pytest.raises(ConfigError, match='subnet 0.5x-20: batch norms have'):
        calibrate(model, ['0.5x-20'], [])
    other = r'of 0.625 of .*at_24, at_16'
    with model.activate('1.0x-20'), pytest.raises(UsageError, match=other):
        model(images_of(size=20), mode='tensor')
    space = SubnetSpace((0.5, 1.0), (32, 16))
    assert space.check('0.5x-20')


@pytest.mark.parametrize(
    'options, subnet, is_trained',
    [
        (NORM, '0.5x-24', True),
        (NORM, '1.0x-32', True),
        ({}, '1.0x-32', True),
        ({}, '1.0x-24', False),
        (dict(NORM, resolution=(32, 28, 16)), '0.5x-16', True),
        (dict(NORM, resolution=(32, 28, 16)), '0.5x-28', False),
        (dict(NORM, resolution=(24, 16)), '0.5x-24', False),
        (dict(NORM, resolution=(24, 16)), '0.5x-16', False),
    ],
    ids=str,
)
def test_checkpoints_of_other_norms(
    build, build_learner, options, subnet, is_trained
):
    """Not as it was trained: the loaders only log that something is left."""
    state = build().state_dict()
    model = build_learner(**options)
    load_state_dict(model, state, strict=False)
    subnets = [Subnet.parse(subnet)]
    if is_trained:
        model.check_trained(subnets)
    else:
        with pytest.raises(UsageError, match='resolutions 32, 24, 16, which'):
            model.check_trained(subnets)
    # A training begins with what fits.
    if options.get('resolution', (32,))[0] == 32:
        model.loss(images_of(), samples_of())
        model.check_trained(subnets)


def test_a_copy_has_its_own(build):
    """As averages of the weights have, which are evaluated in their place."""
    model = build()
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert copied.backbone.norm.active_affine is copied.backbone.norm
    with copied.activate('1.0x-16'):
        affine = copied.backbone.norm.active_affine
        assert affine is copied.backbone.norm.at_16
    assert torch.equal(affine.weight, model.backbone.norm.at_16.weight + 1)
