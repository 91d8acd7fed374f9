import pytest
import torch
from mmengine.registry import MODELS

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import count_heads, count_macs, count_params
from mutualnet_mm.cost import warn_of_equal_sizes
from mutualnet_mm.cost.subnet_costs import SubnetCosts
from mutualnet_mm.slimmable import macs
from mutualnet_mm.slimmable.verify import already_verified


def test_published_numbers(enter_scope):
    enter_scope('mmpretrain')
    config = dict(
        type='mutualnet_mm.MutualLearning',
        wraps='ImageClassifier',
        mutual=dict(width_range=(0.7, 1.0), resolution=(224, 192, 160, 128)),
        backbone=dict(type='mutualnet_mm.SlimmableResNet', depth=50),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=1000, in_channels=2048),
    )
    with already_verified():  # others prove it for smaller ones
        resnet50 = MODELS.build(config)
    assert count_macs(resnet50, '1.0x-224') == 4_089_284_608
    assert count_macs(resnet50, Subnet(0.9, 224)) == 3_338_064_192
    assert count_macs(resnet50, '0.7x-128') / 1e6 == pytest.approx(
        661.9, abs=0.05
    )
    # Two squares have twice the cost, but for the classifier.
    twice = 2 * 4_089_284_608 - 2048 * 1000
    assert count_macs(resnet50, '1.0x-224', (224, 448)) == twice


def test_counting_leaves_no_trace(build_classifier):
    model = build_classifier().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count_macs(model, '0.7x-48')
    assert model.slim_state.width == 1.0
    assert all(m.training for m in model.modules())
    # What a count passes over does its work again.
    assert not any('forward' in vars(m) for m in model.modules())
    for name, value in model.state_dict().items():
        assert value.device.type == 'cpu'
        assert torch.equal(value, before[name])


def test_subnets_outside_of_the_range(build_classifier):
    with pytest.raises(UsageError, match='0.2x-64'):
        count_macs(build_classifier(), '0.2x-64')


def numel(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    'subnet, channels', [('1.0x-64', 16), ('0.5x-48', 8), ('0.5x-32', 8)]
)
def test_params_are_those_of_the_narrow_stock_network(
    build_classifier, subnet, channels
):
    stock = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='ResNet',
                depth=18,
                stem_channels=channels,
                base_channels=channels,
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='LinearClsHead', num_classes=4, in_channels=8 * channels
            ),
        )
    )
    assert count_params(build_classifier(), subnet) == numel(stock)
    assert count_heads(build_classifier(), subnet) is None


def fpn_macs(channels, sizes, out=32):
    """Laterals of 1 x 1 and outputs of 3 x 3 on every level."""
    return sum(
        h * w * (c * out + 9 * out * out) for c, (h, w) in zip(channels, sizes)
    )


def basic_resnet_macs(channels, stem, height, width):
    """ResNet-18's convolutions, level by level."""
    h, w = -(-height // 2), -(-width // 2)
    macs = h * w * 49 * 3 * stem
    h, w = -(-h // 2), -(-w // 2)
    inputs, sizes = stem, []
    for level, c in enumerate(channels):
        if level:
            h, w = -(-h // 2), -(-w // 2)
        macs += h * w * 9 * (inputs * c + 3 * c * c)
        if level:
            macs += h * w * inputs * c
        inputs = c
        sizes.append((h, w))
    return macs, sizes


@pytest.mark.parametrize(
    'subnet, channels, stem, padded',
    [
        ('1.0x-64', (16, 32, 64, 128), 16, (64, 96)),
        ('0.25x-48', (8, 8, 16, 32), 8, (64, 64)),
    ],
)
def test_detectors_count_backbone_and_neck(
    build_detector, subnet, channels, stem, padded
):
    """At the padded size of a 480 x 640 image; 64 x 85 becomes 64 x 96.

    At 48 pixels, that is 48 x 64, and padded 64 x 64.
    """
    backbone, sizes = basic_resnet_macs(channels, stem, *padded)
    expected = backbone + fpn_macs(channels, sizes)
    model = build_detector()
    assert count_macs(model, subnet) == expected
    assert count_macs(model, subnet, (64, 85)) == expected


def test_params_of_a_detector(build_detector):
    """Heads whole, laterals with the columns that the backbone fills."""
    model = build_detector()
    assert count_params(model, '1.0x-64') == numel(model)
    narrow = MODELS.build(
        dict(type='mmdet.ResNet', depth=18, stem_channels=8, base_channels=8)
    )
    columns = 32 * (16 + 32 + 64 + 128) // 2
    expected = numel(model) - numel(model.backbone) + numel(narrow) - columns
    assert count_params(model, '0.5x-48') == expected


def test_heads_behind_proposals(build_detector):
    """Only their parameters are known."""
    model = build_detector()
    heads = count_heads(model, '0.5x-48')
    assert heads.macs is None
    assert heads.params == numel(model.rpn_head) + numel(model.roi_head)


def test_heads_that_cost_nothing(build_detector, monkeypatch):
    """Unlike heads that were not run."""
    model = build_detector()
    monkeypatch.setattr(
        model.task, 'forward_whole', lambda model, inputs: inputs
    )
    monkeypatch.setattr(
        model.task, 'forward_cost', lambda model, inputs: inputs
    )
    assert count_heads(model, '0.5x-48').macs == 0


@pytest.mark.parametrize(
    'subnet, padded', [('1.0x-64', (64, 96)), ('0.25x-48', (64, 64))]
)
def test_heads_of_a_single_stage(detector_config, subnet, padded):
    """RetinaNet's, by hand: one stacked layer, 9 anchors, 2 classes."""
    config = detector_config()
    for name in ('rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        config.pop(name)
    config.wraps = 'RetinaNet'
    config.bbox_head = dict(
        type='RetinaHead',
        num_classes=2,
        in_channels=32,
        stacked_convs=1,
        feat_channels=32,
    )
    model = MODELS.build(config)
    strides = (4, 8, 16, 32, 64)
    positions = sum(-(-padded[0] // s) * -(-padded[1] // s) for s in strides)
    each = 9 * 32 * (2 * 32 + 9 * 2 + 9 * 4)
    heads = count_heads(model, subnet, (64, 85))
    assert heads.macs == positions * each
    # In a table, beside those of backbone and neck.
    costs = SubnetCosts(model, (64, 85))
    assert costs.of(Subnet.parse(subnet)) == dict(
        macs=count_macs(model, subnet, (64, 85)),
        head_macs=positions * each,
        params=count_params(model, subnet),
    )
    assert costs.head_params == heads.params
    for other in model.space.grid(0.25):
        assert costs.of(other) == dict(
            macs=count_macs(model, other, (64, 85)),
            head_macs=count_heads(model, other, (64, 85)).macs,
            params=count_params(model, other),
        )
    assert heads.params == each + 2 * 32 + 9 * 2 + 9 * 4


def test_a_thread_that_runs_the_model_notices_nothing(
    build_classifier, monkeypatch
):
    """Counting swaps no parameter of it and switches no mode or width."""
    model, found = build_classifier().train(), []
    layer = model.backbone.conv1
    weight = layer.weight

    def look(x):  # in the middle of a count
        found.append(
            layer.training
            and layer.weight is weight
            and 'forward' not in vars(model.backbone.bn1)
            and model.slim_state.width == 1.0
        )
        return x

    monkeypatch.setattr(macs, '_identity', look)  # of layers that are free
    for count in (count_macs, count_params):
        found.clear()
        assert count(model, '0.5x-48') > 0
        assert found and all(found)


def test_sizes_that_padding_makes_alike(build_detector, monkeypatch):
    """Images of 48 pixels and of 64 have one size in a square of 64."""
    lines = []
    monkeypatch.setattr(
        'mutualnet_mm.cost.macs.print_log',
        lambda text, **settings: lines.append(text),
    )
    model = build_detector(dict(resolution=(128, 64, 48, 32)))
    grid = model.space.grid()
    warn_of_equal_sizes(model, grid, (128, 128))
    (line,) = lines
    assert line.startswith('resolutions 48 and 64 all have inputs of 64 x 64')
    # Of a wider image, 48 x 64 and 64 x 96.
    warn_of_equal_sizes(model, grid, (128, 170))
    warn_of_equal_sizes(model, grid)
    assert len(lines) == 1
