#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Train, evaluate and show a slimmable network on digits, on a CPU.

--task det, the default, makes a data set, trains the paper's Mask R-CNN
at a small size and writes the files of mutualnet table and a picture of
detections. --task cls does the same with a small ResNet, in two minutes and
without the picture. Run again, it continues where it stopped.
"""

import argparse
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mutualnet_mm import UsageError
from mutualnet_mm.apis import build_table, load_config
from mutualnet_mm.cli import add_cfg_options, one_line_errors, tool_parser
from mutualnet_mm.config import make_runner, only_training
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits
from mutualnet_mm.datasets.digit_scenes import make_digit_scenes
from mutualnet_mm.devices import prepare_cpu
from mutualnet_mm.engine import TrainingClock, training_seconds
from mutualnet_mm.visualization import print_table

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = dict(
    det='configs/detection/mutual-mask-rcnn_vgg16_fpn_1xb4_digits.py',
    cls='configs/classification/mutual-resnet14_1xb64_cluttered-digits.py',
)
WORK_DIRS = dict(det='work_dirs/quickstart', cls='work_dirs/quickstart_cls')
DATA_DIRS = dict(det='data/digit_scenes', cls='data/cluttered_digits')
IMAGE_SHAPE = (128, 192)
DETECTION = {
    'box AP': ('coco/bbox_mAP', '.3f'),
    'mask AP': ('coco/segm_mAP', '.3f'),
}
CLASSIFICATION = {'top-1': ('accuracy/top1', '.1f')}
_OF_TRAINING = (
    *('model', 'train_dataloader', 'train_cfg', 'param_scheduler'),
    *('optim_wrapper', 'custom_hooks', 'randomness'),
)
TABLE_FILES = 'table.json,table.csv,curve.png,adaptive.pth'


def parse_args() -> argparse.Namespace:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--task',
        choices=['det', 'cls'],
        default='det',
        help='detection or classification, default: %(default)s',
    )
    parser.add_argument(
        '--work-dir',
        type=Path,
        help=f'where results go, default: {" or ".join(WORK_DIRS.values())}',
    )
    parser.add_argument(
        '--data-dir',
        type=Path,
        help='where the data set is made, default: '
        f'{" or ".join(DATA_DIRS.values())}',
    )
    add_cfg_options(parser)
    args = parser.parse_args()
    # Of a clone wherever it is called from, not of an installed package.
    here = ROOT if (ROOT / 'setup.py').is_file() else Path()
    args.work_dir = args.work_dir or here / WORK_DIRS[args.task]
    args.data_dir = args.data_dir or here / DATA_DIRS[args.task]
    return args


def train(cfg: Config) -> tuple:
    """Train to the end; return the runner and the seconds of all runs."""
    cfg.resume = True
    with only_training(cfg):
        check_same(cfg)
        runner = make_runner(cfg)
        runner.register_hook(TrainingClock())
        runner.train()
    return runner, training_seconds(runner)


def check_same(cfg: Config) -> None:
    """Refuse to go on with a training of other settings: none would act."""
    folder = Path(cfg.work_dir)
    before = folder / Path(cfg.filename).name
    if not (folder / 'last_checkpoint').is_file():
        return
    if not before.is_file():
        raise UsageError(
            f'{str(folder)!r} holds a training of another config: give '
            'another --work-dir'
        )
    other = Config.fromfile(before)
    for key in _OF_TRAINING:
        if other.get(key) != cfg.get(key):
            raise UsageError(
                f'{str(folder)!r} holds a training of another {key}: give '
                'the same --cfg-options to go on with it, or another '
                '--work-dir'
            )


def draw_detections(runner: Runner, out: Path, zoom: int = 4) -> None:
    """Draw the full network's boxes and masks on an image with two digits."""
    import mmcv
    from mmdet.apis import inference_detector

    dataset = runner.val_loop.dataloader.dataset
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


def detect(args: argparse.Namespace) -> str:
    """Run the detection example; return the names of its results."""
    data = make_digit_scenes(args.data_dir, image_size=IMAGE_SHAPE)
    annotations = str(data / 'annotations/instances_val.json')
    options = {
        f'{split}_dataloader.dataset.data_root': str(data)
        for split in ('train', 'val', 'test')
    }
    options['val_evaluator.ann_file'] = annotations
    options['test_evaluator.ann_file'] = annotations
    cfg = prepare(args, options)
    runner, seconds = train(cfg)
    subnets = cfg.test_cfg.subnets
    table = build_table(cfg, checkpoint(args), args.work_dir, subnets=subnets)
    print_table(table, DETECTION, title(seconds))
    draw_detections(runner, args.work_dir)
    return f'{TABLE_FILES},detections.png'


def classify(args: argparse.Namespace) -> str:
    """Run the classification example; return the names of its results."""
    data = make_cluttered_digits(args.data_dir)
    options = {
        f'{split}_dataloader.dataset.data_root': str(data)
        for split in ('train', 'val', 'test')
    }
    cfg = prepare(args, options)
    _, seconds = train(cfg)
    table = build_table(cfg, checkpoint(args), args.work_dir, step=0.25)
    print_table(table, CLASSIFICATION, title(seconds))
    return TABLE_FILES


def title(seconds: float) -> str:
    """Say how long the training took."""
    return f'One network, trained once in {seconds / 60:.1f} minutes'


def checkpoint(args: argparse.Namespace) -> str:
    """Name the file that the training wrote last."""
    return (args.work_dir / 'last_checkpoint').read_text()


def prepare(args: argparse.Namespace, options: dict) -> Config:
    """Read the example's config, with the data where they were made."""
    options.update(args.cfg_options or {})
    path = str(ROOT / CONFIGS[args.task])
    return load_config(path, options, str(args.work_dir))


def main() -> None:
    args = parse_args()
    prepare_cpu()
    with one_line_errors():
        names = detect(args) if args.task == 'det' else classify(args)
    print(f'Results: {args.work_dir}/{{{names}}}')


if __name__ == '__main__':
    main()
