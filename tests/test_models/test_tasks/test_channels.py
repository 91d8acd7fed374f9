"""Inputs of other than three channels, wherever one is made up."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.cost import count_macs
from mutualnet_mm.deploy.inputs import InputPipeline


def flops(model, inputs, **kwargs):
    """Multiply-accumulates of a full pass without the pooling."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(inputs, **kwargs)
    return counter.get_total_flops() // 2


@pytest.fixture
def grey_config(classifier_config):
    model = classifier_config(
        dict(resolution=(32, 16)), in_channels=1, norm_eval=False
    )
    model['data_preprocessor'] = dict(mean=[127.0], std=[60.0])
    load = dict(type='LoadImageFromFile', color_type='grayscale')
    steps = [load, dict(type='Resize', scale=32), dict(type='PackInputs')]
    dataset = dict(type='CustomDataset', data_root='.', pipeline=steps)
    return Config(
        dict(
            default_scope='mmpretrain',
            model=model,
            test_dataloader=dict(dataset=dataset),
        )
    )


def test_a_grey_classifier(grey_config, tmp_path):
    import cv2

    model = MODELS.build(grey_config.model)
    assert model.task.input_shape(model, Subnet(0.5, 16), None) == (
        *(1, 1, 16, 16),
    )
    pooled = 128  # of a map of 1 x 1
    counted = count_macs(model, '1.0x-32')
    assert counted == pooled + flops(model, torch.zeros(1, 1, 32, 32))
    pipeline = InputPipeline(grey_config, model)
    assert pipeline.tensor_shape((48, 64)) == (1, 32, 32)
    assert pipeline.channel_order is None
    image = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    file = str(tmp_path / 'grey.png')
    cv2.imwrite(file, image)
    expected = (torch.tensor(image)[None, None].float() - 127) / 60
    for given in (image, file, image[..., None], expected, expected[0]):
        inputs, samples = pipeline(given)
        torch.testing.assert_close(inputs, expected)
        assert len(samples) == 1
    with pytest.raises(UsageError, match=r'give \(H, W\), grey'):
        pipeline(np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(UsageError, match=r'\(1, H, W\) or \(N, 1, H, W\)'):
        pipeline(torch.zeros(1, 3, 32, 32))


def test_a_pipeline_of_other_channels_than_the_network(grey_config, tmp_path):
    import cv2

    file = str(tmp_path / 'colours.png')
    cv2.imwrite(file, np.zeros((32, 32, 3), np.uint8))
    steps = grey_config.test_dataloader.dataset.pipeline
    steps[0].color_type = 'color'
    grey_config.model.data_preprocessor = None
    model = MODELS.build(grey_config.model)
    with pytest.raises(UsageError) as error:
        InputPipeline(grey_config, model)(file)
    message = str(error.value)
    assert 'makes 3 channels' in message and 'takes 1' in message


def test_a_detector_of_four_channels(detector_config, detection_pipeline):
    config = detector_config(in_channels=4)
    config.data_preprocessor.update(mean=None, std=None, bgr_to_rgb=False)
    model = MODELS.build(config)
    shape = model.task.input_shape(model, Subnet(0.5, 48), (60, 80))
    assert shape == (1, 4, 64, 64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval().extract_feat(torch.zeros(1, 4, 64, 96))
    expected = counter.get_total_flops() // 2
    assert count_macs(model, '1.0x-64', (60, 80)) == expected
    steps = detection_pipeline(False)
    cfg = Config(
        dict(
            default_scope='mmdet',
            test_dataloader=dict(dataset=dict(pipeline=steps)),
        )
    )
    pipeline = InputPipeline(cfg, model)
    assert pipeline.tensor_shape((48, 64)) == (4, 48, 64)
    assert pipeline.channel_order == 'BGRA'
    image = np.zeros((60, 80, 4), np.uint8)
    image[..., 3] = 9
    inputs, _ = pipeline(image)
    assert inputs.shape == (1, 4, 64, 96)
    assert inputs[0, :, 5, 5].tolist() == [0, 0, 0, 9]
    inputs, _ = pipeline(torch.zeros(4, 60, 80))
    assert inputs.shape == (1, 4, 64, 96)


STEPS = {
    17: [
        dict(type='UniformSampleFrames', clip_len=4, test_mode=True),
        dict(type='PoseDecode'),
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='GeneratePoseTarget', double=True),
        dict(type='FormatShape', input_format='NCTHW_Heatmap'),
        dict(type='PackActionInputs'),
    ],
    2: [
        dict(type='SampleFrames', clip_len=4, test_mode=True),
        dict(type='RawFrameDecode'),
        dict(type='CenterCrop', crop_size=32),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ],
}


@pytest.mark.parametrize('channels', sorted(STEPS))
def test_poses_and_flow(enter_scope, slow_model, channels):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    model = slow_model(resolution=(32, 24), frames=(4, 2))
    model['backbone'].update(in_channels=channels)
    model['data_preprocessor'] = None
    settings = copy.deepcopy(model)
    net = MODELS.build(model)
    shape = net.task.input_shape(net, Subnet(0.5, 24, 2), None)
    assert shape == (1, 1, channels, 2, 24, 24)
    clips = torch.zeros(1, 1, channels, 4, 32, 32)
    counted = count_macs(net, '1.0x-32-4')
    pooled = counted - flops(net, clips, mode='tensor', stage='head')
    assert pooled == 128 * 4  # a map of 1 x 1, at each frame
    dataset = dict(pipeline=STEPS[channels], modality='Flow')
    cfg = Config(
        dict(
            default_scope='mmaction',
            model=settings,
            test_dataloader=dict(dataset=dataset),
        )
    )
    pipeline = InputPipeline(cfg, net)
    assert pipeline.tensor_shape((48, 64)) == (1, channels, 4, 32, 32)
    inputs, samples = pipeline(clips[0])
    assert inputs.shape == clips.shape and len(samples) == 1
    if channels == 17:
        assert pipeline.channel_order == 'maps of poses'
        with pytest.raises(UsageError, match='made of poses .* tensor'):
            pipeline('poses.pkl')
        return
    assert pipeline.channel_order == 'xy'
    array = np.random.default_rng(0).integers(0, 256, (4, 40, 48, 2), np.uint8)
    inputs, _ = pipeline(array)
    expected = torch.tensor(array[:, 4:36, 8:40]).permute(3, 0, 1, 2)
    assert torch.equal(inputs[0, 0], expected.float())
    with pytest.raises(UsageError, match='of flow in x and y, frames put'):
        pipeline(array[..., :1])


def test_poses_are_tested_twice(enter_scope):
    """Mirrored, too."""
    from mutualnet_mm.config import TestViews, find_views

    dataset = dict(pipeline=STEPS[17])
    mutual = dict(resolution=(32, 24), frames=(4, 2))
    cfg = Config(
        dict(model=dict(mutual=mutual), test_dataloader=dict(dataset=dataset))
    )
    assert find_views(cfg) == TestViews(2, (32, 32))
