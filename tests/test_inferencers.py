"""Stock inferencers run exported networks as they run stock ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS
from torch import nn

import mutualnet_mm
from mutualnet_mm import Subnet
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel, build_model
from mutualnet_mm.engine import calibrate
from mutualnet_mm.export.checkpoint_file import save_stock
from mutualnet_mm.query_table import QueryTable, TableEntry

ROOT = Path(__file__).parents[1]
CLASSES = ['box', 'triangle', 'circle', 'line']


def export(cfg, batch, subnet, root):
    """Write the full network and a subnet; return network and files.

    ``batch`` is what the subnet is calibrated on.
    """
    model = build_model(cfg)
    model.init_weights()
    for name, tensor in model.state_dict().items():
        if name.endswith(('running_var', 'running_mean')):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1 and tensor.is_floating_point():
            tensor.uniform_(0.3, 1.0)
        elif 'fc' in name:
            nn.init.normal_(tensor)  # so that classes differ
    full, narrow = model.space.full, Subnet.parse(subnet)
    entries = [TableEntry(s, 10, 10, dict(score=1.0)) for s in (full, narrow)]
    file = AdaptiveFile(
        config=cfg.pretty_text,
        weights=dict(model.state_dict()),
        statistics=calibrate(model, [narrow], [batch]),
        table=QueryTable(entries, 'score', model.task.name, full, 8),
        width=(model.space.min_width, model.space.max_width),
        rounding=model.slim_state.rounding,
        calibration=dict(num_batches=1, dataloader=None),
        dataset_meta=dict(classes=CLASSES),
    )
    net = AdaptiveModel(file)
    root.mkdir()
    return net, {
        str(s): tuple(map(str, save_stock(net, s, root / f'{s}.pth')[::-1]))
        for s in (full, narrow)
    }


@torch.no_grad()
def as_the_loop(net, subnet, packed):
    """Predict as ``SubnetTestLoop`` does what a stock pipeline delivers."""
    model = net.model
    subnet = Subnet.parse(subnet)
    data = model.data_preprocessor(pseudo_collate([packed]), False)
    inputs, samples = model.task.resize(
        model, data['inputs'], data['data_samples'], subnet
    )
    statistics = net.file.statistics.get(str(subnet))
    with model.activate(subnet, statistics):
        return model(inputs, samples, mode='predict')[0]


@torch.no_grad()
def as_stock(settings, weights, packed):
    """Predict with a stock model, written down by hand."""
    model = MODELS.build(settings).eval()
    model.load_state_dict(weights, strict=True)
    return model.test_step(pseudo_collate([packed]))[0]


PREPROCESSOR = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0])


@pytest.fixture
def classifier(classifier_config, image_batch, tmp_path):
    """Network, files and pictures."""
    rng = np.random.default_rng(0)
    for i in range(2):
        picture = rng.integers(0, 255, (70 + i, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f'{i}.png'), picture)
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='ResizeEdge', scale=70, edge='short'),
        dict(type='CenterCrop', crop_size=64),
        dict(type='PackInputs'),
    ]
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            custom_imports=dict(imports=['mutualnet_mm']),
            data_preprocessor=dict(PREPROCESSOR, to_rgb=True),
            model=classifier_config(),
            test_dataloader=dict(
                dataset=dict(type='CustomDataset', pipeline=steps)
            ),
        )
    )
    images, samples = image_batch(8, seed=1)
    batch = dict(inputs=images * 60 + 120, data_samples=samples)
    pictures = [str(tmp_path / f'{i}.png') for i in range(2)]
    return *export(cfg, batch, '0.5x-48', tmp_path / 'cls'), pictures


def test_classifier(classifier):
    from mmpretrain import ImageClassificationInferencer, get_model

    net, exported, pictures = classifier
    pipeline = Compose(net.cfg.test_dataloader.dataset.pipeline)
    packed = [pipeline(dict(img_path=picture)) for picture in pictures]
    stock = dict(
        type='ImageClassifier',
        backbone=dict(
            type='ResNet', depth=18, stem_channels=16, base_channels=16
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=4, in_channels=128),
        data_preprocessor=dict(PREPROCESSOR, to_rgb=True),
    )
    arrays = list(map(cv2.imread, pictures))
    for subnet, (config, checkpoint) in exported.items():
        inferencer = ImageClassificationInferencer(
            config, pretrained=checkpoint, device='cpu'
        )
        model = get_model(config, pretrained=checkpoint, device='cpu')
        again = ImageClassificationInferencer(model)
        expected = [as_the_loop(net, subnet, p) for p in packed]
        if subnet == '1.0x-64':
            weights = net.file.weights
            plain = [as_stock(stock, weights, p) for p in packed]
            for ours, theirs in zip(expected, plain):
                assert torch.equal(ours.pred_score, theirs.pred_score)
        for results in (
            inferencer(pictures),
            inferencer(arrays),
            again(arrays),
        ):
            for found, wanted in zip(results, expected):
                scores = torch.from_numpy(found['pred_scores'])
                assert torch.equal(scores, wanted.pred_score)
                label = wanted.pred_label.item()
                assert found['pred_label'] == label
                assert found['pred_class'] == CLASSES[label]
        both = inferencer(pictures, batch_size=2)
        for found, wanted in zip(both, expected):
            torch.testing.assert_close(
                torch.from_numpy(found['pred_scores']), wanted.pred_score
            )


@pytest.fixture
def detector(detector_config, coco_dataset, load_batch, tiny_coco, tmp_path):
    """Network, files and pictures."""
    # As where it is deployed: there is no data.
    dataset = dict(coco_dataset('val'), ann_file='not-here.json')
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=detector_config().to_dict(),
            test_dataloader=dict(dataset=dataset),
            visualizer=dict(type='DetLocalVisualizer'),
        )
    )
    pictures = [str(tiny_coco / f'val{i}.png') for i in (0, 3)]
    return *export(cfg, load_batch(), '0.5x-48', tmp_path / 'det'), pictures


def same_instances(found, wanted):
    keys = ('scores', 'labels', 'bboxes', 'masks')
    found, wanted = found.pred_instances, wanted.pred_instances
    assert len(found) == len(wanted) > 0
    assert all(torch.equal(found[key], wanted[key]) for key in keys)


def test_detector(detector, detector_config):
    from mmdet.apis import DetInferencer, inference_detector, init_detector

    net, exported, pictures = detector
    steps = net.cfg.test_dataloader.dataset.pipeline
    # Nobody has annotations of a new picture.
    steps = [s for s in steps if s['type'] != 'LoadAnnotations']
    pipeline = Compose(steps)
    packed = [pipeline(dict(img_path=p, img_id=0)) for p in pictures]
    stock = detector_config()
    stock.type = stock.pop('wraps')
    del stock.mutual
    stock.backbone.update(type=stock.backbone.pop('wraps'))
    arrays = list(map(cv2.imread, pictures))
    for subnet, (config, checkpoint) in exported.items():
        inferencer = DetInferencer(config, checkpoint, device='cpu')
        expected = [as_the_loop(net, subnet, p) for p in packed]
        if subnet == '1.0x-64':
            weights = net.file.weights
            plain = [as_stock(stock, weights, p) for p in packed]
            for ours, theirs in zip(expected, plain):
                same_instances(ours, theirs)
        for images in (pictures, arrays):
            found = inferencer(images, return_datasamples=True)['predictions']
            for ours, theirs in zip(found, expected):
                same_instances(ours, theirs)
        as_dict = inferencer(pictures[0], return_vis=True)
        labels = expected[0].pred_instances.labels.tolist()
        assert as_dict['predictions'][0]['labels'] == labels
        assert as_dict['visualization'][0].shape == arrays[0].shape
        assert inferencer.visualizer.dataset_meta['classes'] == CLASSES
        alone = DetInferencer(weights=checkpoint, device='cpu')
        found = alone(pictures[:1], return_datasamples=True)['predictions']
        same_instances(found[0], expected[0])
        model = init_detector(config, checkpoint, device='cpu')
        same_instances(inference_detector(model, pictures[0]), expected[0])


SAMPLE = dict(
    type='SampleFrames',
    clip_len=4,
    frame_interval=2,
    num_clips=2,
    test_mode=True,
)
FINISH = [
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
RECOGNIZER = dict(
    backbone=dict(
        type='ResNet3dSlowOnly',
        depth=18,
        base_channels=16,
        conv1_kernel=(1, 7, 7),
        inflate=(0, 0, 1, 1),
        norm_eval=False,
    ),
    cls_head=dict(
        type='I3DHead', in_channels=128, num_classes=4, average_clips='prob'
    ),
    data_preprocessor=dict(
        PREPROCESSOR, type='ActionDataPreprocessor', format_shape='NCTHW'
    ),
)


def reading(decoder):
    return [
        dict(type=f'{decoder}Init'),
        dict(SAMPLE),
        dict(type=f'{decoder}Decode'),
    ]


def finishing(crop):
    return [
        dict(type='Resize', scale=(-1, 40)),
        dict(type=crop, crop_size=40),
        *FINISH,
    ]


@pytest.fixture
def video(tmp_path):
    path = str(tmp_path / 'video.avi')
    writer = cv2.VideoWriter(
        path, cv2.VideoWriter_fourcc(*'MJPG'), 15, (64, 48)
    )
    if not writer.isOpened():
        pytest.skip('this OpenCV writes no videos')
    still = np.random.default_rng(0).integers(0, 150, (48, 64, 3), np.uint8)
    for t in range(24):
        frame = still.copy()
        frame[10:30, 2 * t : 2 * t + 12, t % 3] += 100
        writer.write(frame)
    writer.release()
    return path


@pytest.fixture(params=['Decord'])
def recognizer(request, enter_scope, tmp_path):
    """Network and files; the config reads by ``ReadClip``."""
    pytest.importorskip('decord')  # of which the stock inferencer reads
    enter_scope('mmaction')
    clip = dict(
        type='mutualnet_mm.ReadClip', transforms=reading(request.param)
    )
    pipeline = [clip, *finishing('ThreeCrop')]
    cfg = Config(
        dict(
            default_scope='mmaction',
            model=dict(
                RECOGNIZER,
                type='mutualnet_mm.MutualLearning',
                wraps='Recognizer3D',
                mutual=dict(
                    width_range=(0.5, 1.0), resolution=(32, 24), frames=(4, 2)
                ),
                backbone=dict(
                    RECOGNIZER['backbone'],
                    type='mutualnet_mm.SlimmableResNet3dSlowOnly',
                ),
            ),
            test_pipeline=pipeline,
            test_dataloader=dict(
                dataset=dict(
                    type='VideoDataset', ann_file='', pipeline=pipeline
                )
            ),
            visualizer=dict(type='ActionVisualizer'),
        )
    )
    from mmaction.structures import ActionDataSample

    clips = torch.rand(8, 1, 3, 4, 32, 32) * 255
    samples = [ActionDataSample() for _ in clips]
    batch = dict(inputs=list(clips), data_samples=samples)
    return *export(cfg, batch, '0.5x-24-2', tmp_path / 'rec'), request.param


@pytest.fixture
def count(monkeypatch):
    """Return how often a call opens a video, and the views it makes."""
    decord = pytest.importorskip('decord')
    opened = []
    reader = decord.VideoReader
    monkeypatch.setattr(
        decord,
        'VideoReader',
        lambda *args, **kwargs: opened.append(1) or reader(*args, **kwargs),
    )

    def counted(model, predict, *args, **kwargs):
        shapes = []
        handle = model.backbone.register_forward_hook(
            lambda module, inputs, out: shapes.append(len(inputs[0]))
        )
        opened.clear()
        result = predict(*args, **kwargs)
        handle.remove()
        return result, sum(shapes), len(opened)

    return counted


def frames_of(video):
    reader, frames = cv2.VideoCapture(video), []
    while True:
        found, frame = reader.read()
        if not found:
            return np.stack(frames)
        frames.append(frame[..., ::-1])


def one_view(results, *steps):
    """One clip, its centre; ``steps`` are those that open and decode."""
    *init, decode = (dict(type=step) for step in steps)
    sample = dict(SAMPLE, num_clips=1)
    return Compose([*init, sample, decode, *finishing('CenterCrop')])(results)


def stock_recognizer(decoder):
    """The config of the full network, written down by hand."""
    pipeline = [*reading(decoder), *finishing('ThreeCrop')]
    return Config(
        dict(
            default_scope='mmaction',
            model=dict(RECOGNIZER, type='Recognizer3D'),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            visualizer=dict(type='ActionVisualizer'),
        )
    )


def test_recognizer_inferencers(recognizer, video, count, tmp_path):
    """One view of a video, opened once, or of an array, as of a stock one."""
    from mmaction.apis.inferencers import (
        ActionRecogInferencer,
        MMAction2Inferencer,
    )

    net, exported, decoder = recognizer
    frames = frames_of(video)
    packed = dict(
        video=one_view(
            dict(filename=video, start_index=0), 'DecordInit', 'DecordDecode'
        ),
        array=one_view(
            dict(array=frames, total_frames=24, start_index=0, modality='RGB'),
            'ArrayDecode',
        ),
    )
    inputs = dict(video=video, array=frames)
    torch.save(dict(state_dict=net.file.weights), tmp_path / 'stock.pth')
    stock = (stock_recognizer(decoder), str(tmp_path / 'stock.pth'))
    for kind in ('video', 'array'):
        opens = int(kind == 'video')
        for name, (config, weights) in dict(exported, stock=stock).items():
            subnet = '1.0x-32-4' if name == 'stock' else name
            scores = as_the_loop(net, subnet, packed[kind]).pred_score
            inferencer = ActionRecogInferencer(
                config, weights, device='cpu', input_format=kind
            )
            found, views, opened = count(
                inferencer.model, inferencer, inputs[kind]
            )
            assert (views, opened) == (1, opens), name
            found = found['predictions'][0]['pred_scores']
            assert torch.equal(torch.tensor(found), scores), name
            if name != 'stock':  # by a path, as MMAction2Inferencer wants it
                both = MMAction2Inferencer(
                    config, weights, device='cpu', input_format=kind
                )
                found, views, opened = count(
                    both.actionrecog_inferencer.model, both, inputs[kind]
                )
                assert (views, opened) == (1, opens), name
                found = found['predictions'][0]['rec_scores'][0]
                assert torch.equal(torch.tensor(found), scores), name


@pytest.mark.parametrize('recognizer', ['OpenCV'], indirect=True)
def test_inference_recognizer(recognizer, video, count, tmp_path):
    """All views of the test pipeline, by its own decoder."""
    from mmaction.apis import inference_recognizer, init_recognizer

    net, exported, decoder = recognizer
    stock = stock_recognizer(decoder)
    torch.save(dict(state_dict=net.file.weights), tmp_path / 'stock.pth')
    pipeline = Compose(stock.test_pipeline)
    packed = pipeline(dict(filename=video, start_index=0))
    stock = (stock, str(tmp_path / 'stock.pth'))
    for name, (config, weights) in dict(exported, stock=stock).items():
        subnet = '1.0x-32-4' if name == 'stock' else name
        model = init_recognizer(config, weights, device='cpu')
        found, views, opened = count(model, inference_recognizer, model, video)
        assert (views, opened) == (2 * 3, 0), name  # not by decord
        expected = as_the_loop(net, subnet, packed)
        assert torch.equal(found.pred_score, expected.pred_score), name


def test_what_the_stock_inferencer_makes_of_our_own_config(
    recognizer, video, count
):
    """Why one is exported: two clips, from a file that is opened twice."""
    from mmaction.apis.inferencers import ActionRecogInferencer

    net, _, _ = recognizer
    inferencer = ActionRecogInferencer(net.cfg, device='cpu')
    _, views, opened = count(inferencer.model, inferencer, video)
    assert views == 2
    assert opened == 2


# Without ``compat``, which the stack may need, nothing could be imported; it
# is loaded from its file, as if it were no part of this package.
INFER = f"""
import json, sys
from importlib.util import module_from_spec, spec_from_file_location
file = {str(Path(mutualnet_mm.__file__).with_name('compat.py'))!r}
spec = spec_from_file_location('compat', file)
compat = module_from_spec(spec)
spec.loader.exec_module(compat)
compat.apply()
from mmengine.registry import init_default_scope
jobs, results = json.load(open('jobs.json')), {{}}
for ours in (False, True):
    for task, (config, weights), file in jobs[str(ours)]:
        if task == 'classifier':
            # mmpretrain's does not, and others' have been in use before.
            init_default_scope('mmpretrain')
            from mmpretrain import ImageClassificationInferencer
            inferencer = ImageClassificationInferencer(
                config, pretrained=weights, device='cpu')
            found = inferencer(file)[0]['pred_scores'].tolist()
        elif task == 'detector':
            from mmdet.apis import DetInferencer
            inferencer = DetInferencer(config, weights, device='cpu')
            found = inferencer(file)['predictions'][0]['scores']
        else:
            from mmaction.apis.inferencers import ActionRecogInferencer
            inferencer = ActionRecogInferencer(config, weights, device='cpu')
            found = inferencer(file)['predictions'][0]['pred_scores']
        results[f'{{task}} {{ours}}'] = found
    assert ('mutualnet_mm' in sys.modules) is ours
json.dump(results, open('results.json', 'w'))
"""


@pytest.mark.subprocess
def test_without_this_package(
    classifier, detector, recognizer, video, tmp_path
):
    """It is not imported for full networks, and by itself for subnets."""
    found = {}
    jobs = {'False': [], 'True': []}
    for task, (net, exported, files) in dict(
        classifier=classifier,
        detector=detector,
        recognizer=(*recognizer[:2], [video]),
    ).items():
        for (subnet, pair), ours in zip(exported.items(), jobs):
            jobs[ours].append((task, pair, files[0]))
            net.use(subnet)
            if task == 'recognizer':  # of which net(video) takes all views
                results = dict(filename=video, start_index=0)
                packed = one_view(results, 'DecordInit', 'DecordDecode')
                sample = as_the_loop(net, subnet, packed)
            else:
                (sample,) = net(files[0])
            found[f'{task} {ours}'] = sample
    (tmp_path / 'jobs.json').write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', INFER],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / 'results.json').read_text())
    for name, scores in results.items():
        sample = found[name]
        expected = (
            sample.pred_instances.scores
            if name.startswith('detector')
            else sample.pred_score
        )
        assert scores == pytest.approx(expected.tolist(), abs=1e-6), name
    assert len(results) == 6
