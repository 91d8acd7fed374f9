#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write model-index.yml and the metafile.yml of each folder of configs.

What mim and MMEngine read of a package: each config with its data, its cost
and what was measured. Costs are counted by the library, of the input that the
test pipeline delivers; OpenMMLab calls multiply-accumulates FLOPs. Metrics are
those of real runs alone, which docs/results and zoo keep.
"""

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any, Dict, Iterator, List, Optional, Tuple

import yaml
from mmengine.config import Config

from mutualnet_mm import Subnet
from mutualnet_mm.apis import (
    build_model,
    count_macs,
    count_params,
    make_adaptive,
)
from mutualnet_mm.cli import one_line_errors, tool_parser
from mutualnet_mm.config import find_views, load_config
from mutualnet_mm.files import atomic_write
from mutualnet_mm.progress_bars import track
from mutualnet_mm.query_table import load_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / 'docs/results'
ZOO = ROOT / 'zoo'  # NAME OF A CONFIG/table.json
FOLDERS = ('classification', 'detection', 'video')
HEAD = '# Written by projects/metafiles.py, not by hand.\n'
# By the end of a config's name, up to a dash.
DATA = {
    'in1k': 'ImageNet-1k',
    'cifar10': 'CIFAR-10',
    'cifar100': 'CIFAR-100',
    'food101': 'Food-101',
    'indoor67': 'MIT Indoor 67',
    'digits': 'Handwritten digits',
    'cluttered': 'Handwritten digits on photographs',
    'single': 'Handwritten digits on photographs',
    'object': 'COCO, cropped objects',
    'coco': 'COCO',
    'k400': 'Kinetics-400',
    'charades': 'Charades',
    'ava21': 'AVA v2.1',
    'fight': 'Surveillance clips of fights',
}
# By the start of a config's name: of the method that it trains.
METHODS = {
    'mutual': (
        'MutualNet',
        'MutualNet: Adaptive ConvNet via Mutual Learning from Different '
        'Model Configurations',
        'https://arxiv.org/abs/2105.07085',
    ),
    'usnet': (
        'US-Net',
        'Universally Slimmable Networks and Improved Training Techniques',
        'https://arxiv.org/abs/1903.05134',
    ),
    'snet': (
        'S-Net',
        'Slimmable Neural Networks',
        'https://arxiv.org/abs/1812.08928',
    ),
    'inet': ('I-Net', None, None),
}
ALONE = ('Networks trained alone', None, None)
TOP_1 = {'accuracy/top1', 'acc/top1'}
METRICS = {
    'coco/bbox_mAP': 'box AP',
    'coco/segm_mAP': 'mask AP',
    **dict.fromkeys(TOP_1, 'Top 1 Accuracy'),
}


def configs(folder: str) -> List[Path]:
    """List the configs of a folder, and beside it that of the paper."""
    found = sorted((ROOT / 'configs' / folder).glob('*.py'))
    if folder == 'detection':
        found.insert(0, ROOT / 'configs/mutual_mask_rcnn_vgg16.py')
    return found


def method(name: str) -> tuple:
    """Name, title and address of what a config trains."""
    return METHODS.get(re.split('[-_]', name)[0], ALONE)


def data(path: Path) -> str:
    """Name the data that a config trains on."""
    if path.parent.name == 'configs':
        return DATA['coco']
    return DATA[path.stem.rpartition('_')[2].partition('-')[0]]


def describe(path: Path, cfg: Config) -> Dict[str, Any]:
    """What a config says of its training."""
    found: Dict[str, Any] = {'Training Data': data(path)}
    epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    if epochs:
        found['Epochs'] = epochs
    batch = re.search(r'_(\d+)xb(\d+)', path.stem)
    if batch:
        found['Batch Size'] = int(batch[1]) * int(batch[2])
    backbone = cfg.model.backbone
    found['Architecture'] = [
        (backbone.get('wraps') or backbone.type).rpartition('.')[2]
    ]
    return found


def costs(cfg: Config) -> Dict[str, Any]:
    """Count the full network, and the smallest one where there are two."""
    is_adaptive = cfg.model.type == 'mutualnet_mm.MutualLearning'
    # A network trained alone costs what the full adaptive one does.
    cfg = cfg if is_adaptive else make_adaptive(cfg, check=False).cfg
    model = build_model(cfg)
    shape, space = find_views(cfg).shape, model.space
    full, least = model.sampler.primary, space.smallest
    if not is_adaptive or len(model.sampler.sample(0)) == 1:
        least = full
    found: Dict[str, Any] = {
        'Subnet': str(full),
        'FLOPs': count_macs(model, full, shape),
        'Parameters': count_params(model, full),
    }
    if least != full:
        found.update(
            {
                'Smallest Subnet': str(least),
                'Smallest FLOPs': count_macs(model, least, shape),
                'Smallest Parameters': count_params(model, least),
            }
        )
    return found


def results(path: Path) -> List[Dict[str, Any]]:
    """What real runs of a config measured, as far as they are kept."""
    task = {
        'classification': 'Image Classification',
        'video': 'Action Recognition',
    }.get(path.parent.name, 'Object Detection')
    table = ZOO / path.stem / 'table.json'
    dataset, metrics = _RECORDED.get(path.stem, (data(path), dict))
    found = zoo_metrics(table) if table.is_file() else metrics()
    if not found:
        return []
    return [{'Task': task, 'Dataset': dataset, 'Metrics': found}]


def named(scores: Dict[str, float], name: str) -> Dict[str, float]:
    """Name the scores of the widest and of the smallest subnet."""
    subnets = sorted(map(Subnet.parse, scores), key=_size)
    least, full = map(str, (subnets[0], subnets[-1]))
    found = {name: scores[full]}
    if least != full:
        found[f'{name} of {least}'] = scores[least]
    return found


def _size(subnet: Subnet) -> Tuple[float, int, int]:
    return subnet.width, subnet.resolution, subnet.frames or 1


def zoo_metrics(path: Path) -> Dict[str, float]:
    """Read a query table; metrics of names that are known here."""
    found: Dict[str, float] = {}
    table = load_table(path)
    for metric, name in METRICS.items():
        scores = {
            str(entry.subnet): round(entry.metrics[metric], 4)
            for entry in table.entries
            if metric in entry.metrics
        }
        if scores:
            found.update(named(scores, name))
    return found


def _rows(file: str, **kept: str) -> Iterator[Dict[str, str]]:
    with open(RESULTS / file, encoding='utf-8', newline='') as lines:
        for row in csv.DictReader(lines):
            if all(row[name] == value for name, value in kept.items()):
                yield row


def csv_metrics(file: str, times: float, **kept: str) -> Dict[str, float]:
    """Mean over seeds or folds of a CSV file, in percent."""
    scores = defaultdict(list)
    for row in _rows(file, **kept):
        scores[row['subnet']].append(times * float(row['top1']))
    means = {subnet: round(mean(s), 2) for subnet, s in scores.items()}
    return named(means, 'Top 1 Accuracy')


def page_metrics(heading: str) -> Dict[str, float]:
    """Box AP, the first column of the table below a heading."""
    text = (RESULTS / 'digit_detectors.md').read_text(encoding='utf-8')
    section = text.split(f'\n## {heading}\n')[1].split('\n## ')[0]
    cells = re.findall(r'^\| (\S+x-\S+) \| ([\d.]+) ', section, re.M)
    return named({subnet: float(ap) for subnet, ap in cells}, 'box AP')


# What was tested on, and where the figures are.
_CIFAR = 'CIFAR-10, 5,000 test images of 16 pixels, three seeds'
_CLIPS = '100 surveillance clips, five folds'
_SCENES = '60 scenes of handwritten digits'
_RECORDED = {
    'mutual-wrn10-2_1xb64_cifar10-16px': (
        _CIFAR,
        lambda: csv_metrics('cifar10.csv', 1, method='mutualnet', epochs='64'),
    ),
    'mutual-slow-r10_1xb10_fight-64px': (
        _CLIPS,
        lambda: csv_metrics('video.csv', 100, network='slow', method='mutual'),
    ),
    'mutual-slowfast-r10_1xb10_fight-64px': (
        _CLIPS,
        lambda: csv_metrics(
            'video.csv', 100, network='slowfast', method='mutual'
        ),
    ),
    'mutual-yolox-thin_1xb8_digits': (_SCENES, lambda: page_metrics('YOLOX')),
    'mutual-rtmdet-thin_1xb8_digits': (
        _SCENES,
        lambda: page_metrics('RTMDet'),
    ),
}


def entry(path: Path, known: Optional[dict] = None) -> Dict[str, Any]:
    """Make the entry of a config.

    Args:
        path (Path): The config.
        known (dict, optional): An entry whose costs are kept. Defaults to
            None: they are counted.
    """
    cfg = load_config(str(path), launcher='none', stages=())
    about = describe(path, cfg)
    if known is None:
        about.update(costs(cfg))
    else:
        about.update({**known['Metadata'], **about})
    found = {
        'Name': path.stem,
        'In Collection': method(path.stem)[0],
        'Config': path.relative_to(ROOT).as_posix(),
        'Metadata': about,
    }
    measured = results(path)
    return {**found, 'Results': measured} if measured else found


def collections(paths: List[Path]) -> List[Dict[str, Any]]:
    """Describe the methods of some configs."""
    found = []
    for name, title, address in dict.fromkeys(
        method(path.stem) for path in paths
    ):
        about = {'Name': name}
        if title:
            about['Paper'] = {'Title': title, 'URL': address}
        found.append(about)
    return found


def written(content: Dict[str, Any]) -> str:
    """Write YAML in the order of the keys."""
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return HEAD + text


def read_entries(folder: str) -> Dict[str, dict]:
    """Read the entries that a metafile has, by the path of the config."""
    path = ROOT / 'configs' / folder / 'metafile.yml'
    if not path.is_file():
        return {}
    content = yaml.safe_load(path.read_text(encoding='utf-8'))
    return {model['Config']: model for model in content['Models']}


def save(path: Path, content: Dict[str, Any]) -> None:
    """Write a file."""
    with atomic_write(path) as file:
        file.write(written(content).encode())


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        '--keep-costs',
        action='store_true',
        help='count only the cost of configs that are not listed yet',
    )
    args = parser.parse_args()
    with one_line_errors():
        for folder in FOLDERS:
            known = read_entries(folder) if args.keep_costs else {}
            paths = configs(folder)
            models = [
                entry(path, known.get(path.relative_to(ROOT).as_posix()))
                for path in track(paths, folder, len(paths))
            ]
            save(
                ROOT / 'configs' / folder / 'metafile.yml',
                {'Collections': collections(paths), 'Models': models},
            )
        imported = [f'configs/{folder}/metafile.yml' for folder in FOLDERS]
        save(ROOT / 'model-index.yml', {'Import': imported})


if __name__ == '__main__':
    main()
