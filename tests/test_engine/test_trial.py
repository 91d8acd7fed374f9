import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.engine import trial
from mutualnet_mm.engine.trial import (
    TrialError,
    init_from_scratch,
    trial_stage,
    try_prediction,
    try_training,
)


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError('sizes do not fit\nsecond line')


class Tolerates(nn.Module):
    """Catches what a part of it raises, and runs on."""

    def __init__(self):
        super().__init__()
        self.part = Fails()

    def forward(self, x):
        try:
            return self.part(x)
        except RuntimeError:
            return x


class Model(nn.Module):
    """Of the interface of a stock model."""

    def __init__(self, layer, scale=1.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 2), layer)
        self.scale = scale

    def data_preprocessor(self, batch, training):
        return dict(inputs=batch['inputs'], data_samples=[])

    def forward(self, inputs, data_samples, mode):
        found = self.layers(inputs)
        return dict(loss=found.sum() * self.scale, accuracy=torch.ones(1))

    def parse_losses(self, losses):
        return losses['loss'], losses


BATCH = dict(inputs=torch.ones(1, 2))


def failure(run, *args):
    with pytest.raises(TrialError) as error:
        run(*args)
    return error.value


def test_a_step_and_a_prediction():
    model = Model(Tolerates())
    weights = [p.clone() for p in model.parameters()]
    try_training(model, BATCH)
    assert all(map(torch.equal, weights, model.parameters()))
    assert model.layers[0].bias.grad.tolist() == [1.0, 1.0]
    assert model.training
    try_prediction(model, BATCH)
    assert not model.training


class Counts(nn.Module):
    """Asks the runner how far it is, as stock heads do."""

    def forward(self, x):
        hub = MessageHub.get_current_instance()
        return x * (hub.get_info('iter') + hub.get_info('epoch') + 1)


def test_layers_that_count():
    hub = MessageHub.get_current_instance()
    try_training(Model(Counts()), BATCH)
    assert not hub.runtime_info
    hub.update_info('iter', 7)
    try_training(Model(Counts()), BATCH)
    assert dict(hub.runtime_info) == dict(iter=7)


@pytest.mark.parametrize(
    'run, stage', [(try_training, 'loss'), (try_prediction, 'predict')]
)
def test_the_layer_is_named(run, stage):
    """The one that raised, not one that raised and was caught before."""
    model = Model(nn.Sequential(Tolerates(), Fails()))
    error = failure(run, model, BATCH)
    assert error.stage == stage
    assert error.reason == 'in layers.1.1: RuntimeError: sizes do not fit'
    assert str(error) == f'{stage}: {error.reason}'


@pytest.mark.parametrize(
    'model, batch, stage, reason',
    [
        (Model(nn.Identity()), {}, 'data', "KeyError: 'inputs'"),
        (
            Model(nn.Identity(), float('nan')),
            BATCH,
            'loss',
            'the loss loss is not finite',
        ),
        (
            Model(nn.Identity()).requires_grad_(False),
            BATCH,
            'backward',
            'RuntimeError: element 0 of tensors does not require grad and '
            'does not have a grad_fn',
        ),
    ],
)
def test_stages(model, batch, stage, reason):
    error = failure(try_training, model, batch)
    assert (error.stage, error.reason) == (stage, reason)


class Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad / 0


class Steep(nn.Module):
    def forward(self, x):
        return Explodes.apply(x)


def test_infinite_gradients():
    error = failure(try_training, Model(Steep()), BATCH)
    assert error.stage == 'backward'
    assert error.reason == ('the gradient of layers.0.weight is not finite')


def test_refusals_pass_in_one_line():
    with pytest.raises(TrialError) as error, trial_stage('build'):
        raise ConfigError('layers.1 cannot be slimmed')
    assert str(error.value) == 'build: layers.1 cannot be slimmed'
    with pytest.raises(TrialError) as error, trial_stage('build'):
        raise AssertionError
    assert error.value.reason == 'AssertionError'


@pytest.mark.parametrize(
    'kind, logged', [(RuntimeError, True), (ConfigError, False)]
)
def test_the_traceback_is_logged(kind, logged, monkeypatch):
    """Of defects alone; so is it chained to what is raised."""

    def somewhere_deep():
        raise kind('it broke')

    said = []
    monkeypatch.setattr(
        trial, 'print_log', lambda text, **_: said.append(text)
    )
    with pytest.raises(TrialError) as error, trial_stage('loss'):
        somewhere_deep()
    assert isinstance(error.value.__cause__, kind)
    assert ('in somewhere_deep' in ''.join(said)) == logged


class Loads(nn.Module):
    """As mmaction2's TSM does."""

    pretrained, pretrained2d, done = None, True, False

    def init_weights(self):
        assert not self.pretrained2d or self.pretrained, 'which weights?'
        self.done = True


@pytest.mark.parametrize('path, is_2d', [(None, False), ('a.pth', True)])
def test_weights_that_nobody_named(path, is_2d):
    model = Loads()
    model.pretrained = path
    init_from_scratch(model)
    assert model.done and model.pretrained2d == is_2d
