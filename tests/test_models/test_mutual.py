import copy
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from passes import on_running_statistics, stock_loss
from torch_versions import skip_without_autocast

from mutualnet_mm import SubnetSampler, SubnetSpace
from mutualnet_mm.models import mutual
from mutualnet_mm.slimmable import set_width

WIDTH, RESOLUTION, LONG_EDGE = (0.25, 1.0), (64, 48), 107


def draw(iteration=0, resolution=RESOLUTION, **settings):
    sampler = SubnetSampler(SubnetSpace(WIDTH, resolution), **settings)
    return sampler.sample(iteration)


def prepared(model, batch):
    model.train()
    return model.data_preprocessor(copy.deepcopy(batch), True)


def buffers(model):
    return {k: v.clone() for k, v in model.named_buffers()}


@contextmanager
def spare_buffers(model):
    """Let a pass write its running statistics to copies."""
    owners = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    for module, name, buffer in owners:
        module._buffers[name] = buffer.clone()
    yield
    for module, name, buffer in owners:
        module._buffers[name] = buffer


def assert_buffers(model, expected):
    for name, value in model.named_buffers():
        torch.testing.assert_close(value, expected[name], msg=name)


def assert_gradients(model, expected, relative):
    """Compare with the norm of the difference, by parameter."""
    for name, parameter in model.named_parameters():
        wanted = expected[name]
        assert (parameter.grad is None) == (wanted is None), name
        if wanted is not None:
            error = (parameter.grad - wanted).norm()
            assert error <= relative * wanted.norm() + 1e-7, name


def resize_by_hand(inputs, samples, resolution):
    """Image by image: interpolate, scale boxes and masks, pad to 32."""
    images, new_samples = [], []
    for image, sample in zip(inputs, samples):
        (ori_h, ori_w), (h, w) = sample.ori_shape, sample.img_shape
        factor = min(
            LONG_EDGE / max(ori_h, ori_w), resolution / min(ori_h, ori_w)
        )
        new_h, new_w = int(ori_h * factor + 0.5), int(ori_w * factor + 0.5)
        images.append(
            F.interpolate(
                image[None, :, :h, :w],
                (new_h, new_w),
                mode='bilinear',
                antialias=True,
            )[0]
        )
        truth = sample.gt_instances
        ratio = torch.tensor([new_w / w, new_h / h] * 2)
        masks = type(truth.masks)(truth.masks.masks[:, :h, :w], h, w)
        new = type(sample)(metainfo=sample.metainfo)
        new.set_metainfo(dict(img_shape=(new_h, new_w)))
        new.gt_instances = InstanceData(
            bboxes=truth.bboxes * ratio,
            labels=truth.labels,
            masks=masks.resize((new_h, new_w)),
        )
        new_samples.append(new)
    height = -(-max(i.shape[1] for i in images) // 32) * 32
    width = -(-max(i.shape[2] for i in images) // 32) * 32
    for i, image in enumerate(images):
        pad = (0, width - image.shape[2], 0, height - image.shape[1])
        images[i] = F.pad(image, pad)
        new_samples[i].set_metainfo(dict(batch_input_shape=(height, width)))
        instances = new_samples[i].gt_instances
        instances.masks = instances.masks.pad((height, width))
    return torch.stack(images), new_samples


def sum_of_losses(losses):
    return sum(
        (value if torch.is_tensor(value) else sum(value)).mean()
        for key, value in losses.items()
        if 'loss' in key
    )


def detector_loop(model, data, subnets):
    """Every loss with the stock class, then one backward of their sum."""
    totals, stock_losses = {}, None
    for tag, subnet in subnets.items():
        inputs, samples = copy.deepcopy((data['inputs'], data['data_samples']))
        if subnet.resolution != RESOLUTION[0]:
            inputs, samples = resize_by_hand(
                inputs, samples, subnet.resolution
            )
        is_full = tag == 'full'
        set_width(model, subnet.width)
        with nullcontext() if is_full else spare_buffers(model):
            losses = stock_loss(model, inputs, samples)
        set_width(model, 1.0)
        stock_losses = losses if is_full else stock_losses
        totals[tag] = sum_of_losses(losses)
    sum(totals.values()).backward()
    return stock_losses, totals


@pytest.mark.parametrize(
    'indices', [(0, 1), (5, 3), (5,)], ids=['objects', 'mixed', 'empty']
)
def test_detector_step_equals_hand_written_loop(
    build_detector, load_batch, indices
):
    model = build_detector()
    data = prepared(model, load_batch(indices))
    reference = copy.deepcopy(model)
    torch.manual_seed(1)
    stock_losses, totals = detector_loop(reference, data, draw())
    torch.manual_seed(1)
    logged = model.loss(**data)
    assert set(logged) == {
        *stock_losses,
        'min/total',
        'rand1/total',
        'rand2/total',
        'loss_mutual',
    }
    loss, _ = model.parse_losses(logged)
    assert torch.isfinite(loss)
    torch.testing.assert_close(loss, sum(totals.values()), rtol=1e-5, atol=0)
    for tag in ('min', 'rand1', 'rand2'):
        torch.testing.assert_close(
            logged[f'{tag}/total'], totals[tag].detach(), rtol=1e-5, atol=0
        )
    for key, value in stock_losses.items():
        torch.testing.assert_close(logged[key], value)
    loss.backward()
    assert_gradients(
        model, {n: p.grad for n, p in reference.named_parameters()}, 1e-5
    )
    assert_buffers(model, buffers(reference))


def classifier_loop(model, images, labels, subnets, kl=True):
    """The same for a classifier, from its layers up."""
    total, teacher = 0, None
    for tag, subnet in subnets.items():
        set_width(model, subnet.width)
        size = (subnet.resolution, subnet.resolution)
        x = images
        if subnet.resolution != images.shape[-1]:
            x = F.interpolate(x, size, mode='bilinear', antialias=True)
        with nullcontext() if tag == 'full' else spare_buffers(model):
            feature = model.backbone(x)[-1].mean((2, 3))
        fc = model.head.fc
        logits = F.linear(feature, fc.weight[:, : feature.shape[1]], fc.bias)
        set_width(model, 1.0)
        if tag == 'full':
            teacher = logits.detach().softmax(1)
        if tag == 'full' or not kl:
            total = total + F.cross_entropy(logits, labels)
        else:
            student = logits.log_softmax(1)
            ratio = teacher * (teacher.log() - student)
            total = total + ratio.sum() / len(images)
    return total


@pytest.mark.parametrize(
    'settings',
    [
        dict(),
        dict(supervision='label'),
        dict(num_random=1, include_min=False, seed=3),
        dict(resolution_mode='shared', seed=1),
    ],
    ids=['kl', 'label', 'one', 'shared'],
)
def test_classifier_step_equals_hand_written_loop(
    build_classifier, image_batch, settings
):
    model = build_classifier(settings).double().train()
    images, samples = image_batch()
    images = images.double()
    reference = copy.deepcopy(model)
    labels = torch.cat([s.gt_label for s in samples])
    kl = settings.get('supervision') != 'label'
    rest = {k: v for k, v in settings.items() if k != 'supervision'}
    total = classifier_loop(
        reference, images, labels, draw(0, (64, 48, 32), **rest), kl
    )
    total.backward()
    loss, _ = model.parse_losses(model.loss(images, samples))
    torch.testing.assert_close(loss, total, rtol=1e-10, atol=0)
    loss.backward()
    assert_gradients(
        model, {n: p.grad for n, p in reference.named_parameters()}, 1e-9
    )
    assert_buffers(model, buffers(reference))


def test_only_the_full_pass_moves_running_statistics(
    build_classifier, image_batch
):
    model = build_classifier(dict(supervision='label')).train()
    reference = copy.deepcopy(model)
    for seed in range(2):
        images, samples = image_batch(seed=seed)
        model.loss(images, samples)
        stock_loss(reference, images, samples)
    for name, value in model.named_buffers():
        assert torch.equal(value, reference.get_buffer(name)), name


def test_without_gradients_the_loss_is_the_stock_one(
    build_classifier, image_batch
):
    model = build_classifier().eval()
    images, samples = image_batch()
    with torch.no_grad():
        losses = model.loss(images, samples)
        stock = type(model).stock_class.loss(model, images, samples)
    assert set(losses) == set(stock) == {'loss'}
    assert torch.equal(losses['loss'], stock['loss'])


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_step_under_autocast(build_classifier, image_batch, dtype):
    """Casts that autocast keeps for the step serve every subnet's loss."""
    skip_without_autocast(dtype)
    model = build_classifier().train()
    reference = copy.deepcopy(model)
    reference.parse_losses(reference.loss(*image_batch()))[0].backward()
    with torch.autocast('cpu', dtype=dtype):
        loss, _ = model.parse_losses(model.loss(*image_batch()))
    loss.backward()
    for name, parameter in model.named_parameters():
        expected = reference.get_parameter(name).grad
        likeness = torch.cosine_similarity(
            parameter.grad.flatten(), expected.flatten(), dim=0
        )
        assert likeness > 0.7, name


def test_sampling_follows_the_runner(build_classifier, image_batch):
    """A resumed run draws what the uninterrupted one would have drawn."""
    model = build_classifier().train()
    seen = []
    activate = model.activate
    model.activate = lambda subnet, **kw: (
        seen.append(str(subnet)) or activate(subnet, **kw)
    )
    for iteration in (7, 8, 7):
        hub = MessageHub.get_instance('run')
        hub.update_info('iter', iteration)
        model.loss(*image_batch())
        expected = [str(s) for s in draw(iteration, (64, 48, 32)).values()]
        assert seen == expected
        seen.clear()


def test_without_a_runner_steps_are_counted(build_classifier, image_batch):
    model = build_classifier().train()
    logged = [model.loss(*image_batch()) for _ in range(2)]
    assert logged[0]['rand1/total'] != logged[1]['rand1/total']


def test_steps_after_a_runner_are_counted(build_classifier, image_batch):
    """Its last counter stays where it is: each step has other subnets."""
    MessageHub.get_instance('finished').update_info('iter', 99)
    model, drawn = build_classifier().train(), []
    activate = model.activate
    model.activate = lambda subnet, **kw: (
        drawn.append(subnet) or activate(subnet, **kw)
    )
    for _ in range(3):
        model.loss(*image_batch())
    sizes = (64, 48, 32)
    assert drawn == [
        s for i in (99, 100, 101) for s in draw(i, sizes).values()
    ]


def test_checkpointed_backbone_has_the_same_gradients(
    build_detector, load_batch
):
    model = build_detector(norm_cfg=dict(type='BN', momentum=0.0))
    twin = build_detector(norm_cfg=dict(type='BN', momentum=0.0), with_cp=True)
    twin.load_state_dict(model.state_dict())
    data = prepared(model, load_batch())
    twin.train()
    for net in (model, twin):
        torch.manual_seed(1)
        net.parse_losses(net.loss(**copy.deepcopy(data)))[0].backward()
    assert_gradients(
        twin, {n: p.grad for n, p in model.named_parameters()}, 1e-6
    )


def test_the_state_dict_is_the_stock_one(detector_config):
    config = detector_config()
    model = MODELS.build(config)
    config.pop('mutual')
    config.type = config.pop('wraps')
    config.backbone.type = config.backbone.pop('wraps')
    stock = MODELS.build(config)
    assert type(stock).__name__ == 'MaskRCNN'
    assert isinstance(model, type(stock))
    stock.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(stock.state_dict(), strict=True)


def test_layers_behind_the_backbone_keep_their_width(build_detector):
    model = build_detector().eval()
    with on_running_statistics(model, '0.25x-64'):
        maps = model.extract_feat(torch.randn(1, 3, 64, 64))
        narrow = model.backbone(torch.randn(1, 3, 64, 64))
    assert {m.shape[1] for m in maps} == {32}
    assert [m.shape[1] for m in narrow] == [8, 8, 16, 32]
    assert model.slim_state.width == 1.0


@pytest.mark.parametrize('supervision', ['kl', 'label'])
def test_the_logged_loss_is_what_is_differentiated(
    build_classifier, image_batch, supervision
):
    """Heads of mmpretrain call theirs `loss`, as MMEngine the sum."""
    model = build_classifier(dict(supervision=supervision)).train()
    loss, shown = model.parse_losses(model.loss(*image_batch()))
    others = [v for k, v in shown.items() if k.endswith('/total')]
    assert shown['loss'] is loss and len(others) == 3
    expected = (shown['full/loss'] + sum(others)).item()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_loss_that_is_not_finite_is_named(
    build_classifier, image_batch, value, monkeypatch
):
    """And is in the sum, which is where hooks look for it."""
    printed = []
    monkeypatch.setattr(
        'mutualnet_mm.models.mutual.print_log',
        lambda message, **kwargs: printed.append(message),
    )
    model = build_classifier().train()
    hub = MessageHub.get_instance('run')
    hub.update_info('iter', 11)
    subnet = model.sampler.sample(12)['rand1']
    _, shown = model.parse_losses(model.loss(*image_batch()))
    assert not printed and shown['loss'].isfinite()
    divergence = mutual.DIVERGENCES['kl']
    numbers = iter(range(10))
    hub.update_info('iter', 12)
    monkeypatch.setitem(
        mutual.DIVERGENCES,
        'kl',
        lambda *args: (
            divergence(*args) + (value if next(numbers) == 1 else 0.0)
        ),
    )
    _, shown = model.parse_losses(model.loss(*image_batch()))
    assert not shown['loss'].isfinite()
    (message,) = printed
    assert message == f'iteration 12: the loss of rand1 ({subnet}) is {value}'


def test_a_step_that_fails_keeps_nothing(build_classifier, image_batch):
    """What catches an out-of-memory error gets the memory back."""
    model, calls = build_classifier().train(), []

    def fail(*args):
        calls.append(args)
        if len(calls) == 3:
            raise MemoryError

    handle = model.head.register_forward_hook(fail)
    with pytest.raises(MemoryError):
        model.loss(*image_batch())
    assert not model._gradients._gradients
    assert not model._gradients._parameters
    handle.remove()
    assert model.loss(*image_batch())['loss_mutual'].requires_grad
