"""What another process does with a network that it is given.

A process that is started anew imports this file, as it could no test.
"""

import torch


def score(net, image):
    """Predict; return the subnet that ran and its scores."""
    sample = net(image)[0]
    return sample.subnet, sample.pred_score.clone()


def predict(net, image, subnet, answers):
    """Predict with the subnet that it comes with, and then with another."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    name, first = score(net, image)
    net.use(subnet)
    answers.put((name, first.numpy(), score(net, image)[1].numpy()))
