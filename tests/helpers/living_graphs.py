"""What is left of the graphs of a step's passes when the next one begins."""

from weakref import WeakSet

import torch


class Saved:
    """What a graph keeps for its backward."""

    def __init__(self, tensor):
        self.tensor = tensor.detach()  # or an output would keep its graph


def left_behind(model, inputs, samples):
    """Tensors that graphs of a step still keep, as each pass begins."""
    living, left, activate = WeakSet(), [], model.activate

    def watched(*args, **kwargs):
        left.append(len(living))
        return activate(*args, **kwargs)

    def keep(tensor):
        saved = Saved(tensor)
        living.add(saved)
        return saved

    model.activate = watched
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda s: s.tensor):
        model.loss(inputs, samples)
    return left
