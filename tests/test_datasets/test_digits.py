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


def test_unfinished_is_completed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            cv2, 'imwrite', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        make_digits(tmp_path, size=8)
    assert len(list(make_digits(tmp_path, size=8).rglob('*.png'))) == 1797


FOREIGN = {
    'thesis.txt': ['do not touch'],
    'digits.json': ['{"size": 8}', '[]', '{}', '{"made_by": "me"}', '{', ''],
}


@pytest.mark.parametrize(
    'name, text', [(n, text) for n, texts in FOREIGN.items() for text in texts]
)
def test_foreign_folders_are_left_alone(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match='did not make: name a new folder'):
        make_digits(tmp_path)
    assert [file.read_text() for file in tmp_path.iterdir()] == [text]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'a').write_text('do not touch')
    for place in (tmp_path / 'a', tmp_path / 'a' / 'b'):
        with pytest.raises(ConfigError, match='cannot be made: .*; name an'):
            make_digits(place)


@pytest.mark.parametrize('size', [0, -1, 1.5, None])
def test_wrong_sizes(tmp_path, size):
    with pytest.raises(ConfigError, match=f'size={size}: use a whole number'):
        make_digits(tmp_path, size)
    assert not [*tmp_path.iterdir()]
