"""The table of a recognizer, each number found another way."""

import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner
from table_runs import make_clips

from mutualnet_mm import Subnet
from mutualnet_mm.apis import AdaptiveFile, build_table, count_macs
from mutualnet_mm.query_table import load_table

pytest.importorskip('mmaction')

SUBNETS = ['1.0x-32-4', '0.5x-32-4', '0.75x-24-4', '0.5x-16-2']
SIDE, VIEWS, VIDEOS = 40, 2 * 3, 6
_numbers = itertools.count()


@METRICS.register_module(force=True)
class ViewScores(BaseMetric):
    """Any change of the network or of the views shows in it."""

    default_prefix = 'scores'
    evaluated: list = []  # videos, one by one
    interrupt_at = None

    def process(self, data_batch, data_samples):
        del data_batch
        for sample in data_samples:
            self.evaluated.append(sample['filename'])
            if len(self.evaluated) == self.interrupt_at:
                raise KeyboardInterrupt
            self.results.append(sample['pred_score'].double().pow(2).sum())

    def compute_metrics(self, results):
        return dict(squares=sum(results).item())


@pytest.fixture
def view_scores():
    """The metric's class, which notes what it is given."""
    ViewScores.evaluated, ViewScores.interrupt_at = [], None
    return ViewScores


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    """Folder of short videos, with lists of one and of many labels."""
    root = tmp_path_factory.mktemp('clips')
    lines = make_clips(root, VIDEOS)
    many = [
        line if i % 2 else f'{i}.avi 0 2\n' for i, line in enumerate(lines)
    ]
    (root / 'many.txt').write_text(''.join(many))
    return root


def pipeline(num_clips, crop, size):
    return [
        dict(type='OpenCVInit'),
        dict(
            type='SampleFrames',
            clip_len=4,
            frame_interval=2,
            num_clips=num_clips,
            test_mode=True,
        ),
        dict(type='OpenCVDecode'),
        dict(type='Resize', scale=(-1, SIDE)),
        dict(type=crop, crop_size=size),
        dict(type='FormatShape', input_format='NCTHW'),
        dict(type='PackActionInputs', meta_keys=('filename',)),
    ]


@pytest.fixture
def make_config(view_scores, enter_scope, slow_model, clips, tmp_path):
    """Return the config of a small Slow network and its videos."""
    enter_scope('mmaction')

    def loader(batch_size, steps):
        return dict(
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(
                type='VideoDataset',
                ann_file=str(clips / 'list.txt'),
                data_prefix=dict(video=str(clips)),
                pipeline=steps,
            ),
        )

    def make():
        cfg = dict(
            default_scope='mmaction',
            experiment_name=f'build-video{next(_numbers)}',
            work_dir=str(tmp_path / 'work'),
            launcher='none',
            model=slow_model(resolution=(32, 24, 16), frames=(4, 2)),
            train_dataloader=loader(2, pipeline(1, 'CenterCrop', 32)),
            test_dataloader=loader(1, pipeline(2, 'ThreeCrop', SIDE)),
            test_evaluator=[dict(type='AccMetric'), dict(type='ViewScores')],
            train_cfg=dict(by_epoch=True, max_epochs=1),
            test_cfg=dict(type='mutualnet_mm.SubnetTestLoop'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
            default_hooks=dict(),
            log_level='ERROR',
        )
        return Config(cfg)

    return make


@pytest.fixture
def checkpoint(make_config, tmp_path):
    """With running statistics that are not the initial ones."""
    model = MODELS.build(make_config().model).train()
    torch.nn.init.normal_(model.cls_head.fc_cls.weight)
    with torch.no_grad():
        for _ in range(4):
            model.backbone(torch.randn(4, 3, 4, 32, 32) * 2)
    path = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return str(path)


def stock_full(cfg):
    """The classes of mmaction2 alone."""
    cfg.model.update(type=cfg.model.pop('wraps'))
    del cfg.model['mutual']
    cfg.model.backbone.type = 'ResNet3dSlowOnly'
    return cfg


@pytest.fixture
def stock_test(make_config):
    """Run the stock loop on views that are made here."""

    def run(adaptive, subnet):
        subnet = Subnet.parse(subnet)
        cfg = make_config()
        cfg.test_cfg = dict(type='TestLoop')
        if subnet == Subnet(1.0, 32, 4):
            runner = Runner.from_cfg(stock_full(cfg))
            runner.model.load_state_dict(adaptive.weights)
            return runner.test()
        runner = Runner.from_cfg(cfg)
        model = runner.model
        model.load_state_dict(adaptive.weights)
        frames = {4: [0, 1, 2, 3], 2: [1, 3]}[subnet.frames]
        side = SIDE * subnet.resolution // 32

        def shrink(module, args, out):
            del module, args
            views = out['inputs'].transpose(2, 3)[:, :, frames]
            shape = views.shape
            assert shape == (1, VIEWS, subnet.frames, 3, SIDE, SIDE)
            images = F.interpolate(
                views.flatten(0, 2),
                (side, side),
                mode='bilinear',
                antialias=True,
            )
            views = images.view(*shape[:4], side, side).transpose(2, 3)
            return dict(out, inputs=views)

        model.data_preprocessor.register_forward_hook(shrink)
        statistics = adaptive.statistics[str(subnet)]
        with model.activate(subnet, statistics):
            return runner.test()

    return run


def test_table_and_file_hold_what_a_stock_loop_finds(
    stock_test, view_scores, make_config, checkpoint, tmp_path
):
    cfg = make_config()
    table = build_table(cfg, checkpoint, tmp_path, subnets=SUBNETS)
    assert len(view_scores.evaluated) == VIDEOS * len(SUBNETS)
    # From wide to narrow, whatever the order of the arguments.
    order = [SUBNETS[i] for i in (0, 2, 1, 3)]
    assert [str(entry.subnet) for entry in table.entries] == order
    assert (table.task, table.metric) == ('action', 'acc/top1')
    assert (table.num_images, table.views) == (VIDEOS, VIEWS)
    model = MODELS.build(cfg.model)
    adaptive = AdaptiveFile.load(tmp_path / 'adaptive.pth')
    assert set(adaptive.statistics) == set(SUBNETS[1:])
    scores = set()
    for entry in table.entries:
        found = stock_test(adaptive, entry.subnet)
        scores.add(found['scores/squares'])
        for name, value in found.items():
            assert entry.metrics[name] == pytest.approx(value, rel=1e-6), name
        # Of a view as it is tested, not of a training clip.
        assert entry.macs == count_macs(model, entry.subnet, (SIDE, SIDE))
        assert entry.macs > count_macs(model, entry.subnet)
        low, high = table.interval(entry)
        assert 0 <= low <= entry.metrics['acc/top1'] <= high <= 1
        assert high - low > 0.3  # of six videos
    assert len(scores) == len(SUBNETS)
    # An answer for each video, whatever the number of its views.
    assert table.cascades is not None
    for name in SUBNETS:
        answers = torch.load(tmp_path / f'progress/answers/{name}.pth')
        assert answers['truth'].tolist() == [i % 3 for i in range(VIDEOS)]
        share = answers['right'].double().mean().item()
        (entry,) = (e for e in table.entries if str(e.subnet) == name)
        assert entry.metrics['acc/top1'] == pytest.approx(share)
    for again in (adaptive.table, load_table(tmp_path / 'table.json')):
        assert again.entries == table.entries and again.views == VIEWS
    assert (tmp_path / 'curve.png').stat().st_size > 10_000
    lines = (tmp_path / 'table.csv').read_text().splitlines()
    assert lines[0].startswith('subnet,width,resolution,frames,macs')
    assert lines[4].startswith(f'0.5x-16-2,0.5,16,2,{table.entries[3].macs},')


@pytest.mark.nightly
def test_some_videos_of_many_labels_after_an_interruption(
    view_scores, make_config, clips, checkpoint, tmp_path
):
    def build(folder):
        cfg = make_config()
        cfg.test_dataloader.dataset.update(
            ann_file=str(clips / 'many.txt'), multi_class=True, num_classes=3
        )
        cfg.test_evaluator[0].metric_list = ('mean_average_precision',)
        cfg.test_cfg.group_size = 1
        return build_table(
            cfg, checkpoint, folder, subnets=SUBNETS[:3], num_images=4
        )

    table = build(tmp_path / 'one')
    videos = view_scores.evaluated
    assert len(videos) == 3 * 4 and len(set(videos)) == 4
    assert table.metric == 'acc/mean_average_precision'
    assert table.num_images == 4
    assert [table.interval(entry) for entry in table.entries] == [None] * 3
    assert all(0 < table.score(entry) <= 1 for entry in table.entries)

    view_scores.evaluated, view_scores.interrupt_at = [], 7
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / 'two')
    kept = json.loads((tmp_path / 'two/progress/results.json').read_text())
    assert list(kept['results']) == SUBNETS[:1]
    view_scores.evaluated, view_scores.interrupt_at = [], None
    build(tmp_path / 'two')
    assert view_scores.evaluated == videos[4:]
    first, second = (tmp_path / name / 'table.json' for name in ('one', 'two'))
    assert first.read_bytes() == second.read_bytes()
