"""The images that localisation is tried on."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from programs import run_program

PROJECT = Path(__file__).parents[1] / 'projects/single_objects.py'


@pytest.fixture
def coco(tmp_path):
    """Images of grey noise, with a green and a red object, and a crowd."""
    rng = np.random.default_rng(0)
    (tmp_path / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (tmp_path / split).mkdir()
        picture = rng.integers(0, 80, (120, 200, 3), np.uint8)
        boxes = [[10, 20, 50, 60], [120, 10, 60, 40], [150, 90, 8, 8]]
        annotations = []
        for i, (x, y, w, h) in enumerate(boxes):
            picture[y : y + h, x : x + w] = (0, 255 * (i == 0), 255 * (i > 0))
            annotations.append(
                dict(image_id=1, bbox=[x, y, w, h], category_id=i, iscrowd=0)
            )
        annotations.append(
            dict(image_id=1, bbox=[0, 90, 60, 25], category_id=1, iscrowd=1)
        )
        kinds = ('plant', 'animal', 'animal')
        content = dict(
            images=[dict(id=1, file_name='1.png', width=200, height=120)],
            annotations=annotations,
            categories=[
                dict(id=i, name=str(i), supercategory=kind)
                for i, kind in enumerate(kinds)
            ],
        )
        cv2.imwrite(str(tmp_path / split / '1.png'), picture)
        path = tmp_path / f'annotations/instances_{split}.json'
        path.write_text(json.dumps(content))
    return tmp_path


def test_crops(coco, tmp_path):
    out = tmp_path / 'crops'
    result = run_program(PROJECT, 'crops', out, '--coco', coco)
    assert result.returncode == 0, result.stderr
    truth = json.loads((out / 'annotations/instances_train.json').read_text())
    lines = [s.split() for s in (out / 'train.txt').read_text().splitlines()]
    assert 6 <= len(lines) <= 12  # six of each of two, the third is too small
    assert {label for _, label in lines} == {'0', '1'}
    assert [c['name'] for c in truth['categories']] == ['animal', 'plant']
    for (name, label), annotation in zip(lines, truth['annotations']):
        assert annotation['category_id'] == int(label) + 1
        image = cv2.imread(str(out / 'train' / name)).astype(int)
        assert image.shape == (96, 96, 3)
        x, y, w, h = annotation['bbox']
        assert 0 <= x <= x + w <= 96.01 and 0 <= y <= y + h <= 96.01
        assert 0.04 < w * h / 96**2 < 0.95
        # The object fills its box, in its colour.
        inner = image[
            int(np.ceil(y)) + 1 : int(y + h) - 1,
            int(np.ceil(x)) + 1 : int(x + w) - 1,
        ]
        colour = [0, 255, 0] if label == '1' else [0, 0, 255]
        assert np.abs(inner - colour).max() <= 8
    before = (out / 'annotations/instances_train.json').read_text()
    run_program(PROJECT, 'crops', tmp_path / 'again', '--coco', coco)
    again = tmp_path / 'again/annotations/instances_train.json'
    assert again.read_text() == before


def test_refusals(tmp_path):
    result = run_program(PROJECT, 'crops', tmp_path / 'x')
    assert result.returncode == 1 and 'give --coco' in result.stderr
    result = run_program(PROJECT, 'crops', tmp_path / 'x', '--coco', tmp_path)
    assert "does not exist: give a folder in COCO's layout" in result.stderr


def test_odd_annotations(coco, tmp_path):
    """Left out as the stock data set does, or one line."""
    path = coco / 'annotations/instances_train2017.json'
    good = json.loads(path.read_text())
    rows = good['annotations']
    for values in (
        dict(bbox=[5, 5, 0, 40]),
        dict(bbox=[40, 40, -20, -20]),
        dict(bbox=[-900, 5, 40, 40]),
        dict(category_id=77),
        dict(image_id=77),
    ):
        rows.append(dict(rows[0], id=len(rows) + 1, **values))
    del rows[0]['iscrowd']
    path.write_text(json.dumps(good))
    result = run_program(PROJECT, 'crops', tmp_path / 'x', '--coco', coco)
    assert result.returncode == 0, result.stderr
    for change, text in (
        (lambda c: c.pop('categories'), "not in COCO's format: KeyError"),
        (lambda c: c.update(annotations=[]), 'no object in .* large enough'),
        (lambda c: c['annotations'][0].pop('bbox'), "not in COCO's format"),
    ):
        content = json.loads(json.dumps(good))
        change(content)
        path.write_text(json.dumps(content))
        result = run_program(PROJECT, 'crops', tmp_path / 'y', '--coco', coco)
        assert result.returncode == 1
        assert re.search(f'error: .*{text}', result.stderr), result.stderr
        assert 'Traceback' not in result.stderr
