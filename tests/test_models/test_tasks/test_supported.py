"""Models that no task serves are refused by name, with what is supported."""

import pytest
from mmengine.config import ConfigDict
from mmengine.registry import MODELS

from mutualnet_mm import ConfigError

CLASSIFIERS = ['TimmClassifier', 'HuggingFaceClassifier']


def refusal(config):
    with pytest.raises(ConfigError) as error:
        MODELS.build(config)
    message = str(error.value)
    assert '\n' not in message and 'NoneType' not in message
    return message


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_classifiers_without_a_backbone(enter_scope, name):
    """Before they are built: their packages need not be there."""
    enter_scope('mmpretrain')
    message = refusal(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps=f'mmpretrain.{name}',
            mutual=dict(resolution=(64, 48)),
            model_name='resnet18',
        )
    )
    assert name in message and 'model.backbone' in message
    assert 'ImageClassifier of mmpretrain' in message


def test_a_student_and_its_teacher(detector_config):
    message = refusal(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='mmdet.SoftTeacher',
            mutual=dict(resolution=(64, 48)),
            detector=detector_config(),
        )
    )
    assert "wraps='SoftTeacher' holds a student and a teacher" in message
    assert "use type='SemiBaseDetector'" in message


def test_trackers(enter_scope):
    enter_scope('mmdet')
    message = refusal(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='mmdet.ByteTrack',
            mutual=dict(resolution=(64, 48)),
        )
    )
    assert "wraps='ByteTrack' follows what a detector finds" in message


@pytest.mark.parametrize('frames', [None, (4, 2)])
def test_detectors_of_objects_over_clips(enter_scope, slow_model, frames):
    """AVA's detector has a head of mmaction2."""
    pytest.importorskip('mmaction')
    enter_scope('mmdet')
    enter_scope('mmaction')
    video = slow_model(resolution=(32, 24), frames=(4, 2))
    mutual = dict(resolution=(32, 24))
    if frames:
        mutual.update(frames=frames)
    message = refusal(
        dict(
            type='mutualnet_mm.MutualLearning',
            wraps='mmdet.FastRCNN',
            _scope_='mmdet',
            mutual=mutual,
            backbone=video['backbone'],
            roi_head=dict(
                type='StandardRoIHead',
                bbox_roi_extractor=dict(
                    type='SingleRoIExtractor',
                    roi_layer=dict(type='RoIAlign', output_size=7),
                    out_channels=128,
                    featmap_strides=[16],
                ),
                bbox_head=dict(
                    type='Shared2FCBBoxHead',
                    in_channels=128,
                    fc_out_channels=8,
                    num_classes=3,
                ),
            ),
            train_cfg=ConfigDict(rcnn=None),
            test_cfg=ConfigDict(rcnn=None),
        )
    )
    assert 'FastRCNN over clips' in message and 'AVARoIHead' in message
    assert 'Recognizer3D' in message and 'leave it out' not in message
