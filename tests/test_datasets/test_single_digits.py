"""One digit in each image, as classifiers and as localisation read it."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('sklearn')
pytest.importorskip('pycocotools')

from mutualnet_mm.datasets.single_digits import (  # noqa: E402
    make_single_digits,
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'made'
    assert make_single_digits(out, num_train=12, num_val=30) == out
    return out


@pytest.mark.parametrize(('split', 'number'), [('train', 12), ('val', 30)])
def test_lists_and_boxes_are_of_the_same_digits(folder, split, number):
    truth = json.loads(
        (folder / f'annotations/instances_{split}.json').read_text()
    )
    lines = [
        line.split()
        for line in (folder / f'{split}.txt').read_text().splitlines()
    ]
    assert len(truth['images']) == len(truth['annotations']) == number
    names = {image['id']: image['file_name'] for image in truth['images']}
    classes = {c['id']: c['name'] for c in truth['categories']}
    assert lines == [
        [names[a['image_id']], classes[a['category_id']]]
        for a in truth['annotations']
    ]
    for annotation in truth['annotations']:
        image = cv2.imread(str(folder / split / names[annotation['image_id']]))
        assert image.shape == (96, 96, 3)
        # Ink has one strong channel, and photographs are darkened.
        rows, columns = np.nonzero(image.max(2) > 145)
        left, top, width, height = annotation['bbox']
        found = [columns.min(), rows.min(), columns.max(), rows.max()]
        true = [left, top, left + width - 1, top + height - 1]
        assert np.abs(np.subtract(found, true)).max() <= 4


def test_sizes_are_from_tiny_to_large(folder):
    truth = json.loads((folder / 'annotations/instances_val.json').read_text())
    shares = [
        a['bbox'][2] * a['bbox'][3] / 96**2 for a in truth['annotations']
    ]
    assert min(shares) < 0.1 and max(shares) > 0.5


def test_the_same_again(folder, tmp_path):
    before = {
        file: file.stat().st_mtime_ns for file in Path(folder).rglob('*.jpg')
    }
    lists = (folder / 'val.txt').read_text()
    make_single_digits(folder, num_train=12, num_val=30)
    assert before == {file: file.stat().st_mtime_ns for file in before}
    make_single_digits(tmp_path / 'again', num_train=12, num_val=30)
    assert (tmp_path / 'again/val.txt').read_text() == lists
