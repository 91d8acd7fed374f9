"""Tables whose every number is recomputed another way."""

import copy
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS

from mutualnet_mm import UsageError
from mutualnet_mm.apis import (
    AdaptiveFile,
    AdaptiveModel,
    build_table,
    count_macs,
    count_params,
)
from mutualnet_mm.engine import BNCalibrationHook
from mutualnet_mm.query_table import load_table
from mutualnet_mm.query_table.resampling import NUMBER

STEP = 0.375
GRID = [
    f'{width}x-{side}' for width in (1.0, 0.625, 0.25) for side in (32, 16)
]


def test_table_and_file_hold_what_a_stock_loop_finds(
    stock_test, score_sums, make_config, checkpoint, weights, tmp_path
):
    cfg = make_config()
    before = cfg.pretty_text
    table = build_table(cfg, checkpoint, tmp_path / 'out', step=STEP)
    assert cfg.pretty_text == before
    assert [str(entry.subnet) for entry in table.entries] == GRID
    assert table.metric == 'sums/squares' and table.task == 'classification'
    assert len({table.score(entry) for entry in table.entries}) == len(GRID)
    assert len(score_sums.processed) == 3 * len(GRID)

    adaptive = AdaptiveFile.load(tmp_path / 'out' / 'adaptive.pth')
    assert set(adaptive.statistics) == set(GRID[1:])
    assert (adaptive.width, adaptive.rounding) == ((0.25, 1.0), 'paper')
    assert adaptive.calibration == BNCalibrationHook().settings
    # Names of the folders.
    assert adaptive.dataset_meta == dict(classes=['0', '1', '2', '3'])
    assert adaptive.table.entries == table.entries
    for name, value in weights.items():
        assert torch.equal(adaptive.weights[name], value), name
    model = MODELS.build(cfg.model)
    for entry in table.entries:
        assert entry.macs == count_macs(model, entry.subnet)
        assert entry.params == count_params(model, entry.subnet)
    for index in (0, 3, 5):
        entry = table.entries[index]
        found = stock_test(adaptive, entry.subnet)
        assert entry.metrics == {
            'sums/squares': found['sums/squares'],
            'sums/nothing': None,
            'accuracy/top1': found['accuracy/top1'],
        }
    files = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {'table.json', 'table.csv', 'curve.png', 'adaptive.pth'} <= files
    assert load_table(tmp_path / 'out/table.json').entries == table.entries


def only(loader, images):
    """The same loader of the named images, by a setting of mmengine's."""
    dataset = DATASETS.build(copy.deepcopy(loader.dataset))
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    chosen = [paths.index(image) for image in images]
    return dict(loader, dataset=dict(loader.dataset, indices=chosen))


def test_some_images(
    stock_test, score_sums, make_config, checkpoint, tmp_path
):
    cfg = make_config()
    cfg.test_evaluator = cfg.test_evaluator[::-1]
    table = build_table(
        cfg, checkpoint, tmp_path, subnets=['0.5x-16', '1.0x-32'], num_images=5
    )
    images = [sum(score_sums.processed[i::2], []) for i in range(2)]
    assert images[0] == images[1] and len(set(images[0])) == 5
    assert table.num_images == 5 and table.metric == 'accuracy/top1'
    entries = json.loads((tmp_path / 'table.json').read_text())['entries']
    assert [e['subnet'] for e in entries] == ['1.0x-32', '0.5x-16']
    for entry in entries:
        low, high = entry['interval']
        assert low < entry['metrics']['accuracy/top1'] < high
        assert high - low > 40  # of five images
    found = stock_test(
        AdaptiveFile.load(tmp_path / 'adaptive.pth'),
        '0.5x-16',
        test_dataloader=only(cfg.test_dataloader, images[0]),
    )
    assert entries[1]['metrics']['sums/squares'] == found['sums/squares']


def test_detectors(detector_config, coco_dataset, tiny_coco, tmp_path):
    from mmdet.evaluation import CocoMetric

    class CountingCoco(CocoMetric):
        def compute_metrics(self, results):
            found = super().compute_metrics(results)
            return dict(found, images=len(self.img_ids))

    METRICS.register_module(module=CountingCoco, force=True)
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    cfg = Config(
        dict(
            default_scope='mmdet',
            experiment_name='build-detector',
            work_dir=str(tmp_path / 'work'),
            model=detector_config(),
            train_dataloader=dict(loader, dataset=coco_dataset('train')),
            test_dataloader=dict(loader, dataset=coco_dataset('val')),
            test_evaluator=dict(
                type='CountingCoco',
                metric='bbox',
                ann_file=f'{tiny_coco}/val.json',
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(),
            log_level='ERROR',
        )
    )
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(MODELS.build(cfg.model).state_dict(), path)
    table = build_table(
        cfg,
        path,
        tmp_path / 'out',
        subnets=['0.25x-48', '1.0x-64'],
        num_images=3,
    )
    assert table.task == 'detection' and table.metric == 'coco/bbox_mAP'
    assert table.num_images == 3
    # Of the six that are annotated.
    assert [e.metrics['coco/images'] for e in table.entries] == [3, 3]
    # Nothing is found, which says nothing about other images.
    assert [table.interval(entry) for entry in table.entries] == [None, None]
    for entry in table.entries:
        assert entry.resampled['coco/bbox_mAP'] == (0.0,) * NUMBER
    assert table.best(macs=10**12, prefer='cheapest') == table.entries[1]
    adaptive = AdaptiveFile.load(tmp_path / 'out' / 'adaptive.pth')
    again = Config.fromstring(adaptive.config, '.py')
    assert again.model.to_dict() == cfg.model.to_dict()
    meta = adaptive.dataset_meta
    assert meta['classes'] == ['box', 'triangle']
    assert meta['palette'][:2] == [(220, 20, 60), (119, 11, 32)]  # COCO's own
    assert set(meta) == {'classes', 'palette'}


def break_config(**changes):
    def change(cfg, checkpoint, monkeypatch):
        for key, value in changes.items():
            cfg[key] = value
        return checkpoint

    return change


def without_pipeline(cfg, checkpoint, monkeypatch):
    cfg.test_dataloader.dataset.pipeline = []
    return checkpoint


def use_stock_model(cfg, checkpoint, monkeypatch):
    del cfg.model['mutual']
    cfg.model.type = cfg.model.pop('wraps')
    return checkpoint


@pytest.mark.parametrize(
    'change, settings, message',
    [
        (break_config(test_dataloader=None), {}, 'has no test_dataloader'),
        (
            break_config(test_cfg=None),
            {},
            'has no test_cfg, which a table needs',
        ),
        (break_config(), dict(shard='0/2'), "shard '0/2': write which part"),
        (use_stock_model, {}, "use model.type='mutualnet_mm.Mutual"),
        (lambda *_: 'no.pth', {}, "checkpoint 'no.pth' does not exist"),
        (break_config(), dict(step=0), 'step=0: use a positive'),
        (break_config(), dict(subnets=['0.5']), "subnet '0.5' is not under"),
        (break_config(), dict(subnets=['0.1x-16']), 'outside of the trained'),
        (break_config(), dict(num_images=13), 'the test set has 12'),
        (
            break_config(precisions=[dict(dtype=torch.float16)]),
            {},
            'precisions.0.dtype, torch.float16, cannot be kept',
        ),
        (
            without_pipeline,
            {},
            'no test_dataloader.dataset.pipeline, which makes images ready',
        ),
    ],
)
def test_what_is_refused_before_any_work(
    score_sums,
    make_config,
    checkpoint,
    tmp_path,
    monkeypatch,
    change,
    settings,
    message,
):
    cfg = make_config()
    path = change(cfg, checkpoint, monkeypatch)
    with pytest.raises(UsageError, match=message):
        build_table(cfg, path, tmp_path / 'out', **settings)
    assert score_sums.processed == []


def test_metrics_without_the_full_subnet(make_config, checkpoint, tmp_path):
    """What the log shows is not an empty line."""
    shown = []

    @HOOKS.register_module(force=True)
    class Shown(Hook):
        def after_test_epoch(self, runner, metrics=None):
            shown.append(metrics)

    for number, (subnets, key) in enumerate(
        [
            (['0.5x-16', '0.25x-16'], '0.5x-16/sums/squares'),
            (['0.5x-16', '1.0x-32'], 'sums/squares'),
        ]
    ):
        cfg = make_config(custom_hooks=[dict(type='Shown')])
        build_table(cfg, checkpoint, tmp_path / str(number), subnets=subnets)
        assert list(shown[-1])[0] == key


def test_infinite_numbers_are_kept(make_config, checkpoint, tmp_path):
    """Such as the end of a scheduler that has none."""
    end = float('inf')
    cfg = make_config(param_scheduler=[dict(type='ConstantLR', end=end)])
    build_table(cfg, checkpoint, tmp_path, subnets=['0.5x-16'])
    net = AdaptiveModel.from_file(tmp_path / 'adaptive.pth')
    assert net.cfg.param_scheduler[0].end == end


def test_no_folder(make_config, checkpoint, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match='out. cannot be made: Not a dir'):
        build_table(make_config(), checkpoint, tmp_path / 'file' / 'out')
