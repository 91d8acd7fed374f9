"""Scikit-learn's digits as folders of images."""

import cv2
import numpy as np
import pytest

from mutualnet_mm import ConfigError
from mutualnet_mm.datasets.digits import make_digits

digits = pytest.importorskip('sklearn.datasets').load_digits()


def test_every_digit_is_there_once(tmp_path):
    root = make_digits(tmp_path / 'digits', size=16)
    files = sorted(root.rglob('*.png'))
    assert sorted(int(f.stem) for f in files) == list(range(1797))
    assert len(list((root / 'val').rglob('*.png'))) == 500
    for file in files[::100]:
        index = int(file.stem)
        assert int(file.parent.name) == digits.target[index]
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        assert image.shape == (16, 16)
        # Shrunk again it is the digit as it was, but for the interpolation.
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA)
        truth = digits.images[index] * 255 / 16
        assert np.corrcoef(small.ravel(), truth.ravel())[0, 1] > 0.97


def test_made_once_and_again_for_another_size(tmp_path):
    root = make_digits(tmp_path, size=16)
    file = next((root / 'val/7').glob('*.png'))
    before = file.stat().st_mtime_ns
    make_digits(tmp_path, size=16)
    assert file.stat().st_mtime_ns == before
    make_digits(tmp_path, size=8)
    assert cv2.imread(str(file)).shape == (8, 8, 3)


def test_unfinished_is_completed(tmp_path):
    root = make_digits(tmp_path, size=8)
    (root / 'digits.json').write_text('{}')  # as it is while being made
    file = next((root / 'val/7').glob('*.png'))
    file.unlink()
    make_digits(tmp_path, size=8)
    assert file.is_file()


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not touch')
    with pytest.raises(ConfigError, match='not empty'):
        make_digits(tmp_path)
