#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train, evaluate and show a slimmable Mask R-CNN on digits, on a CPU.

Makes the data set, trains configs/mutual_mask_rcnn_vgg16.py at a small size
and writes a table, the accuracy-MACs curve and a picture of detections. Run
again, it takes up where it stopped.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from mmengine.config import DictAction
from mmengine.runner import Runner
from rich.console import Console
from rich.table import Table

from mutualnet_mm import Subnet
from mutualnet_mm.apis import count_macs, load_config, one_line_errors
from mutualnet_mm.datasets.digit_scenes import make_digit_scenes
from mutualnet_mm.visualization import plot_curve

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/detection/mutual-mask-rcnn_vgg16_fpn_1xb4_digits.py'
IMAGE_SHAPE = (128, 192)
COLUMNS = {
    'box AP': 'coco/bbox_mAP',
    'box AP50': 'coco/bbox_mAP_50',
    'mask AP': 'coco/segm_mAP',
    'mask AP50': 'coco/segm_mAP_50',
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=ROOT / 'work_dirs/quickstart',
        help='where results go, default: %(default)s',
    )
    parser.add_argument(
        '--data-dir',
        type=Path,
        default=ROOT / 'data/digit_scenes',
        help='where the data set is made, default: %(default)s',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    return parser.parse_args()


def train(cfg, work_dir: Path) -> tuple:
    """Train to the end; return the runner and the seconds of all runs."""
    clock = work_dir / 'training_time.json'
    seconds = json.loads(clock.read_text()) if clock.is_file() else 0.0
    cfg.resume = True
    runner = Runner.from_cfg(cfg)
    start = time.perf_counter()
    runner.train()
    if runner.iter > 0:
        seconds += time.perf_counter() - start
        clock.write_text(json.dumps(seconds))
    return runner, seconds


def report(runner: Runner, metrics: dict, seconds: float, out: Path) -> None:
    """Print the table; write it, the curve and a picture to ``out``."""
    subnets = runner.test_loop.subnets
    rows = []
    for subnet in subnets:
        prefix = '' if subnet == runner.model.space.full else f'{subnet}/'
        rows.append(
            dict(
                subnet=str(subnet),
                macs=count_macs(runner.model, subnet, IMAGE_SHAPE),
                **{k: metrics[prefix + v] for k, v in COLUMNS.items()},
            )
        )
    table = Table(
        title=f'One network, trained once in {seconds / 60:.1f} minutes',
        caption='GMACs are those of backbone and neck',
    )
    for name in ('subnet', 'GMACs', *COLUMNS):
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(
            row['subnet'],
            f'{row["macs"] / 1e9:.2f}',
            *(f'{row[name]:.3f}' for name in COLUMNS),
        )
    Console(width=79).print(table)
    result = dict(training_seconds=seconds, subnets=rows)
    (out / 'results.json').write_text(json.dumps(result, indent=2))
    points = {
        Subnet.parse(row['subnet']): (row['macs'], row['box AP'])
        for row in rows
    }
    plot_curve(points, 'box AP', out / 'curve.png', 'digits, val')


def draw_detections(runner: Runner, out: Path, zoom: int = 4) -> None:
    """Draw the full network's boxes and masks on an image with two digits."""
    import mmcv
    from mmdet.apis import inference_detector

    dataset = runner.test_loop.dataloader.dataset
    infos = map(dataset.get_data_info, range(len(dataset)))
    path = next(i['img_path'] for i in infos if len(i['instances']) == 2)
    image = mmcv.imread(path, channel_order='rgb')
    model = runner.model
    model.cfg = runner.cfg
    result = inference_detector(model, path)
    found = result.pred_instances
    found.bboxes = found.bboxes * zoom
    for dim in (1, 2):
        found.masks = found.masks.repeat_interleave(zoom, dim)
    runner.visualizer.dataset_meta = dataset.metainfo
    runner.visualizer.add_datasample(
        'detections',
        mmcv.imrescale(image, float(zoom), interpolation='nearest'),
        result,
        draw_gt=False,
        pred_score_thr=0.5,
        out_file=str(out / 'detections.png'),
    )


def main() -> None:
    args = parse_args()
    torch.set_flush_denormal(True)
    with one_line_errors():
        data = make_digit_scenes(args.data_dir, image_size=IMAGE_SHAPE)
        annotations = str(data / 'annotations/instances_val.json')
        options = {
            f'{split}_dataloader.dataset.data_root': str(data)
            for split in ('train', 'val', 'test')
        }
        options['val_evaluator.ann_file'] = annotations
        options['test_evaluator.ann_file'] = annotations
        options.update(args.cfg_options)
        cfg = load_config(str(CONFIG), options, str(args.work_dir))
        args.work_dir.mkdir(parents=True, exist_ok=True)
        runner, seconds = train(cfg, args.work_dir)
        metrics = runner.test()
        report(runner, metrics, seconds, args.work_dir)
        draw_detections(runner, args.work_dir)
    print(
        f'Table, curve and picture: {args.work_dir}/'
        '{results.json,curve.png,detections.png}'
    )


if __name__ == '__main__':
    main()
