import contextlib
import sys
import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import checkpoint
from torch_versions import skip_without_autocast

from mutualnet_mm.models import gradients
from mutualnet_mm.models.gradients import (
    GradientSum,
    non_reentrant_checkpointing,
)


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)
    ).double()


def losses_of(net):
    generator = torch.Generator().manual_seed(1)
    for i in range(3):
        x = torch.randn(2, 3, 6, 6, generator=generator, dtype=torch.double)
        yield F.cross_entropy(net(x), torch.tensor([0, i % 2])) * (i + 1)


def run_sum(parameters, losses):
    collected = GradientSum()
    collected.start(list(parameters))
    total = 0
    for loss in losses:
        collected.add(loss)
        total = total + loss.detach()
    return collected.as_loss(total)


def test_equal_the_joint_graph():
    net = make_net()
    total = sum(losses_of(net))
    expected = torch.autograd.grad(total, list(net.parameters()))
    handed = run_sum(net.parameters(), losses_of(net))
    assert torch.equal(handed.detach(), total.detach())
    assert all(p.grad is None for p in net.parameters())
    handed.backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(
            parameter.grad, gradient, rtol=1e-13, atol=1e-15
        )


def test_incoming_gradient_multiplies_and_accumulates():
    net = make_net()
    for factor in (0.5, 0.25):  # an OptimWrapper that accumulates
        (run_sum(net.parameters(), losses_of(net)) * factor).backward()
    expected = torch.autograd.grad(
        sum(losses_of(net)) * 0.75, list(net.parameters())
    )
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)


def test_unreached_parameter_gets_none():
    used, unused = (nn.Parameter(torch.ones(2)) for _ in range(2))
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    run_sum(
        [unused, used, frozen], [used.sum(), (used * frozen).sum()]
    ).backward()
    assert unused.grad is None and frozen.grad is None
    assert used.grad.tolist() == [2, 2]


def test_parameter_reached_by_some_losses_only():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    run_sum([a, b], [a.sum(), (a * b * 3).sum(), b.sum()]).backward()
    assert a.grad.tolist() == [4, 4] and b.grad.tolist() == [4, 4]


def test_parameters_that_share_one_gradient_tensor():
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    weight = torch.tensor([1.0, 2.0])

    def loss():  # the sum's backward gives both the very same tensor
        return ((a + b) * weight).sum()

    first, second = torch.autograd.grad(loss(), [a, b])
    assert first is second or first.data_ptr() == second.data_ptr()
    run_sum([a, b], [loss(), loss(), a.sum()]).backward()
    assert a.grad.tolist() == [3, 5] and b.grad.tolist() == [2, 4]


def leaves_of(weight, factors):
    """Gradients of a joint graph of slices, and of leaves in its place."""
    rows, columns = ((0, 2),), ((1, 3),)

    def losses(part):
        yield (weight.cos() * 2).sum()
        for factor in factors:
            yield (part(rows, columns) ** 2 * factor).sum()
        yield weight[:1].sum()

    total = sum(losses(lambda rows, columns: weight[0:2, 1:3]))
    expected = torch.autograd.grad(total, [weight])[0]
    collected = GradientSum()
    collected.start([weight])
    for loss in losses(lambda *ranges: collected.leaves.make(weight, ranges)):
        collected.add(loss)
    collected.as_loss(total.detach()).backward()
    return weight.grad, expected


@pytest.mark.parametrize(
    'memory_format', [torch.contiguous_format, torch.channels_last]
)
def test_leaves_equal_slices(memory_format):
    """Several losses add to one part, whatever the weight's strides are."""
    weight = torch.randn(4, 3, 2, 2, dtype=torch.double)
    weight = nn.Parameter(weight.to(memory_format=memory_format))
    found, expected = leaves_of(weight, factors=[1.0, 3.0])
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


def test_several_leaves_of_one_pass():
    """A layer that is run twice, and a part that no loss reaches."""
    weight = nn.Parameter(torch.randn(4, dtype=torch.double))
    other = nn.Parameter(torch.randn(4, dtype=torch.double))
    collected = GradientSum()
    collected.start([weight, other])
    make = collected.leaves.make
    parts = [make(weight, (((0, end),),)) for end in (2, 3)]
    make(other, (((0, 2),),))
    collected.add(parts[0].sum() * 2 + (parts[1] ** 2).sum() + weight[3])
    collected.as_loss(torch.zeros(())).backward()
    with torch.no_grad():
        expected = 2 * weight + torch.tensor([2.0, 2.0, 0.0, 0.0])
        expected[3] = 1
    torch.testing.assert_close(weight.grad, expected)
    assert other.grad is None


def test_leaves_spare_tensors_that_losses_share():
    """What is added to one parameter does not show in another."""
    a, b = (nn.Parameter(torch.ones(4)) for _ in range(2))
    collected = GradientSum()
    collected.start([a, b])
    collected.add((a + b).sum())  # one gradient for both
    collected.add(collected.leaves.make(a, (((0, 2),),)).sum())
    collected.as_loss(torch.zeros(())).backward()
    assert a.grad.tolist() == [2, 2, 1, 1] and b.grad.tolist() == [1] * 4


def test_second_backward_raises():
    net = make_net()
    handed = run_sum(net.parameters(), losses_of(net))
    handed.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match='once'):
        handed.backward()


def test_graphs_are_freed_at_once():
    net = make_net()
    loss = next(losses_of(net))
    collected = GradientSum()
    collected.start(list(net.parameters()))
    collected.add(loss)
    with pytest.raises(RuntimeError, match='second time'):
        loss.backward()


class HalfStep(torch.autograd.Function):
    """Passes gradients through half precision, as autocast layers do."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().float()


def half_step(parameter, scale, collected):
    """One scaled step whose true gradient is ``scale``."""
    collected.start([parameter])
    loss = (HalfStep.apply(parameter) * scale).sum()
    collected.add(loss)
    return collected.as_loss(loss.detach())


@pytest.fixture
def half(monkeypatch):
    monkeypatch.setattr(gradients, '_is_half', lambda: True)


def make_scaler():
    if not hasattr(torch.amp, 'GradScaler'):
        pytest.skip('this PyTorch scales no gradients on a CPU')
    return torch.amp.GradScaler('cpu', init_scale=2.0**16)


def test_tiny_gradients_survive_loss_scaling(half):
    tiny = 1e-9  # zero in half precision
    parameter = nn.Parameter(torch.zeros(1))
    HalfStep.apply(parameter).mul(tiny).sum().backward()
    assert parameter.grad.item() == 0
    parameter.grad = None
    scaler = make_scaler()
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    collected = GradientSum()
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(half_step(parameter, tiny, collected)).backward()
        scaler.unscale_(optimizer)
        scaler.update()
        assert parameter.grad.item() == pytest.approx(tiny, rel=2e-2)


def test_overflow_recovers(half):
    large = 100.0  # overflows in half precision above a scale of 655
    parameter = nn.Parameter(torch.zeros(1))
    scaler = make_scaler()
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    collected, steps = GradientSum(), []
    for _ in range(12):
        optimizer.zero_grad()
        scaler.scale(half_step(parameter, large, collected)).backward()
        before = parameter.item()
        scaler.step(optimizer)
        scaler.update()
        steps.append(before - parameter.item())
    assert steps[0] == 0  # skipped
    assert steps[-1] == pytest.approx(large, rel=1e-3)
    assert scaler.get_scale() >= 2.0**7


def test_backward_runs_outside_of_autocast():
    seen = []

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(torch.is_autocast_cpu_enabled())
            return gradient

    parameter = nn.Parameter(torch.ones(2))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        run_sum([parameter], [Watch.apply(parameter).sum()]).backward()
        assert torch.is_autocast_cpu_enabled()
    assert seen == [False]


def test_scale_follows_a_growing_scaler(half):
    parameter = nn.Parameter(torch.zeros(1))
    collected = GradientSum()
    for scale in (2.0**10, 2.0**12, 1.0, 2.0**14):
        parameter.grad = None
        (half_step(parameter, 0.25, collected) * scale).backward()
        assert parameter.grad.item() == 0.25 * scale


@pytest.mark.parametrize('weight', [0.0, float('inf')])
def test_a_loss_of_no_weight(half, weight):
    """A wrapper may weigh a step by 0: nothing is learned of the scale."""
    parameter = nn.Parameter(torch.zeros(1))
    collected = GradientSum()
    for factor in (2.0**10, weight, 2.0**10):
        parameter.grad = None
        (half_step(parameter, 0.25, collected) * factor).backward()
    assert parameter.grad.item() == 0.25 * 2.0**10


@pytest.mark.parametrize(
    'dtype, expected', [(torch.float16, True), (torch.bfloat16, False)]
)
def test_half_is_seen_in_cpu_autocast(dtype, expected):
    assert gradients._is_half() is False
    skip_without_autocast(dtype)
    with torch.autocast('cpu', dtype):
        assert gradients._is_half() is expected


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        hidden = checkpoint.checkpoint(
            lambda y: torch.relu(self.first(y)), x.requires_grad_()
        )
        return self.second(hidden)


def test_checkpointing_passes_autograd_grad():
    net, x = Checkpointed(), torch.randn(5, 3)
    plain = net.second(torch.relu(net.first(x))).sum()
    expected = torch.autograd.grad(plain, list(net.parameters()))
    with non_reentrant_checkpointing():
        run_sum(net.parameters(), [net(x).sum()]).backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)


def test_checkpointing_by_a_name_of_its_own(monkeypatch):
    """As the runner's, of modules that import the function itself."""
    from mmengine.runner import activation_checkpointing

    net, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(5, 3)
    expected = torch.autograd.grad(net(x).sum(), list(net.parameters()))
    activation_checkpointing.turn_on_activation_checkpointing(net, ['0'])
    with non_reentrant_checkpointing():
        run_sum(net.parameters(), [net(x).sum()]).backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)
    assert activation_checkpointing.checkpoint is checkpoint.checkpoint
    # Of the next cell of a notebook, too, which adds no module.
    cell = sys.modules['__main__']
    monkeypatch.setattr(cell, 'own', checkpoint.checkpoint, raising=False)
    with non_reentrant_checkpointing():
        loss = cell.own(net[1], net[0](x)).sum()
        run_sum(net.parameters(), [loss]).backward()
    assert cell.own is checkpoint.checkpoint
    # What somebody else has put there stays.
    monkeypatch.setattr(activation_checkpointing, 'checkpoint', run_sum)
    with non_reentrant_checkpointing():
        assert activation_checkpointing.checkpoint is run_sum
    assert activation_checkpointing.checkpoint is run_sum


def test_checkpointing_is_restored():
    stock = checkpoint.checkpoint
    with contextlib.suppress(KeyError), non_reentrant_checkpointing():
        assert checkpoint.checkpoint is not stock
        raise KeyError
    assert checkpoint.checkpoint is stock


def test_checkpointing_of_other_threads_stays_stock():
    """Blocks of two threads may overlap in any order."""
    stock = checkpoint.checkpoint
    entered, leave = threading.Event(), threading.Event()

    def overlap():
        with non_reentrant_checkpointing():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=overlap)
    net, x = Checkpointed(), torch.randn(5, 3)
    with non_reentrant_checkpointing():
        thread.start()
        entered.wait(10)
    # The other thread's block is not this one's: reentrant, as ever.
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loss = net(x).sum()
    with pytest.raises(RuntimeError):
        torch.autograd.grad(loss, list(net.parameters()))
    leave.set()
    thread.join()
    assert checkpoint.checkpoint is stock


def test_hooks_of_parameters_act_once():
    net = make_net()
    expected = [3 * g for g in joint_gradients(net)]
    handles = [p.register_hook(lambda g: 3 * g) for p in net.parameters()]
    run_sum(net.parameters(), losses_of(net)).backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(parameter.grad, gradient)
    for handle in handles:
        handle.remove()
    net.zero_grad()
    run_sum(net.parameters(), losses_of(net)).backward()
    for parameter, gradient in zip(net.parameters(), expected):
        torch.testing.assert_close(3 * parameter.grad, gradient)


def joint_gradients(net):
    return torch.autograd.grad(sum(losses_of(net)), list(net.parameters()))
