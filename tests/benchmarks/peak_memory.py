"""Peak memory of a mutual learning step against the stock full-network step.

    python tests/benchmarks/peak_memory.py [--short-edge 400] [--batch-size 1]

Each step runs in a process of its own, in turn, on random images with boxes
and masks; the peak is that of the second step (optimizer state exists by
then). On Linux the resident set is read, on a GPU the allocator.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

KINDS = ('stock', 'mutual')
CONFIG = Path(__file__).parents[2] / 'configs/mutual_mask_rcnn_vgg16.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--short-edge', type=int, default=400)
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=3)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--kind', choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


def build(kind: str, full: int):
    """Return the model: the stock class with the stock VGG, or ours."""
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmdet')
    model = cfg.model
    if kind == 'stock':
        model.type = model.pop('wraps')
        model.pop('mutual')
        model.backbone.type = 'mmpretrain.VGG'
        model.backbone.pop('init_cfg')
    else:
        sizes = [int(full * part) for part in (1, 0.8, 0.6, 0.4)]
        model.mutual.resolution = sizes
    return MODELS.build(model)


def batch(size: int, full: int) -> dict:
    """Make random images of aspect ratio 4:3 with five objects each."""
    import numpy as np
    import torch
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    h, w = full, full * 4 // 3
    rng = np.random.default_rng(0)
    samples = []
    for _ in range(size):
        corner = rng.uniform(0, 0.6, (5, 2)) * (w, h)
        extent = rng.uniform(0.1, 0.4, (5, 2)) * (w, h)
        boxes = np.concatenate([corner, corner + extent], 1)
        masks = np.zeros((5, h, w), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
            mask[y1:y2, x1:x2] = 1
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(h, w), ori_shape=(h, w), scale_factor=(1.0, 1.0)
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.as_tensor(boxes, dtype=torch.float32),
            labels=torch.arange(5),
            masks=BitmapMasks(masks, h, w),
        )
        samples.append(sample)
    images = [torch.randint(0, 255, (3, h, w)).byte() for _ in range(size)]
    return dict(inputs=images, data_samples=samples)


def measure(kind: str, full: int, size: int, device: str) -> dict:
    """Take two training steps and return the peak of the second one."""
    import torch
    from mmengine.optim import OptimWrapper

    import mutualnet_mm  # noqa: F401

    torch.manual_seed(0)
    torch.set_flush_denormal(True)
    model = build(kind, full).to(device)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    wrapper = OptimWrapper(optimizer)
    data = batch(size, full)
    model.train_step(data, wrapper)
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        model.train_step(data, wrapper)
        peak = torch.cuda.max_memory_allocated()
    else:
        Path('/proc/self/clear_refs').write_text('5')  # reset the peak
        model.train_step(data, wrapper)
        status = Path('/proc/self/status').read_text()
        peak = int(status.split('VmHWM:')[1].split()[0]) * 1024
    return dict(kind=kind, mib=peak / 2**20)


def main() -> None:
    args = parse_args()
    if args.kind:
        result = measure(
            args.kind, args.short_edge, args.batch_size, args.device
        )
        print(json.dumps(result))
        return
    # Without these, freed tensors would stay in the resident set.
    env = dict(os.environ, MALLOC_MMAP_THRESHOLD_='65536')
    env['MALLOC_TRIM_THRESHOLD_'] = '65536'
    peaks = {kind: [] for kind in KINDS}
    for _ in range(args.repeats):
        for kind in KINDS:
            command = [sys.executable, *sys.argv, '--kind', kind]
            done = subprocess.run(
                command, env=env, check=True, capture_output=True, text=True
            )
            peaks[kind].append(json.loads(done.stdout.splitlines()[-1])['mib'])
            print(f'{kind}: {peaks[kind][-1]:.0f} MiB', flush=True)
    ratios = [m / s for s, m in zip(peaks['stock'], peaks['mutual'])]
    print(
        f'Mask R-CNN VGG-16, short edge {args.short_edge}, batch '
        f'{args.batch_size}, {args.device}, {platform.machine()}, '
        f'{os.cpu_count()} cores: mutual / stock = {median(ratios):.3f} '
        f'({min(ratios):.3f} to {max(ratios):.3f})'
    )


if __name__ == '__main__':
    main()
