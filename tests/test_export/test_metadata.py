"""What an exported file says of its inputs."""

import json
from unittest.mock import create_autospec

import adaptive_networks as nets
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch_versions import needs_export

import mutualnet_mm
from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveModel
from mutualnet_mm.export.export import export_subnet
from mutualnet_mm.export.metadata import program_metadata

SCOPES = dict(classifier='mmpretrain', detector='mmdet', slowfast='mmaction')
PIXELS = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])


@pytest.fixture(scope='module')
def files():
    """Adaptive files without other settings, once they were made."""
    return {}


@pytest.fixture
def make_net(request, files):
    def make(kind, **settings):
        pytest.importorskip(SCOPES[kind])
        request.getfixturevalue('enter_scope')(SCOPES[kind])
        file = files.get(kind)
        if file is None or settings:
            file = nets.adaptive_file(kind, request, **settings)
            file.dataset_meta = dict(classes=('a', 'b', 'c', 'd'))
        if not settings:
            files[kind] = file
        return AdaptiveModel(file)

    return make


@needs_export
def test_the_file_alone_is_enough(make_net, tmp_path):
    """A picture is brought to an ONNX file's inputs by what it says."""
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    net = make_net('classifier', data_preprocessor=dict(PIXELS, to_rgb=True))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (32, 32, 3), np.uint8)
    path = tmp_path / 'a.onnx'
    export_subnet(net, '0.5x-24', 'onnx', path, [image])
    net.use('0.5x-24')

    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    said = session.get_modelmeta().custom_metadata_map
    (wanted,) = session.get_inputs()
    assert image.shape[0] == int(said['full_resolution'])
    assert (said['channel_order'], said['subnet']) == ('RGB', '0.5x-24')
    pixels = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.float32)
    pixels -= np.array(json.loads(said['mean']), np.float32)
    pixels /= np.array(json.loads(said['std']), np.float32)
    inputs = F.interpolate(
        torch.from_numpy(pixels.transpose(2, 0, 1))[None],
        wanted.shape[2:],
        mode='bilinear',
        antialias=True,
    )
    (logits,) = session.run(['logits'], {wanted.name: inputs.numpy()})
    scores = torch.from_numpy(logits)[0].softmax(0)
    (found,) = net([image])
    torch.testing.assert_close(scores, found.pred_score, rtol=1e-4, atol=1e-6)
    names = json.loads(said['classes'])
    assert names[int(scores.argmax())] == 'abcd'[int(found.pred_label)]


def test_of_a_detector(make_net):
    net = make_net('detector')
    for model in (net.model, net._origin):
        model.data_preprocessor = type(model.data_preprocessor)(
            **PIXELS, pad_size_divisor=32, bgr_to_rgb=False
        )
    assert program_metadata(net, Subnet.parse('0.5x-48')) == dict(
        PIXELS,
        mutualnet_mm=mutualnet_mm.__version__,
        subnet='0.5x-48',
        task='detection',
        full_resolution=64,
        channel_order='BGR',
        classes=['a', 'b', 'c', 'd'],
        pad_size_divisor=32,
        pad_value=0,
    )


def test_of_a_recognizer(make_net):
    net = make_net('slowfast')
    found = program_metadata(net, Subnet.parse('0.63x-25-3'))
    assert (found['full_resolution'], found['full_frames']) == (32, 4)
    assert found['task'] == 'action'
    assert found['mean'] == found['std'] == []  # nothing is normalised
    json.dumps(found)


@pytest.mark.parametrize(
    'kind, to_rgb, steps, order',
    [
        ('classifier', False, ['LoadImageFromFile', 'PackInputs'], 'BGR'),
        ('classifier', True, ['LoadImageFromFile', 'PackInputs'], 'RGB'),
        ('classifier', False, ['PackInputs'], "the data set's arrays"),
        (
            'classifier',
            True,
            ['PackInputs'],
            "reverse of the data set's arrays",
        ),
        ('slowfast', False, None, 'RGB'),
        ('slowfast', True, None, 'BGR'),
    ],
)
def test_channel_order(kind, to_rgb, steps, order, make_net):
    settings = {}
    if steps is not None:
        pipeline = [dict(type=step) for step in steps]
        dataset = dict(type='CIFAR10', pipeline=pipeline)
        settings = dict(test_dataloader=dict(dataset=dataset))
    net = make_net(kind, **settings)
    for model in (net.model, net._origin):
        model.data_preprocessor.to_rgb = to_rgb
    subnet = net.model.space.full
    assert program_metadata(net, subnet)['channel_order'] == order


@pytest.mark.parametrize(
    'step, expected',
    [
        (
            dict(type='Normalize', **PIXELS, to_rgb=True),
            dict(PIXELS, channel_order='RGB'),
        ),
        (
            dict(type='Normalize', **PIXELS, to_rgb=False),
            dict(PIXELS, channel_order='BGR'),
        ),
        (None, dict(mean=[], std=[], channel_order='BGR')),
        (
            dict(type='Solarize', thr=100, prob=1.0),
            dict(
                mean=[],
                std=[],
                channel_order='BGR, and more than a mean and a std for each '
                'channel',
            ),
        ),
    ],
)
def test_colours_that_the_pipeline_makes(step, expected, make_net):
    """What the network is fed counts, whoever makes it."""
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    if step is not None:
        steps.insert(1, step)
    net = make_net(
        'classifier',
        data_preprocessor=dict(mean=None, std=None, to_rgb=False),
        test_dataloader=dict(dataset=dict(type='CIFAR10', pipeline=steps)),
    )
    found = program_metadata(net, net.model.space.full)
    assert {name: found[name] for name in expected} == expected


def test_images_that_are_not_resized(make_net):
    """As large as the network asks for, or what is declared counts."""
    steps = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    net = make_net(
        'classifier',
        data_preprocessor=dict(PIXELS, to_rgb=True),
        test_dataloader=dict(dataset=dict(type='CIFAR10', pipeline=steps)),
    )
    sides = []
    prepare = net.inputs

    def refuse_small(images, *args):
        sides.append(len(images[0]))
        if len(images[0]) < 100:
            raise UsageError('too small')
        return prepare(images, *args)

    net.inputs = create_autospec(prepare, side_effect=refuse_small)
    net.inputs.channel_order = 'BGR'
    found = program_metadata(net, net.model.space.full)
    assert sides == [64]  # the full resolution is below
    assert found['mean'] == PIXELS['mean']
    assert found['channel_order'] == 'RGB'
