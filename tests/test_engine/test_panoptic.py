"""Panoptic segmentation: trained by mutual learning, tested at subnets."""

import copy
import json

import cv2
import numpy as np
import panoptic_quality
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import Runner
from thin_detectors import thin_transformers

from mutualnet_mm import Subnet
from mutualnet_mm.engine import calibrate
from mutualnet_mm.engine.hooks import BNCalibrationHook

SUBNETS = ['1.0x-64', '0.5x-64', '0.25x-48']
CLASSES = ('box', 'sky', 'grass')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Folder of images of sky above grass, with a box on it."""
    root = tmp_path_factory.mktemp('panoptic')
    for name in ('images', 'segments'):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for i, (h, w) in enumerate([(64, 80), (80, 64), (64, 96), (60, 80)]):
        numbers = np.full((h, w), 1000)
        numbers[int(h * 0.55) :] = 2000
        y, x = h // 4 + 3 * i, w // 4 + 4 * i
        numbers[y : y + h // 3, x : x + w // 3] = 70000
        picture = rng.integers(0, 40, (h, w, 3), np.uint8)
        for number, channel in ((1000, 0), (2000, 1), (70000, 2)):
            picture[numbers == number, channel] += 200
        segments = []
        for category, number in enumerate((70000, 1000, 2000)):
            rows, columns = np.nonzero(numbers == number)
            low = columns.min().item(), rows.min().item()
            size = np.ptp(columns).item() + 1, np.ptp(rows).item() + 1
            segments.append(
                dict(
                    id=number,
                    category_id=category,
                    iscrowd=0,
                    bbox=[*low, *size],
                    area=len(rows),
                )
            )
        name = f'{i}.png'
        cv2.imwrite(str(root / 'images' / name), picture)
        colours = panoptic_quality.id2rgb(numbers).astype(np.uint8)
        cv2.imwrite(str(root / 'segments' / name), colours[..., ::-1])
        images.append(dict(id=i, file_name=name, height=h, width=w))
        annotations.append(
            dict(image_id=i, file_name=name, segments_info=segments)
        )
    categories = [
        dict(id=i, name=name, isthing=int(i == 0))
        for i, name in enumerate(CLASSES)
    ]
    content = dict(
        images=images, annotations=annotations, categories=categories
    )
    (root / 'scenes.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def make_config(detector_config, scenes, tmp_path, monkeypatch):
    """Return the config of a small PanopticFPN and its scenes."""
    from mmengine.hub import get_config

    panoptic_quality.install(monkeypatch)
    stock = get_config('mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py')

    def make(norm='GN', **metric):
        model = detector_config()
        model.wraps = 'PanopticFPN'
        model.data_preprocessor = stock.model.data_preprocessor
        model.semantic_head = stock.model.semantic_head
        model.semantic_head.update(
            num_things_classes=1,
            num_stuff_classes=2,
            in_channels=32,
            inner_channels=16,
        )
        groups = dict(num_groups=4) if norm == 'GN' else {}
        model.semantic_head.norm_cfg = dict(groups, type=norm)
        model.panoptic_fusion_head = stock.model.panoptic_fusion_head
        model.panoptic_fusion_head.update(
            num_things_classes=1, num_stuff_classes=2
        )
        model.roi_head.bbox_head.num_classes = 1
        model.roi_head.mask_head.num_classes = 1
        model.test_cfg = stock.model.test_cfg
        model.test_cfg.rcnn.update(score_thr=0.3, max_per_img=5)
        model.test_cfg.rpn = dict(
            nms_pre=60,
            max_per_img=20,
            nms=dict(type='nms', iou_threshold=0.7),
            min_bbox_size=0,
        )
        model.test_cfg.panoptic.stuff_area_limit = 100
        resize = dict(type='Resize', scale=(107, 64), keep_ratio=True)
        keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
        keys = (*keys, 'segments_info', 'seg_map_path')

        def loader(train):
            load = dict(type='LoadPanopticAnnotations')
            return dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    type='CocoPanopticDataset',
                    ann_file=str(scenes / 'scenes.json'),
                    data_prefix=dict(
                        img=str(scenes / 'images'),
                        seg=str(scenes / 'segments'),
                    ),
                    metainfo=dict(
                        classes=CLASSES,
                        thing_classes=CLASSES[:1],
                        stuff_classes=CLASSES[1:],
                    ),
                    test_mode=not train,
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        *([load, resize] if train else [resize, load]),
                        dict(type='PackDetInputs', meta_keys=keys),
                    ],
                ),
            )

        return Config(
            dict(
                default_scope='mmdet',
                experiment_name=f'panoptic{norm}{len(metric)}',
                work_dir=str(tmp_path / 'work'),
                model=model,
                train_dataloader=loader(True),
                test_dataloader=loader(False),
                test_evaluator=dict(
                    dict(
                        type='CocoPanopticMetric',
                        ann_file=str(scenes / 'scenes.json'),
                        seg_prefix=str(scenes / 'segments'),
                        nproc=1,
                    ),
                    **metric,
                ),
                train_cfg=dict(by_epoch=False, max_iters=6),
                test_cfg=dict(
                    type='mutualnet_mm.SubnetTestLoop', subnets=SUBNETS
                ),
                optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
                default_hooks=dict(),
                log_level='ERROR',
                randomness=dict(seed=0),
            )
        )

    return make


@pytest.fixture
def trained(make_config):
    """Weights of a few steps of mutual learning: some segments are found."""
    cfg = make_config()
    cfg.model.mutual.update(num_random=0)
    return Runner.from_cfg(cfg).train().state_dict()


def stock_test(cfg, weights, subnet, scores=None):
    """What the stock loop finds with the model as one subnet."""
    cfg = copy.deepcopy(cfg)
    cfg.test_cfg = dict(type='TestLoop')
    cfg.experiment_name = f'stock{subnet}'
    runner = Runner.from_cfg(cfg)
    model, subnet = runner.model, Subnet.parse(subnet)
    model.load_state_dict(weights)
    if scores is not None:
        watched(model, scores)
    if subnet == model.space.full:
        return runner.test()
    batches = BNCalibrationHook().batches(runner)
    (statistics,) = calibrate(model, [subnet], batches).values()

    def resized(module, args, data):
        inputs, samples = model.task.resize(
            model, data['inputs'], data['data_samples'], subnet
        )
        return dict(inputs=inputs, data_samples=samples)

    model.data_preprocessor.register_forward_hook(resized)
    with model.activate(subnet, statistics):
        return runner.test()


def test_quality_of_each_subnet(make_config, trained, tmp_path):
    """As by the stock loop, whether predictions stay in files or not."""
    runner = Runner.from_cfg(make_config())
    runner.model.load_state_dict(trained)
    found = runner.test()
    values = []
    for subnet in SUBNETS:
        prefix = '' if subnet == '1.0x-64' else f'{subnet}/'
        stock = stock_test(make_config(), trained, subnet)
        for name, value in stock.items():
            assert found[f'{prefix}{name}'] == value
        values.append(stock['coco_panoptic/PQ'])
    assert min(values) > 20 and len(set(values)) == 3

    out = str(tmp_path / 'out/found')
    runner = Runner.from_cfg(make_config(outfile_prefix=out))
    runner.model.load_state_dict(trained)
    assert runner.test() == found
    files = ('found', 'found.0.5x-64', 'found.0.25x-48')
    for file in files:
        assert (tmp_path / f'out/{file}.panoptic.json').is_file()
        pictures = tmp_path / f'out/{file}.panoptic'
        assert {path.name for path in pictures.iterdir()} == {
            f'{i}.png' for i in range(4)
        }

    # The metric makes its ground truth of what the data set says, each time.
    without = dict(outfile_prefix=out, ann_file=None, seg_prefix=None)
    for group_size in (8, 1):
        cfg = make_config(**without)
        cfg.test_cfg.group_size = group_size
        cfg.experiment_name += str(group_size)
        runner = Runner.from_cfg(cfg)
        runner.model.load_state_dict(trained)
        assert runner.test() == found


def test_batch_norms_of_the_semantic_head(make_config):
    """They are calibrated too, of what the head gets at each subnet."""
    cfg = make_config(norm='BN')
    runner = Runner.from_cfg(cfg)
    model, subnet = runner.model.eval(), Subnet(0.25, 48)
    batches = [*BNCalibrationHook(num_batches=1).batches(runner)]
    (found,) = calibrate(model, [subnet], copy.deepcopy(batches)).values()
    names = [n for n in found if n.startswith('semantic_head')]
    assert len(names) == 7
    layer, seen = model.get_submodule(names[0]), []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    data = model.data_preprocessor(batches[0], False)
    inputs, samples = model.task.resize(model, *data.values(), subnet)
    with torch.no_grad(), model.activate(subnet, found):
        model.predict(inputs, samples)
    mean, variance = found[names[0]]
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), mean)
    torch.testing.assert_close(
        seen[0].var((0, 2, 3), unbiased=False), variance, rtol=1e-4, atol=1e-6
    )


@pytest.mark.sweep(1)
@pytest.mark.parametrize(
    'name',
    [
        'maskformer/maskformer_r50_ms-16xb1-75e_coco',
        'mask2former/mask2former_r50_8xb2-lsj-50e_coco-panoptic',
    ],
)
def test_transformers(make_config, tmp_path, name):
    """A step of all subnets; maps of each as by the stock loop."""
    from mmengine.hub import get_config

    cfg = make_config()
    backbone = cfg.model.backbone
    cfg.model = get_config(f'mmdet::{name}.py').model
    head = cfg.model.panoptic_head
    thin_transformers(head)
    numbers = dict(num_things_classes=1, num_stuff_classes=2)
    head.update(
        in_channels=[16, 32, 64, 128],
        feat_channels=32,
        out_channels=32,
        num_queries=8,
        **numbers,
    )
    head.loss_cls.class_weight = [1.0, 1.0, 1.0, 0.1]
    cfg.model.data_preprocessor.batch_augments = None
    cfg.model.panoptic_fusion_head.update(numbers)
    cfg.model.test_cfg.update(
        object_mask_thr=0.0, iou_thr=0.0, max_per_image=8
    )
    cfg.model.update(
        wraps=cfg.model.type,
        type='mutualnet_mm.MutualLearning',
        mutual=dict(resolution=(64, 48), num_random=1),
        backbone=backbone,
    )
    out = str(tmp_path / 'maps.pkl')
    cfg.test_evaluator = dict(type='DumpResults', out_file_path=out)
    cfg.train_cfg.max_iters = 1
    runner = Runner.from_cfg(cfg)
    before = copy.deepcopy(runner.model.backbone.conv1.weight)
    weights = runner.train().state_dict()
    assert not torch.equal(weights['backbone.conv1.weight'], before)
    assert all(value.isfinite().all() for value in weights.values())

    scores = watched(runner.model)
    runner.test()
    names = ('maps.pkl', 'maps.0.5x-64.pkl', 'maps.0.25x-48.pkl')
    found = [load(tmp_path / name) for name in names]
    for i, subnet in enumerate(SUBNETS):
        expected = []
        stock_test(cfg, weights, subnet, expected)
        ours = scores[i :: len(SUBNETS)]
        assert len(ours) == len(expected) == 2
        assert all(map(torch.equal, ours, expected))
        for sample, stock in zip(found[i], load(out)):
            maps = (s['pred_panoptic_seg']['sem_seg'] for s in (sample, stock))
            assert torch.equal(*maps)
    assert len({score.sum().item() for score in scores}) == len(scores)


def watched(model, seen=None):
    """List the class scores of a transformer's queries, batch by batch."""
    seen = [] if seen is None else seen
    model.panoptic_head.register_forward_hook(
        lambda module, args, found: seen.append(found[0][-1])
    )
    return seen
