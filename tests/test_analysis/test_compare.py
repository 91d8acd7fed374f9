"""Detections side by side: what is framed, and whose they are."""

import json
from pathlib import Path

import cv2
import matplotlib.colors as colors
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from programs import run_program

from mutualnet_mm import UsageError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.compare import (
    Comparison,
    Detectors,
    Panel,
    compare_panels,
    draw_comparison,
    name_networks,
    shared_meta,
    totals,
)

pytest.importorskip('mmdet')
TOOL = Path(__file__).parents[2] / 'tools/analysis/compare_subnets.py'


def panel(name, *rows, masks=False):
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    found = InstanceData(
        bboxes=rows[:, :4], labels=rows[:, 4].long(), scores=rows[:, 5]
    )
    if masks:
        found.masks = torch.zeros(len(rows), 60, 80, dtype=torch.bool)
        found.masks[:, 5:30, 5:30] = True
    return Panel(name, found)


SAME = (5, 5, 30, 30, 0, 0.9)
PANELS = [
    panel('a', SAME, (40, 5, 60, 30, 1, 0.8), masks=True),
    panel('b', (6, 5, 30, 30, 0, 0.5), masks=True),
    panel('c', SAME, (40, 5, 60, 30, 0, 0.6), masks=True),
]


def test_panels_are_compared_with_the_first():
    assert compare_panels(PANELS) == [
        Comparison('a', 2, [1], []),
        Comparison('b', 1, [], [1]),
        Comparison('c', 2, [1], [1]),
    ]
    assert compare_panels(PANELS[:1]) == [Comparison('a', 2, [], [])]


def test_totals():
    compared = compare_panels(PANELS)
    assert totals(dict(x=compared, y=compared)) == [
        dict(panel='a', found=4, only_here=2, missed=0),
        dict(panel='b', found=2, only_here=0, missed=2),
        dict(panel='c', found=4, only_here=2, missed=2),
    ]


def test_frames(tiny_coco):
    figure = draw_comparison(
        str(tiny_coco / 'val0.png'),
        PANELS,
        compare_panels(PANELS),
        dict(classes=('box', 'triangle')),
    )
    found = [
        [
            (colors.to_hex(p.get_edgecolor()), p.get_linestyle(), p.get_xy())
            for p in axes.patches
        ]
        for axes in figure.axes
    ]
    corner = (4 * 40 - 4, 4 * 5 - 4)  # of an image four times as large
    blue = ('#56b4e9', '-', corner)
    red = ('#d55e00', '--', corner)
    assert found == [[blue], [red], [blue, red]]
    assert [axes.get_title() for axes in figure.axes] == [
        'a\n2 found, 1 missed by others',
        'b\n1 found, 0 only here, 1 missed',
        'c\n2 found, 1 only here, 1 missed',
    ]
    image = figure.axes[0].images[0].get_array()
    assert image.shape == (240, 320, 3)


def test_boxes_beyond_the_image_leave_it_as_it_is(tmp_path):
    """Neither is it shrunk in its panel, nor is anything drawn beyond."""
    path = str(tmp_path / 'grey.png')
    cv2.imwrite(path, np.full((60, 80, 3), 120, np.uint8))
    panels = [
        panel('a', (-15, 10, 30, 30, 0, 0.9), (60, 40, 95, 75, 1, 0.8)),
        panel('b'),
    ]
    figure = draw_comparison(path, panels, compare_panels(panels))
    for axes in figure.axes:
        pixels = np.asarray(axes.images[0].get_array())
        assert pixels.shape == (240, 320, 3)
        corners = pixels[[0, 0, -1], [0, -1, 0]]
        assert (corners == 120).all(), 'the image does not fill the panel'
        for patch in axes.patches:
            (x, y), width, height = (
                patch.get_xy(),
                patch.get_width(),
                patch.get_height(),
            )
            assert 0 <= x < x + width <= 320
            assert 0 <= y < y + height <= 240
        assert len(axes.patches) == 2


def test_titles_keep_clear_of_the_edge(tmp_path):
    path = str(tmp_path / 'grey.png')
    cv2.imwrite(path, np.full((60, 80, 3), 120, np.uint8))
    panels = [panel('a'), panel('b')]
    figure = draw_comparison(path, panels, compare_panels(panels))
    figure.savefig(tmp_path / 'out.png', dpi=100)
    for axes in figure.axes:
        box = axes.title.get_window_extent()
        assert figure.bbox.y1 - box.y1 > 4  # pixels


@pytest.fixture
def trained(build_detector, detector_config, coco_dataset, tmp_path):
    """A config and two checkpoints that find something."""

    def save(name, seed):
        torch.manual_seed(seed)
        model = build_detector()
        with torch.no_grad():
            model.roi_head.bbox_head.fc_cls.bias.add_(
                torch.tensor([3.0, 2.0, 0.0])
            )
        (tmp_path / name).mkdir()
        path = tmp_path / name / 'epoch_1.pth'
        meta = dict(dataset_meta=dict(classes=('box', 'triangle')))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
        return str(path)

    cfg = Config(
        dict(
            default_scope='mmdet',
            model=detector_config(),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=coco_dataset('train'),
            ),
            test_dataloader=dict(
                batch_size=1, num_workers=0, dataset=coco_dataset('val')
            ),
        )
    )
    return cfg, save('one', 0), save('two', 1)


def test_detections_are_the_static_subnets(trained, tiny_coco):
    cfg, one, _ = trained
    image = str(tiny_coco / 'val0.png')
    network = TrainedNetwork(cfg, one, ['1.0x-64', '0.5x-48'])
    panels = Detectors({'one': network}, score=0.2)(image)
    assert [p.name for p in panels] == ['1.0x-64', '0.5x-48']
    assert all(len(p.found) for p in panels)
    inputs, samples = network.inputs([image])
    for name, found in panels:
        with torch.no_grad():
            (sample,) = network.static(name)(inputs, samples, mode='predict')
        every = sample.pred_instances
        kept = every[every.scores >= 0.2]
        assert torch.equal(found.bboxes, kept.bboxes)
        assert len(found) == int((every.scores >= 0.2).sum())


def test_tool(trained, tiny_coco, tmp_path):
    cfg, one, two = trained
    cfg.dump(str(tmp_path / 'config.py'))
    images = [tiny_coco / 'val0.png', tiny_coco / 'val2.png']
    command = [TOOL, tmp_path / 'config.py', one, *images]
    command += ['--subnet', '1.0x-64', '--score', '0.2']
    command += ['--out', tmp_path / 'out']
    result = run_program(*command, '--against', two)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / 'out/compare.json').read_text())
    names = ['one: 1.0x-64', 'two: 1.0x-64']
    assert [row['panel'] for row in content['totals']] == names
    assert all(name in result.stdout for name in names)
    assert len(content['images']) == 2
    assert (tmp_path / 'out/val0.png').exists()
    assert (tmp_path / 'out/val2.png').exists()
    for wrong, message in (
        (['--score', '2'], '--score 2.0: use a number above 0'),
        (['--against-config', 'c.py'], 'give its checkpoint, --against'),
    ):
        result = run_program(*command, *wrong)
        assert message in result.stderr


def test_refusals(make_config, checkpoint):
    network = TrainedNetwork(make_config(), checkpoint, ['1.0x-32'])
    with pytest.raises(UsageError, match='finds no boxes'):
        Detectors({'one': network})


def test_networks_of_different_classes(tmp_path):
    """The same number would be another class."""
    paths = []
    for name, classes in (('a', 'xy'), ('b', 'xy'), ('c', 'yx')):
        paths.append(str(tmp_path / f'{name}.pth'))
        meta = dict(dataset_meta=dict(classes=list(classes)))
        torch.save(dict(state_dict={}, meta=meta), paths[-1])
    assert shared_meta(paths[:2])['classes'] == ['x', 'y']
    with pytest.raises(
        UsageError, match=r"a\.pth' and .*c\.pth' were trained"
    ):
        shared_meta(paths)


def test_names_are_apart():
    assert name_networks(['a/x.pth', 'b/y.pth']) == ['x', 'y']
    assert name_networks(['a/x.pth', 'b/x.pth']) == ['a', 'b']
    assert name_networks(['a/x/n.pth', 'b/x/n.pth']) == [
        'a/x/n.pth',
        'b/x/n.pth',
    ]
