"""Backbones that classify by themselves: scores of all classes."""

import pytest
import torch
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError

pytest.importorskip('mmpretrain')


def classifier(**backbone):
    return MODELS.build(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='mmpretrain.ImageClassifier',
            mutual=dict(width_range=(0.5, 1.0), resolution=(32,)),
            backbone=dict(backbone, type='mutualnet_mm.Slimmable'),
            head=dict(type='mmpretrain.ClsHead', loss=dict(LOSS)),
        )
    )


LOSS = dict(type='mmpretrain.CrossEntropyLoss', loss_weight=1.0)


def test_scores_of_all_classes_at_any_width(enter_scope):
    enter_scope('mmpretrain')
    net = classifier(wraps='LeNet5', num_classes=10)
    x = torch.randn(2, 1, 32, 32)
    full = net(x, mode='tensor')
    with net.activate('0.5x-32'):
        narrow = net(x, mode='tensor')
    assert full.shape == narrow.shape == (2, 10)


def test_without_its_classifier_it_narrows(enter_scope):
    enter_scope('mmpretrain')
    net = MODELS.build(dict(type='mutualnet_mm.Slimmable', wraps='LeNet5'))
    assert net.slim_joints.outputs == (None,)


def test_the_auxiliary_classifier_is_refused(enter_scope):
    enter_scope('mmpretrain')
    with pytest.raises(ConfigError, match='AuxLogits.*leave aux_logits=True'):
        MODELS.build(
            dict(
                type='mutualnet_mm.Slimmable',
                wraps='InceptionV3',
                aux_logits=True,
            )
        )
