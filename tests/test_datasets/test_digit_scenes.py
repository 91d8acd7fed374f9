import json

import cv2
import numpy as np
import pytest

from mutualnet_mm import ConfigError
from mutualnet_mm.datasets import digit_scenes
from mutualnet_mm.datasets.digit_scenes import DIGIT_CLASSES, make_digit_scenes

pytest.importorskip('sklearn')
coco_mask = pytest.importorskip('pycocotools.mask')

SETTINGS = dict(num_train=12, num_val=5, image_size=(96, 120), seed=3)


# Of the digits on the first images.
LABELS = [[7, 1, 2, 8, 3, 9, 1, 6], [8, 4, 2, 2, 7, 5, 5, 2]]


def read(folder, split='train'):
    path = folder / 'annotations' / f'instances_{split}.json'
    data = json.loads(path.read_text())
    masks = {
        a['id']: coco_mask.decode(a['segmentation']).astype(bool)
        for a in data['annotations']
    }
    return data, masks


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return make_digit_scenes(tmp_path_factory.mktemp('scenes'), **SETTINGS)


@pytest.fixture
def painted(monkeypatch):
    """What is painted: every image with its labels and masks."""
    found = []
    paint = digit_scenes._paint_scene

    def record(*args):
        found.append(paint(*args))
        return found[-1]

    monkeypatch.setattr(digit_scenes, '_paint_scene', record)
    return found


@pytest.mark.parametrize('split, count', [('train', 12), ('val', 5)])
def test_annotations_are_consistent(scenes, split, count):
    data, masks = read(scenes, split)
    names = {c['id']: c['name'] for c in data['categories']}
    assert tuple(names.values()) == DIGIT_CLASSES
    assert len(data['images']) == count
    assert len({a['id'] for a in data['annotations']}) == len(masks)
    for image in data['images']:
        picture = cv2.imread(str(scenes / split / image['file_name']))
        assert picture.shape == (96, 120, 3)
        assert (image['height'], image['width']) == (96, 120)
        digits = [
            a for a in data['annotations'] if a['image_id'] == image['id']
        ]
        assert 1 <= len(digits) <= 3
        assert sum(masks[a['id']].astype(int) for a in digits).max() == 1
    for annotation in data['annotations']:
        rows, columns = np.nonzero(masks[annotation['id']])
        x, y, width, height = annotation['bbox']
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation['area'] == len(rows)
        assert annotation['iscrowd'] == 0
        assert annotation['category_id'] in names


def test_masks_cover_exactly_what_is_pasted(monkeypatch, tmp_path):
    # On a black photograph all that is not black is a digit.
    black = [np.zeros((200, 300, 3), np.uint8)]
    written = {}
    monkeypatch.setattr(
        cv2, 'imwrite', lambda path, image, _: written.update({path: image})
    )
    folder = make_digit_scenes(tmp_path, photographs=black, **SETTINGS)
    data, masks = read(folder)
    for image in data['images']:
        picture = written[str(folder / 'train' / image['file_name'])]
        union = np.zeros(picture.shape[:2], bool)
        for annotation in data['annotations']:
            if annotation['image_id'] == image['id']:
                union |= masks[annotation['id']]
        assert np.array_equal(union, picture.max(axis=-1) > 0)
        # Bright throughout, at least in one channel.
        assert picture.max(axis=-1)[union].min() > 0.6 * 255


def test_hidden_pixels_belong_to_the_digit_in_front(monkeypatch, tmp_path):
    glyphs = []
    place = digit_scenes._place

    def record(*args):
        glyphs.append(place(*args))
        return glyphs[-1]

    monkeypatch.setattr(digit_scenes, '_place', record)
    folder = make_digit_scenes(
        tmp_path, digits_per_scene=(6, 6), **{**SETTINGS, 'num_val': 0}
    )
    data, masks = read(folder)
    overlaps = 0
    for image in data['images']:
        whole, glyphs = glyphs[:6], glyphs[6:]
        whole = [mask for mask in whole if mask is not None]
        digits = [
            a for a in data['annotations'] if a['image_id'] == image['id']
        ]
        assert len(digits) == len(whole)
        for index, annotation in enumerate(digits):
            visible = whole[index].copy()
            for front in whole[index + 1 :]:
                visible &= ~front
            assert np.array_equal(masks[annotation['id']], visible)
            assert visible.sum() >= 0.7 * whole[index].sum()
            overlaps += visible.sum() < whole[index].sum()
    assert overlaps > 10


def test_splits_share_no_digit_and_no_photograph(monkeypatch, tmp_path):
    seen = {}
    paint = digit_scenes._paint_scene

    def record(rng, digits, labels, photographs, settings):
        split = 'train' if len(seen.setdefault('train', [])) < 12 else 'val'
        seen.setdefault(split, []).append((digits, photographs))
        return paint(rng, digits, labels, photographs, settings)

    monkeypatch.setattr(digit_scenes, '_paint_scene', record)
    # Every column of the photograph has a colour of its own.
    columns = np.arange(200, dtype=np.uint8)[None, :, None]
    photograph = np.broadcast_to(columns, (150, 200, 3))
    make_digit_scenes(tmp_path, photographs=[photograph], **SETTINGS)
    (train, (train_photo,)), (val, (val_photo,)) = (
        seen['train'][0],
        seen['val'][0],
    )
    assert len(train) + len(val) == 1797
    assert not set(np.unique(train_photo)) & set(np.unique(val_photo))


def test_same_settings_are_not_made_again(tmp_path, painted):
    folder = make_digit_scenes(tmp_path / 'scenes', **SETTINGS)
    assert len(painted) == 17
    before = {p: p.read_bytes() for p in folder.rglob('*.*')}
    make_digit_scenes(tmp_path / 'scenes', **SETTINGS)
    assert len(painted) == 17

    again = make_digit_scenes(tmp_path / 'again', **SETTINGS)
    assert {again / p.relative_to(folder) for p in before} == {
        p for p in again.rglob('*.*')
    }
    for path, content in before.items():
        assert (again / path.relative_to(folder)).read_bytes() == content

    make_digit_scenes(tmp_path / 'again', **{**SETTINGS, 'seed': 4})
    assert len(painted) == 3 * 17
    name = 'train/000001.jpg'
    assert (again / name).read_bytes() != (folder / name).read_bytes()


def test_interrupted_data_set_is_made_again(tmp_path, monkeypatch, painted):
    paint = digit_scenes._paint_scene

    def interrupt(*args):
        if len(painted) == 14:
            raise KeyboardInterrupt
        return paint(*args)

    with monkeypatch.context() as patch:
        patch.setattr(digit_scenes, '_paint_scene', interrupt)
        with pytest.raises(KeyboardInterrupt):
            make_digit_scenes(tmp_path, **SETTINGS)
    make_digit_scenes(tmp_path, **SETTINGS)
    assert len(painted) == 14 + 17
    assert len(read(tmp_path, 'val')[0]['images']) == 5


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(digit_size=(36, 97)), r'\(36, 97\).*\(96, 120\)'),
        (dict(digit_size=(40, 30)), r'digit_size=\(40, 30\)'),
        (
            dict(digits_per_scene=(0, 3)),
            r'digits_per_scene=\(0, 3\): give two whole numbers from 1',
        ),
        (dict(digits_per_scene=(3, 1)), r'=\(3, 1\): give the least one'),
        (dict(digit_size=(36, 40.5)), r'=\(36, 40.5\): give two whole'),
        (dict(image_size=(96,)), r'image_size=\(96,\): give two whole'),
        (dict(num_train=-3), 'num_train=-3: use a whole number from 0'),
        (dict(num_val=1.5), 'num_val=1.5: use a whole number from 0'),
        (dict(seed=-1), 'seed=-1: use a whole number from 0'),
        (dict(photographs=[]), 'photographs is empty: give one or more'),
    ],
)
def test_wrong_values_are_refused(tmp_path, wrong, message):
    with pytest.raises(ConfigError, match=message):
        make_digit_scenes(tmp_path, **{**SETTINGS, **wrong})
    assert not [*tmp_path.iterdir()]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'a').write_text('do not touch')
    with pytest.raises(ConfigError, match='cannot be made: .*; name another'):
        make_digit_scenes(tmp_path / 'a', **SETTINGS)


def test_scenes_stay_the_same(scenes):
    """Numbers of the docs were measured on them."""
    labels = [
        [a['category_id'] - 1 for a in read(scenes, split)[0]['annotations']]
        for split in ('train', 'val')
    ]
    assert [found[:8] for found in labels] == LABELS


@pytest.mark.parametrize('text', ['{}', '[]', '{', ''])
@pytest.mark.parametrize('name', ['notes.txt', 'settings.json'])
def test_other_data_is_not_overwritten(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match='name a new folder'):
        make_digit_scenes(tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize('package', ['sklearn', 'pycocotools'])
def test_missing_package_is_named(tmp_path, monkeypatch, package):
    for name in (package, f'{package}.datasets'):
        monkeypatch.setitem(__import__('sys').modules, name, None)
    with pytest.raises(ConfigError, match=f'{package}.*pip install'):
        make_digit_scenes(tmp_path, **SETTINGS)


def test_mmdet_reads_the_painted_masks(tmp_path, painted):
    pytest.importorskip('mmdet')
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations
    from mmengine.dataset import Compose

    folder = make_digit_scenes(tmp_path, **SETTINGS)
    data = CocoDataset(
        ann_file='annotations/instances_train.json',
        data_root=str(folder),
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=DIGIT_CLASSES),
    )
    load = Compose([LoadAnnotations(with_bbox=True, with_mask=True)])
    assert len(data) == 12
    for sample, (image, digits) in zip(data, painted):
        result = load({**sample, 'ori_shape': image.shape[:2]})
        labels, masks = zip(*digits)
        assert result['gt_bboxes_labels'].tolist() == list(labels)
        assert np.array_equal(result['gt_masks'].masks, np.stack(masks))
        # mmdet's own boxes around the masks agree with the written ones.
        boxes = result['gt_masks'].get_bboxes('hbox').tensor
        assert np.array_equal(boxes, result['gt_bboxes'].tensor)
