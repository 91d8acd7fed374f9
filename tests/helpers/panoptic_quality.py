"""Stand-in for panopticapi, which no registry has: its names, as defined.

Panoptic quality of a class: the sum of the overlaps of matched segments, over
the matched and half of the missed and the wrong ones.
"""

import sys
from collections import defaultdict
from types import ModuleType

import numpy as np


def rgb2id(colours):
    return np.asarray(colours, np.int64) @ [1, 256, 256**2]


def id2rgb(numbers):
    return np.stack([numbers >> 8 * i & 255 for i in range(3)], -1)


class Matches:
    """Sum of the overlaps, and how many segments are matched or not."""

    def __init__(self):
        self.iou, self.tp, self.fp, self.fn = 0.0, 0, 0, 0


class PQStat:
    def __init__(self):
        self.of_class = defaultdict(Matches)

    def __getitem__(self, category):
        return self.of_class[category]

    def __iadd__(self, other):
        for category, added in other.of_class.items():
            for name, value in vars(added).items():
                own = vars(self[category])
                own[name] += value
        return self

    def pq_average(self, categories, isthing):
        each = {}
        for category, about in categories.items():
            if isthing is not None and bool(about['isthing']) != isthing:
                continue
            s = self[category]
            found = s.tp + (s.fp + s.fn) / 2
            if found == 0:
                each[category] = None
                continue
            sq, rq = s.iou / max(s.tp, 1), s.tp / found
            each[category] = dict(pq=sq * rq, sq=sq, rq=rq)
        shown = [quality for quality in each.values() if quality]
        means = {
            name: sum(quality[name] for quality in shown) / max(len(shown), 1)
            for name in ('pq', 'sq', 'rq')
        }
        zeros = dict(pq=0.0, sq=0.0, rq=0.0)
        return (
            dict(means, n=len(shown)),
            {category: quality or zeros for category, quality in each.items()},
        )


def install(monkeypatch):
    """Let mmdet find it, as if it had been there from the start."""
    from mmdet.evaluation.functional import panoptic_utils
    from mmdet.evaluation.metrics import coco_panoptic_metric

    package = ModuleType('panopticapi')
    package.utils = ModuleType('panopticapi.utils')
    package.utils.rgb2id, package.utils.id2rgb = rgb2id, id2rgb
    monkeypatch.setitem(sys.modules, 'panopticapi', package)
    monkeypatch.setitem(sys.modules, 'panopticapi.utils', package.utils)
    names = dict(
        panopticapi=package,
        rgb2id=rgb2id,
        id2rgb=id2rgb,
        PQStat=PQStat,
        VOID=0,
    )
    for module in (panoptic_utils, coco_panoptic_metric):
        for name, value in names.items():
            monkeypatch.setattr(module, name, value, raising=False)
