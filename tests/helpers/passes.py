"""Passes that the model itself refuses, as references for tests."""

from mutualnet_mm import Subnet
from mutualnet_mm.models import static_model
from mutualnet_mm.slimmable import slim_batch_norms


def on_running_statistics(model, subnet):
    """Activate a subnet with the running statistics, whatever its width."""
    subnet = Subnet.parse(subnet)
    return model.slim_state.activate(
        subnet.width,
        model.input_scale(subnet),
        subnet.frames,
        track_stats=False,
    )


def stock_loss(model, inputs, samples):
    """Losses of the active subnet alone, by the stock class."""
    with model._own_call():
        return type(model).stock_class.loss(model, inputs, samples)


def leading_statistics(model, subnet):
    """The running statistics of the channels that a subnet has."""
    layers = dict(static_model(model, subnet).named_modules())
    return {
        name: (layers[name].running_mean, layers[name].running_var)
        for name, _ in slim_batch_norms(model)
    }
