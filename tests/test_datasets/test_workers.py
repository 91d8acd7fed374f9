"""Processes that load data give what a single one would."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

WAYS = ['fork', pytest.param('spawn', marks=pytest.mark.nightly)]


def batches(dataset, workers, way=None):
    torch.manual_seed(0)
    settings = {} if way is None else dict(multiprocessing_context=way)
    loader = Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=workers,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dataset,
            **settings,
        ),
        seed=0,
    )
    return list(loader)


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, 'all_items'):
        return same(dict(a.all_items()), dict(b.all_items()))
    if hasattr(a, 'masks'):
        return same(a.masks, b.masks)
    if hasattr(a, 'tensor'):
        return same(a.tensor, b.tensor)
    return a == b


def compare(dataset, way):
    if way not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f'no {way} here')
    alone = batches(dataset, 0)
    assert len(alone) > 1 and not same(alone[0], alone[1])
    assert same(batches(dataset, 2, way), alone)


@pytest.mark.subprocess
@pytest.mark.parametrize('way', WAYS)
def test_images_of_several_resolutions(
    way, enter_scope, coco_dataset, detection_pipeline
):
    pytest.importorskip('mmdet')
    enter_scope('mmdet')
    load_image, load_truth, resize, pack = detection_pipeline(scale=(107, 64))
    steps = [
        load_image,
        load_truth,
        dict(
            type='mutualnet_mm.MultiResolution',
            resolution=(64, 48),
            resize=resize,
            transforms=[pack],
        ),
    ]
    compare(coco_dataset('train', steps), way)


@pytest.mark.subprocess
@pytest.mark.parametrize('way', WAYS)
def test_clips(way, enter_scope, tmp_path):
    pytest.importorskip('mmaction')
    enter_scope('mmaction')
    rng = np.random.default_rng(0)
    for i in range(4):
        code = cv2.VideoWriter_fourcc(*'mp4v')
        path = str(tmp_path / f'{i}.mp4')
        writer = cv2.VideoWriter(path, code, 10, (64, 48))
        for _ in range(12):
            writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
        writer.release()
    lines = ''.join(f'{i}.mp4 {i}\n' for i in range(4))
    (tmp_path / 'list.txt').write_text(lines)
    read = dict(
        type='mutualnet_mm.ReadClip',
        transforms=[
            dict(type='OpenCVInit'),
            dict(type='SampleFrames', clip_len=4, num_clips=1, test_mode=True),
            dict(type='OpenCVDecode'),
        ],
    )
    steps = [
        read,
        dict(type='Resize', scale=(32, 32), keep_ratio=False),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ]
    dataset = dict(
        type='VideoDataset',
        ann_file=str(tmp_path / 'list.txt'),
        data_prefix=dict(video=str(tmp_path)),
        pipeline=steps,
        test_mode=True,
    )
    compare(dataset, way)
