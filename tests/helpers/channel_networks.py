"""Networks of other than three channels, with their data and pipelines.

The data sets are generated. Test files load this one by its path.
"""

import itertools
import shutil
from typing import NamedTuple

import cv2
import mmengine
import numpy as np
import segment_networks
from mmengine.config import Config


class Kind(NamedTuple):
    """A kind of input, and what is made of it.

    Args:
        scope (str): The project.
        channels (int): Channels of an input.
        subnets (list[str]): Those of the table, the full one first.
        order (str): How an exported program calls the order of the channels.
    """

    scope: str
    channels: int
    subnets: list
    order: str


CLIPS = ['1.0x-32-4', '0.75x-24-4', '0.5x-24-2']
KINDS = dict(
    grey=Kind('mmpretrain', 1, ['1.0x-32', '0.5x-32', '0.25x-16'], 'grey'),
    alpha=Kind('mmdet', 4, ['1.0x-64', '0.5x-64', '0.25x-48'], 'BGRA'),
    poses=Kind('mmaction', 17, CLIPS, 'maps of poses'),
    flow=Kind('mmaction', 2, CLIPS, 'xy'),
    stacked=Kind('mmaction', 10, CLIPS, 'xy'),
)
SIDE = 32
FLOW_FRAMES = 'flow_{}_{:05d}.jpg'
TIME = range(1, 8)  # frames of flow
_numbers = itertools.count()


def grey_config(request, root):
    rng = np.random.default_rng(0)
    for split, number in itertools.product(('train', 'test'), range(4)):
        folder = root / split / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        image = rng.integers(0, 150, (40, 48), np.uint8)
        image[:, : 24 * (1 + number % 2)] += 90
        cv2.imwrite(str(folder / f'{number}.png'), image)
    load = dict(type='LoadImageFromFile', color_type='grayscale')
    pack = dict(type='PackInputs')
    train = [
        load,
        dict(type='RandomResizedCrop', scale=SIDE),
        dict(type='RandomFlip', prob=0.5),
        pack,
    ]
    test = [
        load,
        dict(type='ResizeEdge', scale=36, edge='short'),
        dict(type='CenterCrop', crop_size=SIDE),
        pack,
    ]
    model = request.getfixturevalue('classifier_config')(
        dict(resolution=(SIDE, 24, 16)),
        in_channels=1,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        norm_eval=False,
    )
    model['head'].update(num_classes=2, in_channels=32, topk=1)
    model['data_preprocessor'] = dict(mean=[127.0], std=[60.0])
    datasets = [
        dict(type='CustomDataset', data_root=str(root / split), pipeline=steps)
        for split, steps in (('train', train), ('test', test))
    ]
    return model, datasets, dict(type='Accuracy', topk=1)


def alpha_config(request, root):
    coco = request.getfixturevalue('tiny_coco')
    for split in ('train', 'val'):
        shutil.copy(coco / f'{split}.json', root)
        for file in sorted(coco.glob(f'{split}*.png')):
            picture = cv2.imread(str(file))
            alpha = np.where(picture.max(2) > 100, 255, 40).astype(np.uint8)
            picture = np.dstack((picture, alpha))
            cv2.imwrite(str(root / file.name), picture)
    model = request.getfixturevalue('detector_config')(
        in_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
    )
    model.neck.in_channels = [16, 32]
    model.test_cfg.rcnn.score_thr = 0.0  # of random weights
    # Stock normalisation takes one number or three: one is for all channels.
    model.data_preprocessor.update(mean=[127.0], std=[60.0], bgr_to_rgb=False)
    datasets = []
    for split in ('train', 'val'):
        steps = request.getfixturevalue('detection_pipeline')(split == 'train')
        steps[0] = dict(type='LoadImageFromFile', color_type='unchanged')
        if split == 'train':
            steps.insert(-1, dict(type='RandomFlip', prob=0.5))
        dataset = request.getfixturevalue('coco_dataset')(split, steps)
        datasets.append(dict(dataset, data_root=str(root)))
    metric = dict(
        type='CocoMetric', metric='bbox', ann_file=str(root / 'val.json')
    )
    return model, datasets, metric


def recognizer(request, channels, **backbone):
    """Of two stages, one block each, but strides of PoseConv3D."""
    model = request.getfixturevalue('slow_model')(
        resolution=(SIDE, 24), frames=(4, 2)
    )
    model['backbone'].update(
        in_channels=channels,
        num_stages=2,
        stage_blocks=(1, 1),
        out_indices=(1,),
        inflate=(0, 1),
        spatial_strides=(2, 2),
        temporal_strides=(1, 2),
        dilations=(1, 1),
        **backbone,
    )
    model['cls_head'].update(in_channels=32)
    return model


def poses_config(request, root):
    """As PoseConv3D, of three stages."""
    rng = np.random.default_rng(0)
    people, frames, splits = [], 9, dict(train=[], test=[])
    for i in range(6):
        split = 'train' if i < 3 else 'test'
        splits[split].append(f'video{i}')
        start = rng.uniform(20, 40, (1, 1, 17, 2))
        moved = np.linspace(0, 10 * (i % 3), frames)[None, :, None, None]
        people.append(
            dict(
                frame_dir=f'video{i}',
                label=i % 3,
                img_shape=(64, 80),
                original_shape=(64, 80),
                total_frames=frames,
                keypoint=(start + moved).astype(np.float16),
                keypoint_score=np.ones((1, frames, 17), np.float16),
            )
        )
    file = str(root / 'poses.pkl')
    mmengine.dump(dict(split=splits, annotations=people), file)
    left, right = [*range(1, 17, 2)], [*range(2, 17, 2)]
    joints = dict(left_kp=left, right_kp=right)
    maps = dict(type='GeneratePoseTarget', sigma=0.6, use_score=True)
    decode = [
        dict(type='PoseDecode'),
        dict(type='PoseCompact', hw_ratio=1.0, allow_imgpad=True),
        dict(type='Resize', scale=(-1, 36)),
    ]
    pack = [
        dict(type='FormatShape', input_format='NCTHW_Heatmap'),
        dict(type='PackActionInputs'),
    ]
    train = [
        dict(type='UniformSampleFrames', clip_len=4),
        *decode,
        dict(type='RandomResizedCrop', area_range=(0.56, 1.0)),
        dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=False),
        dict(type='Flip', flip_ratio=0.5, **joints),
        maps,
        *pack,
    ]
    test = [
        dict(
            type='UniformSampleFrames', clip_len=4, num_clips=2, test_mode=True
        ),
        *decode,
        dict(type='CenterCrop', crop_size=36),
        dict(maps, double=True, **joints),
        *pack,
    ]
    datasets = [
        dict(
            type='PoseDataset',
            ann_file=file,
            split=split,
            pipeline=steps,
            test_mode=split == 'test',
        )
        for split, steps in (('train', train), ('test', test))
    ]
    datasets[0] = dict(type='RepeatDataset', times=2, dataset=datasets[0])
    model = recognizer(request, 17, conv1_stride_s=1, pool1_stride_s=1)
    del model['data_preprocessor']  # the stock one, which does nothing
    return model, datasets, dict(type='AccMetric')


def stacked_config(request, root):
    """As a stock TSN takes flow: of each segment five frames as channels."""
    _, datasets, metric = flow_config(request, root)
    sampling = dict(num_clips=4, clip_len=5)
    for dataset in datasets:
        dataset['pipeline'][0].update(sampling)
        dataset['pipeline'][-2]['input_format'] = 'NCHW'
    model = segment_networks.config(
        mutual=dict(
            width_range=(0.5, 1.0), resolution=(SIDE, 24), frames=(4, 2)
        ),
        in_channels=10,
    )
    model['cls_head'].update(num_classes=3)
    model['data_preprocessor'].update(mean=[128.0] * 10, std=[128.0] * 10)
    return model, datasets, metric


def flow_config(request, root):
    rng = np.random.default_rng(0)
    lines = []
    for i in range(4):
        folder = root / f'video{i}'
        folder.mkdir()
        for t, axis in itertools.product(TIME, 'xy'):
            image = rng.integers(100, 140, (40, 48), np.uint8)
            image[10:30, 4 * t : 4 * t + 12] += 60 * (i % 2)
            file = folder / FLOW_FRAMES.format(axis, t)
            cv2.imwrite(str(file), image)
        lines.append(f'video{i} {len(TIME)} {i % 3}\n')
    (root / 'list.txt').write_text(''.join(lines))
    pack = [
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs'),
    ]
    train = [
        dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1),
        dict(type='RawFrameDecode'),
        dict(type='Resize', scale=(-1, 36)),
        dict(type='RandomResizedCrop'),
        dict(type='Resize', scale=(SIDE, SIDE), keep_ratio=False),
        dict(type='Flip', flip_ratio=0.5),
        *pack,
    ]
    test = [
        dict(
            type='SampleFrames',
            clip_len=4,
            frame_interval=1,
            num_clips=2,
            test_mode=True,
        ),
        dict(type='RawFrameDecode'),
        dict(type='Resize', scale=(-1, 36)),
        dict(type='ThreeCrop', crop_size=36),
        *pack,
    ]
    datasets = [
        dict(
            type='RawframeDataset',
            ann_file=str(root / 'list.txt'),
            filename_tmpl=FLOW_FRAMES,
            modality='Flow',
            data_prefix=dict(img=str(root)),
            pipeline=steps,
            test_mode=steps is test,
        )
        for steps in (train, test)
    ]
    model = recognizer(request, 2)
    model['data_preprocessor'].update(mean=[128.0] * 2, std=[128.0] * 2)
    return model, datasets, dict(type='AccMetric')


def make_config(name, request, root):
    """Return a config as users write them, and generate its data."""
    make = dict(
        grey=grey_config,
        alpha=alpha_config,
        poses=poses_config,
        flow=flow_config,
        stacked=stacked_config,
    )[name]
    model, (train, test), metric = make(request, root)
    loader = dict(batch_size=2, num_workers=0)
    return Config(
        dict(
            default_scope=KINDS[name].scope,
            experiment_name=f'channels{next(_numbers)}',
            work_dir=str(root / 'work'),
            model=model,
            train_dataloader=dict(
                loader,
                dataset=train,
                sampler=dict(type='DefaultSampler', shuffle=True),
            ),
            test_dataloader=dict(
                loader,
                batch_size=1,
                dataset=test,
                sampler=dict(type='DefaultSampler', shuffle=False),
            ),
            test_evaluator=metric,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=1),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False)
            ),
            custom_hooks=[
                dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2)
            ],
            log_level='ERROR',
            randomness=dict(seed=0),
        )
    )
