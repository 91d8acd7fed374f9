"""COCO files that stock code takes silently, or fails for after hours."""

import contextlib
import copy
import io
import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from mutualnet_mm.config import make_runner
from mutualnet_mm.config.coco_files import check_coco_files
from mutualnet_mm.errors import ConfigError

pytest.importorskip('mmdet')


@pytest.fixture
def make_config(detector_config, coco_dataset, tiny_coco, tmp_path):
    """Return a config of files of which some are changed."""

    def make(changes=None, metric=('bbox',), **train):
        def changed(split):
            content = json.loads((tiny_coco / f'{split}.json').read_text())
            change = (changes or {}).get(split)
            if change is not None:
                content = change(content) or content
            path = tmp_path / f'{split}.json'
            text = content if isinstance(content, str) else json.dumps(content)
            path.write_text(text)
            return str(path)

        files = {split: changed(split) for split in ('train', 'val')}
        loader = dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        sets = {
            split: dict(coco_dataset(split), ann_file=files[split])
            for split in files
        }
        sets['train'].update(train)
        return Config(
            dict(
                default_scope='mmdet',
                experiment_name=f'coco-{tmp_path.name}',
                work_dir=str(tmp_path / 'work'),
                model=detector_config(),
                train_dataloader=dict(loader, dataset=sets['train']),
                val_dataloader=dict(loader, dataset=sets['val']),
                val_evaluator=dict(
                    type='CocoMetric',
                    metric=list(metric),
                    ann_file=files['val'],
                ),
                train_cfg=dict(by_epoch=True, max_epochs=1),
                val_cfg=dict(type='mutualnet_mm.SubnetValLoop'),
                optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.001)),
                custom_hooks=[
                    dict(type='mutualnet_mm.BNCalibrationHook', num_batches=1)
                ],
                log_level='ERROR',
            )
        )

    return make


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(
        'mutualnet_mm.config.coco_file.print_log',
        lambda text, **_: found.append(text),
    )
    return found


def check(cfg):
    check_coco_files(cfg, ('train', 'val'))


def first(part, **values):
    """Change the first row of a part; ``None`` takes a key away."""

    def change(content):
        for key, value in values.items():
            if value is None:
                content[part][0].pop(key, None)
            else:
                content[part][0][key] = value

    return change


def test_good_files(make_config, warnings):
    check(make_config(metric=('bbox', 'segm')))
    assert not warnings


def rename(content):
    content['categories'][0]['name'] = 'car'


def all_others(content):
    content['categories'] = [dict(id=1, name='car')]


def swap(content):
    content['categories'].reverse()


REFUSED = {
    'no JSON': ('train', lambda c: '{"images": [', 'damaged or not JSON'),
    'a list': ('train', lambda c: '[]', 'it holds a list'),
    'no images': ('val', lambda c: c.pop('images') and None, 'list of images'),
    'no categories': (
        *('train', lambda c: c.pop('categories') and None),
        'no list of categories',
    ),
    'no area': (
        *('train', first('annotations', area=None)),
        r"annotations\[0\] has no 'area'",
    ),
    'no height': (
        *('train', first('images', height=None)),
        r"images\[0\] has no 'height'",
    ),
    'height': ('train', first('images', height='60'), "height='60'"),
    'box of three': (
        *('train', first('annotations', bbox=[1, 2, 3])),
        r'annotation 1 has bbox=\[1, 2, 3\]',
    ),
    'box of NaN': (
        *('val', first('annotations', bbox=[1, 2, float('nan'), 3])),
        'annotation 1 has bbox=.*finite numbers',
    ),
    'id': ('train', first('annotations', id=[1]), r'id=\[1\]'),
    'annotation twice': (
        *('train', first('annotations', id=2)),
        '1 ids of annotations are there more than once, such as 2',
    ),
    'image twice': (
        *('train', first('images', id=1)),
        '1 ids of images are there more than once, such as 1',
    ),
    'class renamed': (
        *('val', rename),
        "1 of the 2 classes are not among its 2 categories, such as 'box'",
    ),
    'other classes': ('train', all_others, '2 of the 2 classes .* has .car.'),
    'another order': (
        *('val', swap),
        "label that is 'triangle' here is 'box' in .*train.json.*same order",
    ),
    'no truth': (
        *('val', lambda c: c.update(annotations=[])),
        'val_evaluator.ann_file.*no annotations.*format_only',
    ),
    'no crowds': (
        *('val', first('annotations', iscrowd=None)),
        "val_evaluator.*annotation 1 has no 'iscrowd'",
    ),
    'no mask to train on': (
        *('train', first('annotations', segmentation=None)),
        'annotation 1 has no segmentation, and the pipeline loads masks',
    ),
    'area': ('train', first('annotations', area='2'), "1 has area='2'"),
    'polygon that is no list': (
        *('train', first('annotations', segmentation=[1, 2, 3, 4, 5, 6])),
        r'annotation 1 has segmentation=\[1, 2, .*a list of numbers',
    ),
    'polygon of two points': (
        *('val', first('annotations', segmentation=[[1, 2, 3, 4]])),
        'val_evaluator.*annotation 1 has no mask that can be read',
    ),
}


@pytest.mark.parametrize('case', sorted(REFUSED))
def test_what_is_refused(make_config, case):
    split, change, match = REFUSED[case]
    cfg = make_config({split: change}, metric=('bbox', 'segm'))
    with pytest.raises(ConfigError, match=match) as error:
        check(cfg)
    text = str(error.value)
    assert '\n' not in text and f'{split}.json' in text
    assert text.startswith(('train_data', 'val_data', 'val_eval'))


@pytest.fixture
def own_dataset():
    """Names of classes of data sets as users register them."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS as REGISTRY

    class Shapes(CocoDataset):
        METAINFO = dict(classes=('box', 'triangle'))

    class Otherwise(Shapes):
        def parse_data_info(self, info):
            return info

    names = [f'{kind.__name__}OfTests' for kind in (Shapes, Otherwise)]
    for name, kind in zip(names, (Shapes, Otherwise)):
        REGISTRY.register_module(name=name, module=kind)
    yield names
    for name in names:
        REGISTRY.module_dict.pop(name)


def test_data_sets_of_ones_own(make_config, own_dataset):
    """Read as COCO's, with the classes of the class; others are not judged."""
    shapes, otherwise = own_dataset
    renamed = {'train': rename}
    cfg = make_config(renamed, type=shapes)
    del cfg.train_dataloader.dataset['metainfo']
    with pytest.raises(ConfigError, match="1 of the 2 classes.*such as 'box'"):
        check(cfg)
    cfg.train_dataloader.dataset.type = otherwise
    check(cfg)
    # A name that is not of mmdet.
    cfg.train_dataloader.dataset.type = f'mmpretrain.{shapes}'
    check(cfg)


@pytest.mark.parametrize('number', [1, 3, 80])
def test_heads_of_other_classes(make_config, number):
    """Fewer learn objects as background; more fail after the test."""
    cfg = make_config()
    check(cfg)
    head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
    assert head.num_classes == 2
    head.num_classes = number
    with pytest.raises(ConfigError) as error:
        check(cfg)
    told = f'bbox_head.num_classes={number}, and the data set has 2; set that'
    assert told in str(error.value)
    cascade = dict(bbox_head=[dict(num_classes=2), dict(num_classes=number)])
    own = dict(num_classes=number)
    for place, model in {
        'roi_head.bbox_head.1': dict(roi_head=cascade),
        'model.mask_head': dict(mask_head=own, bbox_head=None),
    }.items():
        cfg.model = model
        with pytest.raises(ConfigError, match=rf'{place}\.num_classes'):
            check(cfg)
    # Masks beside boxes are not asked for more classes than these have.
    box = dict(num_classes=2)
    cfg.model = dict(roi_head=dict(bbox_head=[box, None], mask_head=own))
    if number < 2:
        with pytest.raises(ConfigError, match='roi_head.mask_head.num_cl'):
            check(cfg)
        cfg.model.roi_head.mask_head.class_agnostic = True
    check(cfg)
    # These count words of a text.
    cfg.model = dict(bbox_head=own, language_model=dict(type='BertModel'))
    check(cfg)


def zero(content):
    content['annotations'][0]['id'] = 0


def no_area(content):
    content['annotations'][1]['bbox'][2] = 0


def beyond(content):
    content['annotations'][2]['bbox'][0] = 500


def of_no_image(content):
    content['annotations'][3]['image_id'] = 77


def of_no_category(content):
    content['annotations'][4]['category_id'] = 77


WARNED = {
    'id 0': (zero, 'an annotation has id 0, .* counts as missed'),
    'no area': (no_area, '1 of 10 annotations have boxes .* id 2'),
    'outside': (beyond, '1 of 10 annotations have boxes .* id 3'),
    'image': (of_no_image, '1 of 10 annotations are of images .* id 4'),
    'category': (of_no_category, '1 of 10 .* of categories .* id 5'),
}


@pytest.mark.parametrize('case', sorted(WARNED))
def test_what_is_said(make_config, warnings, case):
    change, match = WARNED[case]
    check(make_config({'val': change}))
    (text,) = warnings
    assert '\n' not in text and re.search(match, text)


def test_classes_in_another_order_than_the_files(make_config, warnings):
    check(make_config({'val': swap, 'train': swap}))
    assert (
        len(warnings) == 2
        and "'triangle' will be shown as 'box'" in (warnings[0])
    )


def test_another_file_for_the_metric(make_config, warnings, tmp_path):
    cfg = make_config()
    content = json.loads((tmp_path / 'val.json').read_text())
    some = copy.deepcopy(content)
    some['images'] = some['images'][:4]
    (tmp_path / 'some.json').write_text(json.dumps(some))
    cfg.val_evaluator.ann_file = str(tmp_path / 'some.json')
    with pytest.raises(ConfigError, match='2 images of the data set are not'):
        check(cfg)
    cfg.val_evaluator.ann_file = str(tmp_path / 'val.json')
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'some.json')
    check(cfg)
    assert any(
        '2 of its 6 images are not in the data set' in w for w in warnings
    )
    cfg.val_evaluator.ann_file = 's3://bucket/val.json'
    check(cfg)  # not looked for


def average_precision(cfg):
    """Of detections that are the ground truth, by the stock metric."""
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric(ann_file=cfg.val_evaluator.ann_file)
    metric.dataset_meta = dict(classes=('box', 'triangle'))
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        for i in range(len(dataset)):
            info = dataset.get_data_info(i)
            truth = info['instances']
            metric.process(
                {},
                [
                    dict(
                        img_id=info['img_id'],
                        ori_shape=(info['height'], info['width']),
                        pred_instances=dict(
                            bboxes=torch.tensor([t['bbox'] for t in truth]),
                            scores=torch.ones(len(truth)),
                            labels=torch.tensor(
                                [t['bbox_label'] for t in truth]
                            ).long(),
                        ),
                    )
                ],
            )
        return metric.evaluate(len(dataset))['coco/bbox_mAP']


def test_why_it_is_said(make_config):
    """What stock code makes of the same files: no error, a wrong number."""
    assert average_precision(make_config()) == 1
    for change in (zero, no_area):
        assert average_precision(make_config({'val': change})) < 1
    # Labels move up where a class is missing: triangles are label 0.
    cfg = make_config({'val': rename})
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    labels = {
        instance['bbox_label']
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
    }
    assert dataset.cat2label == {1: 0} and labels == {0}


def no_size(row):
    row['area'] = 0


def relative(row):
    row['bbox'] = [value / 100 for value in row['bbox']]


def of_two_points(row):
    row['segmentation'] = [[1, 2, 30, 40]]


def run_lengths(row):
    row['segmentation'] = dict(counts=[700, 20, 4080], size=[60, 80])


@pytest.mark.parametrize(
    'change', [no_size, relative, of_two_points, run_lengths]
)
@pytest.mark.parametrize('step', [1, 2])
def test_objects_that_training_leaves_out(make_config, warnings, change, step):
    """The stock data set keeps their images: of background alone."""

    def changed(content):
        for row in content['annotations'][::step]:
            change(row)

    def trained(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
        samples = [dataset[i]['data_samples'] for i in range(len(dataset))]
        return sum(len(sample.gt_instances) for sample in samples)

    def make(*changes):
        cfg = make_config(*changes)
        for loading in cfg.train_dataloader.dataset.pipeline:
            if loading['type'] == 'LoadAnnotations':
                loading.update(with_mask=True, poly2mask=False)
        return cfg

    number = trained(make())
    cfg = make({'train': changed})
    assert trained(cfg) == (0 if step == 1 else number - -(-number // 2))
    if step == 1:
        match = f'train_dataloader.*leaves out all of its {number} objects'
        with pytest.raises(ConfigError, match=match):
            check(cfg)
    else:
        check(cfg)
        (text,) = warnings
        assert re.search(f'^train.* {-(-number // 2)} of {number} ', text)
    # Nothing is said of a file that is tested on, but of its boxes.
    warnings.clear()
    check(make({'val': changed}))
    assert len(warnings) == (change in (no_size, relative))


def hostile(content):
    """All that stock code leaves out or takes, in one file."""
    for old, new in ((0, 7), (1, 90)):  # gaps between the ids
        content['categories'][old]['id'] = new
        for row in content['annotations']:
            if row['category_id'] == old:
                row['category_id'] = new
    rows = content['annotations']
    boxes = [[5, 5, 0, 9], [9, 9, -4, 6], [900, 9, 5, 5], [-8, -8, 30, 30]]
    boxes += [[3, 3, 1e-3, 9], [50, 40, 900, 900], [4, 4, 2, 2]]
    for box in boxes:
        rows.append(dict(rows[0], id=len(rows) + 1, bbox=box))
    mask = np.zeros((60, 80), np.uint8)
    mask[10:30, 10:40] = 1
    runs = np.diff(np.flatnonzero(np.diff(mask.ravel('F'), prepend=0)))
    counts = [10 * 60 + 10, *runs.tolist()]
    counts.append(60 * 80 - sum(counts))
    code = dict(counts=counts, size=[60, 80])
    for crowd in (0, 1):
        rows.append(
            dict(
                rows[0],
                id=len(rows) + 1,
                bbox=[10, 10, 30, 20],
                area=600,
                iscrowd=crowd,
                segmentation=code,
            )
        )
    rows.append(dict(rows[0], id=len(rows) + 1, category_id=55))
    rows.append(dict(rows[0], id=len(rows) + 1, image_id=4444))
    rows.append(dict(rows[0], id=len(rows) + 1, ignore=True))


def test_hostile_files_are_trained_and_tested_on(make_config, warnings):
    """As stock code takes them; nothing becomes infinite."""
    cfg = make_config({'train': hostile, 'val': hostile}, ('bbox', 'segm'))
    check(cfg)
    assert len(warnings) == 6  # three for each file
    with contextlib.redirect_stdout(io.StringIO()):
        runner = make_runner(cfg)
        lost = []
        loss = runner.model.loss

        def watched(*args, **kwargs):
            losses = loss(*args, **kwargs)
            lost.extend(
                k
                for k, v in losses.items()
                if not torch.stack(v if isinstance(v, list) else [v])
                .isfinite()
                .all()
            )
            return losses

        runner.model.loss = watched
        runner.train()
    assert runner.iter == 3 and not lost
    for value in runner.model.state_dict().values():
        assert value.isfinite().all()
    names = runner.message_hub.log_scalars
    assert 'val/coco/bbox_mAP' in names and 'val/coco/segm_mAP' in names
