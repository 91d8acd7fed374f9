"""Layers that take the backbone's maps elsewhere than in a neck."""

import copy

import pytest
import torch
import torch.nn.functional as F
from dense_heads import retina_head
from mmengine.hub import get_config
from mmengine.registry import MODELS
from torch import nn

from mutualnet_mm import ConfigError
from mutualnet_mm.models.sorting import describe_sorted, sort_model

WIDTH = 16  # channels of the first stage


@pytest.fixture
def classes(enter_scope):
    """Models of a project: a second branch, and a head that joins maps."""
    mmdet = pytest.importorskip('mmdet.models')
    registry = pytest.importorskip('mmdet.registry').MODELS
    enter_scope('mmdet')

    class Branches(mmdet.MaskRCNN):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.fine = nn.Conv2d(WIDTH, 32, 1)
            self.both = nn.Conv2d(3 * WIDTH, 32, 1)

        def extract_feat(self, batch_inputs):
            first, second, *_ = maps = self.backbone(batch_inputs)
            pyramid = list(self.neck(maps))
            joined = torch.cat([F.max_pool2d(first, 2), second], 1)
            pyramid[0] = pyramid[0] + self.fine(first)
            pyramid[1] = pyramid[1] + self.both(joined)
            return tuple(pyramid)

    class Late(mmdet.MaskRCNN):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.late = nn.Conv2d(WIDTH, 1, 1)

        def loss(self, batch_inputs, batch_data_samples):
            losses = super().loss(batch_inputs, batch_data_samples)
            first, *_ = self.backbone(batch_inputs)
            return dict(losses, loss_late=self.late(first).mean())

    class Grid(Late):
        def extract_feat(self, batch_inputs):
            maps = super().extract_feat(batch_inputs)
            grid = torch.arange(maps[0].shape[-1])[None, None]
            return maps if self.training else (*maps, grid)

    class LateDense(mmdet.RetinaNet):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.late = nn.Conv2d(8 * WIDTH, 1, 1)

    class Look(mmdet.MaskRCNN):
        def extract_feat(self, batch_inputs):
            levels = len(self.rpn_head.anchor_generator.strides)
            return super().extract_feat(batch_inputs)[:levels]

    class OwnCondInst(mmdet.CondInst):
        def extract_feat(self, batch_inputs):
            return super().extract_feat(batch_inputs)

    class OwnRepPoints(mmdet.RepPointsDetector):
        def extract_feat(self, batch_inputs):
            return super().extract_feat(batch_inputs)

    class JoiningHead(mmdet.RetinaHead):
        def _init_layers(self):
            super()._init_layers()
            self.own = nn.Conv2d(self.in_channels, 16, 1)
            self.both = nn.Conv2d(self.in_channels + 16, self.in_channels, 1)

        def forward_single(self, x):
            joined = torch.cat([x, self.own(x)], 1)
            return super().forward_single(self.both(joined))

    made = (
        *(Branches, Late, Grid, LateDense, Look),
        *(OwnCondInst, OwnRepPoints, JoiningHead),
    )
    for each in made:
        registry.register_module(module=each)
    yield made
    for each in made:
        del registry.module_dict[each.__name__]


@pytest.fixture
def build(classes, detector_config):
    def make(kind):
        config = detector_config()
        dense = dict(
            JoiningHead=('RetinaNet', 'JoiningHead'),
            LateDense=('LateDense', 'RetinaHead'),
        )
        if kind in dense:
            wraps, head = dense[kind]
            config.backbone.update(out_indices=(3,))
            for name in ('rpn_head', 'roi_head'):
                config.pop(name)
            config.update(
                wraps=wraps,
                neck=None,
                bbox_head=retina_head(type=head),
                train_cfg=None,
                test_cfg=None,
            )
        else:
            config.wraps = kind
        model = MODELS.build(config)
        model.init_weights()
        model.eval()
        return model

    return make


@pytest.mark.parametrize(
    'kind, whole, rest',
    [('Branches', WIDTH, WIDTH), ('JoiningHead', 8 * WIDTH, 16)],
)
def test_the_leading_part_of_each_piece(build, kind, whole, rest):
    """Of joined maps, also where no neck joins them."""
    model = build(kind)
    layer = model.both if kind == 'Branches' else model.bbox_head.both
    seen = []
    layer.register_forward_hook(lambda _, args, out: seen.append((*args, out)))
    with torch.no_grad(), model.slim_state.activate(0.5, running_stats=True):
        maps = model.extract_feat(torch.rand(1, 3, 64, 64))
        if kind == 'JoiningHead':
            model.bbox_head(maps)
    ((inputs, found),) = seen
    lead = whole // 2
    assert inputs.shape[1] == lead + rest
    columns = [*range(lead), *range(whole, whole + rest)]
    weight = layer.weight.detach()[:, columns]
    expected = F.conv2d(inputs, weight, layer.bias.detach())
    expected = expected[:, : found.shape[1]]
    torch.testing.assert_close(found, expected)


def test_sorting(build):
    """The columns of every layer that takes sorted maps move with them."""
    model = build('Branches')
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    before = copy.deepcopy(model).double()
    report = sort_model(model)
    assert len(describe_sorted(report)) == 1  # heads are not spoken of
    images = torch.rand(1, 3, 64, 64).double()
    with torch.no_grad():
        for a, b in zip(
            before.extract_feat(images),
            model.double().extract_feat(images),
        ):
            torch.testing.assert_close(b, a)
    assert not torch.equal(before.fine.weight, model.fine.weight)


@pytest.mark.parametrize('kind', ['Late', 'Grid'])
def test_what_runs_in_the_loss_alone(build, load_batch, kind):
    """Nothing shows which channels it gets: not a wrong part, but an error."""
    model = build(kind).train()
    data = model.data_preprocessor(load_batch(), True)
    with pytest.raises(ConfigError, match='layer "late" did not run'):
        model.loss(**data)


def test_what_runs_in_the_loss_alone_without_a_neck(build):
    """Nor where a head that is proven takes the maps as they are."""
    model = build('LateDense')
    images = torch.rand(1, 3, 64, 64)
    with model.slim_state.activate(0.5, running_stats=True):
        (maps,) = model.extract_feat(images)
        model.bbox_head((maps,))
        with pytest.raises(ConfigError, match='layer "late" did not run'):
            model.late(maps)


def test_children_that_do_not_run_can_be_asked(build):
    """As for the number of levels that a head takes."""
    model = build('Look')
    with torch.no_grad(), model.slim_state.activate(0.5, running_stats=True):
        maps = model.extract_feat(torch.rand(1, 3, 64, 64))
    assert len(maps) == len(model.rpn_head.anchor_generator.strides)


@pytest.mark.parametrize(
    'kind, stock',
    [
        ('OwnCondInst', 'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance'),
        ('OwnRepPoints', 'reppoints/reppoints-moment_r50_fpn_1x_coco'),
    ],
)
def test_heads_that_do_not_run(classes, kind, stock):
    """Masks that follow boxes, and operators of mmcv: they are left alone."""
    config = get_config(f'mmdet::{stock}.py').model
    config.backbone.update(
        type='mutualnet_mm.Slimmable',
        wraps='ResNet',
        depth=18,
        base_channels=WIDTH,
        norm_eval=False,
        frozen_stages=-1,
        init_cfg=None,
    )
    config.neck.in_channels = [16, 32, 64, 128]
    mutual = dict(width_range=(0.25, 1.0), resolution=(256, 192))
    config.update(
        type='mutualnet_mm.MutualLearning', wraps=kind, mutual=mutual
    )
    model = MODELS.build(config).eval()
    with torch.no_grad(), model.slim_state.activate(0.5, running_stats=True):
        model.bbox_head(model.extract_feat(torch.rand(1, 3, 128, 128)))
