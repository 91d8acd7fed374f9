"""Boxes of maps beside brute force; the tables beside counts by hand."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mutualnet_mm import ConfigError, UsageError
from mutualnet_mm.analysis import TrainedNetwork
from mutualnet_mm.analysis.box_checks import of_other_classes
from mutualnet_mm.analysis.localization import (
    Localized,
    box_of,
    localize,
    overlaps_of,
    save_accuracies,
    summarize,
)
from mutualnet_mm.analysis.true_boxes import TrueBoxes
from mutualnet_mm.analysis.view import check_view, image_size, to_original

SUBNETS = ['1.0x-32', '0.5x-16']


def flood(strong):
    """Sets of connected points, one by one."""
    left = {(int(y), int(x)) for y, x in np.argwhere(strong)}
    while left:
        part, border = set(), [left.pop()]
        while border:
            y, x = border.pop()
            part.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)}
            border += near & left
            left -= near
        yield part


@pytest.mark.parametrize('threshold', [0.2, 0.5, 0.8])
@pytest.mark.parametrize('seed', range(8))
def test_boxes_beside_brute_force(threshold, seed):
    rng = np.random.default_rng(seed)
    values = cv2.GaussianBlur(rng.normal(size=(23, 31)), (0, 0), 1.5)
    parts = list(flood(values >= threshold * values.max()))
    expected = []
    for part in parts:
        if len(part) == max(map(len, parts)):
            rows, columns = zip(*part)
            box = [min(columns), min(rows), max(columns) + 1, max(rows) + 1]
            expected.append(box)
    assert box_of(values, threshold).tolist() in expected


def test_parts_that_touch_at_corners_are_one():
    values = np.zeros((6, 6))
    values[0, 0] = values[1, 1] = values[2, 2] = 1
    values[5, 3:5] = 1  # fewer points
    assert box_of(values, 0.5).tolist() == [0, 0, 3, 3]
    assert box_of(np.full((4, 4), -1.0), 0.2) is None
    assert box_of(np.zeros((4, 4)), 0.2) is None


def test_overlaps_beside_counted_pixels():
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(40):
        (left, right), (top, bottom) = (
            sorted(rng.choice(21, 2, replace=False)) for _ in range(2)
        )
        boxes.append([left, top, right, bottom])
    boxes = np.array(boxes, float)

    def pixels(box):
        mask = np.zeros((20, 20), bool)
        left, top, right, bottom = map(int, box)
        mask[top:bottom, left:right] = True
        return mask

    one = pixels(boxes[0])
    expected = [
        (one & pixels(b)).sum() / (one | pixels(b)).sum() for b in boxes
    ]
    np.testing.assert_allclose(overlaps_of(boxes[0], boxes), expected)


def made(subnet, shares, right, wrong_class=()):
    return [
        Localized(
            subnet,
            f'{i}.png',
            share,
            label=1,
            predicted=2 if i in wrong_class else 1,
            overlaps={0.2: 0.51 if i in right else 0.5},
        )
        for i, share in enumerate(shares)
    ]


def test_a_table_beside_counts_by_hand():
    """Half of the image is not large yet, a fifth not small any more."""
    shares = [0.1, 0.19, 0.2, 0.5, 0.51, 0.9]
    found = made('1.0x-32', shares, right={0, 3, 4})
    found += made('0.5x-16', shares, right={3, 4, 5}, wrong_class={0, 1, 2})
    rows = summarize(found, SUBNETS)
    table = {(row.subnet, row.group): row for row in rows}
    counts = {key: (row.right, row.images) for key, row in table.items()}
    assert counts == {
        ('1.0x-32', 'all'): (3, 6),
        ('1.0x-32', 'large'): (1, 2),
        ('1.0x-32', 'small'): (1, 2),
        ('0.5x-16', 'all'): (3, 6),
        ('0.5x-16', 'large'): (2, 2),
        ('0.5x-16', 'small'): (0, 2),
    }
    row = table['0.5x-16', 'all']
    assert (row.only_this, row.only_first) == (1, 1)
    assert (row.accuracy, row.top1) == (50, 50)
    # Wilson (1927) for 3 of 6: the centre is a half.
    half = 1.959964 / (1 + 1.959964**2 / 6)
    half *= np.sqrt(0.25 / 6 + 1.959964**2 / (4 * 36))
    assert row.low == pytest.approx(50 - 100 * half, abs=1e-4)
    assert row.high == pytest.approx(50 + 100 * half, abs=1e-4)


def test_a_group_without_images(tmp_path):
    rows = summarize(made('1.0x-32', [0.3], {0}), ['1.0x-32'])
    large = next(row for row in rows if row.group == 'large')
    assert (large.images, large.accuracy, large.low, large.top1) == (
        *(0, None),
        *(None, None),
    )
    save_accuracies(rows, [], {}, tmp_path / 'x.csv')
    with open(tmp_path / 'x.csv', newline='') as file:
        assert [row['accuracy'] for row in csv.DictReader(file)] == [
            *('100.0', '', ''),
        ]
    with pytest.raises(UsageError, match=r'x\.txt.: name a \.json or \.csv'):
        save_accuracies(rows, [], {}, tmp_path / 'x.txt')


def pipeline(*steps):
    dataset = dict(type='CustomDataset', pipeline=list(steps))
    return Config(dict(test_dataloader=dict(dataset=dataset)))


LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackInputs')
RESIZE = dict(type='ResizeEdge', scale=40, edge='short')
CROP = dict(type='CenterCrop', crop_size=32)


@pytest.mark.parametrize(
    'steps',
    [
        [LOAD, CROP, RESIZE, PACK],
        [LOAD, RESIZE, RESIZE, PACK],
        [LOAD, dict(type='RandomFlip'), PACK],
    ],
)
def test_views_that_cannot_be_followed(steps):
    with pytest.raises(ConfigError, match=r'pipeline\.\d is a'):
        check_view(pipeline(*steps))


@pytest.mark.parametrize('shape', [(60, 81), (97, 50), (45, 45)])
def test_a_mark_is_found_again_in_the_original(shape, enter_scope, tmp_path):
    """The stock steps bring it to where our boxes come from."""
    enter_scope('mmpretrain')
    from mmengine.dataset import Compose

    check_view(pipeline(LOAD, RESIZE, CROP, PACK))
    height, width = shape
    true = np.array(
        [width // 2 - 8, height // 2 - 5, width // 2 + 6, height // 2 + 9]
    )
    picture = np.zeros((*shape, 3), np.uint8)
    picture[true[1] : true[3], true[0] : true[2]] = 255
    file = str(tmp_path / 'mark.png')
    cv2.imwrite(file, picture)
    data = Compose([LOAD, RESIZE, CROP, PACK])(dict(img_path=file))
    values = data['inputs'][0].numpy().astype(float)
    assert values.shape == (32, 32)
    box = to_original(box_of(values, 0.5), data['data_samples'], (32, 32))
    pixel = min(shape) / 40  # of the view, in the original
    assert np.abs(box - true).max() <= 0.6 * pixel + 0.01


def test_a_padded_view_is_refused(enter_scope):
    enter_scope('mmpretrain')
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo=dict(ori_shape=(20, 30)))
    with pytest.raises(ConfigError, match='20 x 30 pixels .* padded to 32'):
        to_original(np.zeros(4), sample, (32, 32))


def coco(path, names, boxes):
    content = dict(
        images=[dict(id=i, file_name=name) for i, name in enumerate(names)],
        annotations=[
            dict(image_id=i, bbox=box, iscrowd=crowd)
            for i, box, crowd in boxes
        ],
    )
    path.write_text(json.dumps(content))
    return path


def test_boxes_in_cocos_format(tmp_path):
    file = coco(
        tmp_path / 'boxes.json',
        ['a/1.jpg', 'b/1.jpg'],
        [
            (0, [1, 2, 3, 4], 0),
            (0, [0, 0, 9, 9], 1),
            (0, [5, 5, 1, 1], 0),
            (1, [0, 0, 2, 2], 0),
            # Neither without area nor of an image that is not listed.
            (0, [7, 7, 0, 4], 0),
            (1, [9, 9, -3, -3], 0),
            (77, [0, 0, 2, 2], 0),
        ],
    )
    boxes = TrueBoxes(file)
    assert boxes.of('data/a/1.png').tolist() == [[1, 2, 4, 6], [5, 5, 6, 6]]
    assert boxes.of('data/b/1.jpg').tolist() == [[0, 0, 2, 2]]
    with pytest.raises(ConfigError, match=r"'data/c/1\.jpg' has no box in"):
        boxes.of('data/c/1.jpg')


XML = (
    '<annotation><object><name>n01</name><bndbox><xmin>{}</xmin>'
    '<ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
    '</annotation>'
)


def test_boxes_in_imagenets_layout(tmp_path):
    (tmp_path / 'n01').mkdir()
    (tmp_path / 'n01/n01_7.xml').write_text(XML.format(1, 3, 30, 40))
    (tmp_path / 'val_3.xml').write_text(XML.format(5, 6, 7, 8))
    (tmp_path / 'val_4.xml').write_text(XML.format(9, 6, 7, 8))
    boxes = TrueBoxes(tmp_path)
    with pytest.raises(ConfigError, match="val_4.JPEG' has no box in"):
        boxes.of('x/val/n01/val_4.JPEG')
    assert boxes.of('x/train/n01/n01_7.JPEG').tolist() == [[0, 2, 30, 40]]
    assert boxes.of('x/val/n01/val_3.JPEG').tolist() == [[4, 5, 7, 8]]


def test_boxes_that_are_not_an_images_own(tmp_path):
    file = coco(tmp_path / 'a.json', ['7.png'], [(0, [0, 0, 4, 4], 0)])
    boxes = TrueBoxes(file)
    for _ in range(2):
        assert boxes.of('a/7.png').tolist() == [[0, 0, 4, 4]]
    with pytest.raises(ConfigError, match="a/7.png' and 'b/7.png' have the"):
        boxes.of('b/7.png')
    file = coco(tmp_path / 'b.json', ['7.png', '7.jpg'], [])
    with pytest.raises(ConfigError, match="two images that are named '7'"):
        TrueBoxes(file)


def test_boxes_of_several_classes(tmp_path):
    found = dict(
        images=[dict(id=1, file_name='7.png')],
        annotations=[
            dict(image_id=1, bbox=[i, 0, 4, 4], category_id=kind)
            for i, kind in enumerate((3, 3, 5))
        ],
    )
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(found))
    with pytest.raises(ConfigError, match='boxes of the classes 3, 5 in'):
        TrueBoxes(path).of('7.png')
    found['annotations'].pop()
    path.write_text(json.dumps(found))
    assert len(TrueBoxes(path).of('7.png')) == 2
    (tmp_path / '7.xml').write_text(
        XML.format(1, 1, 4, 4).replace(
            '</annotation>',
            XML.format(1, 1, 9, 9)[len('<annotation>') :].replace('01', '02'),
        )
    )
    with pytest.raises(ConfigError, match='boxes of the classes n01, n02 in'):
        TrueBoxes(tmp_path).of('7.png')


@pytest.mark.parametrize(
    'text',
    [
        *('', '[]', '{}', '{"images": [{"id": 1}], "annotations": []}'),
        '{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"'
        '}], "annotations": []}',
        '{"images": [{"id": 1, "file_name": "a"}], "annotations": '
        '[{"image_id": 1, "bbox": [0, NaN, 2, 2]}]}',
    ],
)
def test_what_is_not_cocos_format(text, tmp_path):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(ConfigError, match="x.json' are not in COCO's format"):
        TrueBoxes(tmp_path / 'x.json')


def test_annotations_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match='do not exist: give a .json'):
        TrueBoxes(tmp_path / 'nowhere')
    with pytest.raises(ConfigError, match='hold no image'):
        TrueBoxes(tmp_path)
    (tmp_path / '1.xml').write_text(
        '<a><object><bndbox></bndbox></object></a>'
    )
    with pytest.raises(ConfigError, match=r"1\.xml' cannot be read"):
        TrueBoxes(tmp_path)


@pytest.mark.parametrize('of', ['truth', 'prediction'])
def test_localize_beside_maps_one_by_one(
    make_config, checkpoint, pictures, tmp_path, of
):
    pytest.importorskip('torchcam')
    from mutualnet_mm.analysis.activation_maps import classifier_maps

    network = TrainedNetwork(
        make_config(), checkpoint, SUBNETS, calibrated=False
    )
    names = [f'{i % 4}/{i}.png' for i in range(12)]
    file = coco(
        tmp_path / 'boxes.json',
        names,
        [(i, [i, 4, 12, 20 - i], 0) for i in range(12)],
    )
    found = localize(network, TrueBoxes(file), [0.3, 0.6], of)
    assert len(found) == 24
    for one in found[::5]:
        net = network.static(one.subnet)
        number = int(one.image.split('/')[-1][:-4])
        (own,) = classifier_maps(
            net,
            *network.inputs([one.image]),
            [number % 4] if of == 'truth' else None,
        )
        assert (one.label, one.predicted) == (number % 4, own.predicted)
        assert one.share == 12 * (20 - number) / 32**2
        true = np.array([[number, 4, number + 12, 24 - number]], float)
        large = cv2.resize(own.values, (32, 32))
        for threshold in (0.3, 0.6):
            box = box_of(large, threshold)
            expected = 0 if box is None else overlaps_of(box, true)[0]
            assert one.overlaps[threshold] == pytest.approx(expected, abs=0.1)
    rows = summarize(found, network.subnets)
    save_accuracies(rows, found, dict(map=of), tmp_path / 'table.json')
    content = json.loads((tmp_path / 'table.json').read_text())
    assert len(content['rows']) == 2 * 2 * 3
    assert len(content['images']) == 24
    with pytest.raises(UsageError, match='threshold 1.5: give a fraction'):
        localize(network, TrueBoxes(file), [1.5])


def test_classifiers_alone(request):
    import adaptive_networks as nets

    model, _ = nets.network('detector', request)

    class Network:
        pass

    network = Network()
    network.model = model
    with pytest.raises(ConfigError, match='this model is for detection'):
        localize(network, None)


def test_comparison_is_image_by_image():
    found = made('1.0x-32', [0.3] * 3, {0})
    found += [replace(one, subnet='0.5x-16') for one in found]
    rows = [r for r in summarize(found, SUBNETS) if r.group == 'all']
    assert all((r.only_this, r.only_first) == (0, 0) for r in rows)


def test_boxes_of_larger_images_are_refused(make_config, checkpoint, tmp_path):
    """Doubled, they made every object large and nothing right."""
    pytest.importorskip('torchcam')
    network = TrainedNetwork(
        make_config(), checkpoint, SUBNETS, calibrated=False
    )
    names = [f'{i % 4}/{i}.png' for i in range(12)]
    boxes = [(i, [20, 20, 40, 40], 0) for i in range(12)]
    truth = TrueBoxes(coco(tmp_path / 'boxes.json', names, boxes))
    with pytest.raises(ConfigError, match='32 x 32 pixels, and a box in'):
        localize(network, truth)


def test_maps_that_are_not_finite_are_refused(
    make_config, checkpoint, tmp_path, monkeypatch
):
    """They would count as wrong."""
    pytest.importorskip('torchcam')
    from mutualnet_mm.analysis import activation_maps, localization

    def broken(*args):
        maps = activation_maps.classifier_maps(*args)
        for one in maps:
            one.values[:] = np.nan
        return maps

    monkeypatch.setattr(localization, 'classifier_maps', broken)
    network = TrainedNetwork(
        make_config(), checkpoint, SUBNETS, calibrated=False
    )
    names = [f'{i % 4}/{i}.png' for i in range(12)]
    boxes = [(i, [2, 2, 10, 10], 0) for i in range(12)]
    truth = TrueBoxes(coco(tmp_path / 'boxes.json', names, boxes))
    with pytest.raises(UsageError, match='map of 1.0x-32 of .* not finite'):
        localize(network, truth)


@pytest.mark.parametrize(
    'labels, kinds, names, expected',
    [
        ([0, 1, 1], ['a', 'b', 'b'], ['a', 'b'], []),
        ([0, 1, 1], ['b', 'a', 'a'], ['a', 'b'], [0, 1, 2]),
        ([0, 1, 1, 1], ['a', 'b', 'a', 'b'], ['a', 'b'], [2]),
        ([0, 1, 1, 1], ['n1', 'n2', 'n1', 'n2'], ['a', 'b'], [2]),
        ([0, 0, 0, 1], ['n1', 'n1', 'n2', 'n2'], None, [2]),
        ([0, 1], ['x', 'x'], None, []),  # as animals, of cats and dogs
        ([7], ['a'], ['a', 'b'], [0]),
    ],
)
def test_boxes_of_another_class(labels, kinds, names, expected):
    assert of_other_classes(labels, kinds, names) == expected


def test_the_class_of_boxes(tmp_path):
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png') for i in range(2)],
        annotations=[
            dict(image_id=i, bbox=[0, 0, 4, 4], category_id=i + 3)
            for i in range(2)
        ],
        categories=[dict(id=3, name='cat')],
    )
    (tmp_path / 'x.json').write_text(json.dumps(content))
    boxes = TrueBoxes(tmp_path / 'x.json')
    assert [boxes.class_of(f'{i}.png') for i in range(2)] == ['cat', '4']
    (tmp_path / '7.xml').write_text(XML.format(1, 3, 30, 40))
    assert TrueBoxes(tmp_path).class_of('7.JPEG') == 'n01'


@pytest.mark.parametrize(
    'original, scale, shape, expected',
    [
        ((30, 60), (2.0, 2.0), (120, 120), (60, 120)),  # padded to a square
        ((30, 60), (1.0, 2.0), (60, 60), (60, 60)),
        ((30, 60), (2.0, 2.0), (48, 48), (48, 48)),  # cropped
        ((30, 60), None, (48, 48), (48, 48)),
    ],
)
def test_an_input_without_padding(original, scale, shape, expected):
    from mmengine.structures import BaseDataElement

    meta = dict(ori_shape=original, img_shape=shape)
    if scale is not None:
        meta['scale_factor'] = scale
    assert image_size(BaseDataElement(metainfo=meta)) == expected
