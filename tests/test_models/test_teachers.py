"""The moving average of the full network as teacher."""

import copy

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from option_steps import (
    CLASSES,
    DROPPING,
    FEATURES,
    LINEAR,
    RESOLUTIONS,
    assert_step,
    images_of,
    label_loss,
    samples_of,
)

from mutualnet_mm import UsageError


def logits_of(plain, state, images):
    """Class scores of the full network of a state."""
    net = plain.wide_resnet(plain.rounded, widen=1)
    head = plain.linear_head(FEATURES, CLASSES)
    net = plain.fill(plain.classifier(net, head).double(), state).train()
    with torch.no_grad():
        return net(images)


@pytest.mark.parametrize('options', [{}, dict(label_weight=0.5)], ids=str)
def test_averaged_teacher(build_learner, plain, options):
    """Of the weights that each of three steps began with."""
    model = build_learner(teacher='ema', **options)
    images, samples = images_of(), samples_of()
    averages = None
    for step in range(3):
        state = {k: v.clone() for k, v in model.state_dict().items()}
        averages = averages or state
        averages = {
            k: v if not v.is_floating_point() else 0.997 * v + 0.003 * state[k]
            for k, v in averages.items()
        }
        if step < 2:
            model.loss(images, samples)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.2)
    teacher = logits_of(plain, averages, images)
    wrong = logits_of(plain, model.state_dict(), images)
    assert (teacher - wrong).abs().max() > 0.1

    def loss(logits, aim):
        kl = plain.divergence(logits, aim)
        return kl + options.get('label_weight', 0) * label_loss(logits)

    subnets = plain.drawn(2, (0.25, 1.0), RESOLUTIONS, seed=2)
    assert_step(model, subnets, sub_loss=loss, teacher=teacher)
    model.load_state_dict(model.state_dict())
    assert not any('teacher' in key for key in model.state_dict())


def test_average_beside_stock_weights(build_learner, configure, tmp_path):
    """Files of weights alone hold it; the stock class does not mind."""
    model = build_learner(teacher='ema')
    for _ in range(2):
        model.loss(images_of(), samples_of())
        with torch.no_grad():
            model.head.fc.bias.add_(1)
    moved, cpu = [], torch.Tensor.cpu
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, 'cpu', lambda t: moved.append(t) or cpu(t))
        state = model.state_dict()  # hooks ask for it in every iteration
        assert not moved
        torch.save(state, tmp_path / 'weights.pth')
        assert len(moved) == len([*model.parameters()])
    loaded = torch.load(tmp_path / 'weights.pth', weights_only=True)
    MODELS.build(configure(LINEAR, stock=True)).load_state_dict(loaded)
    twin = build_learner(teacher='ema')
    twin.load_state_dict(loaded)
    names = [name for name, _ in twin.named_parameters()]
    assert list(twin._teacher.averages) == names
    for name, mean in twin._teacher.averages.items():
        assert torch.equal(mean, model._teacher.averages[name]), name
    # A copy goes on by itself.
    copied = copy.deepcopy(twin)
    copied._teacher.follow(copied, 2)
    first = model.head.fc.bias - 2
    for net, rise in ((twin, 0.003), (copied, 0.997 * 0.003 + 0.003 * 2)):
        mean = net._teacher.averages['head.fc.bias']
        torch.testing.assert_close(mean, first + rise)


def test_averaged_teacher_leaves_the_other_passes_alone(build_learner):
    """Their draws of dropout, and the casts that autocast keeps for a step."""
    found = []
    for teacher in ('full', 'ema'):
        torch.manual_seed(0)
        model = build_learner(DROPPING, teacher=teacher).float()
        MessageHub.get_instance('run').update_info('iter', 1)
        if teacher == 'ema':
            weights = dict(model.named_parameters())
            model._teacher.averages = {
                n: torch.randn_like(w) for n, w in weights.items()
            }
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16):
            logged = model.loss(images_of().float(), samples_of())
        model.parse_losses(logged)[0].backward()
        assert all(p.grad is not None for p in model.parameters())
        found.append(logged)
    assert torch.equal(found[0]['full/loss'], found[1]['full/loss'])
    assert found[0]['min/total'] != found[1]['min/total']


def test_a_training_that_lost_its_average(build_learner):
    model = build_learner(teacher='ema')
    MessageHub.get_instance('run').update_info('iter', 5)
    with pytest.raises(UsageError, match="teacher='ema': step 5") as error:
        model.loss(images_of(), samples_of())
    assert '\n' not in str(error.value)
