"""Digits on cluttered photographs, as folders of images."""

import cv2
import numpy as np
import pytest

from mutualnet_mm import ConfigError
from mutualnet_mm.datasets import cluttered_digits
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits

sklearn_data = pytest.importorskip('sklearn.datasets')
FEW = dict(num_train=30, num_val=20)


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob('*.png')
    }


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('digits') / 'made'
    assert make_cluttered_digits(out, **FEW) == out
    return out


def test_numbers_and_shapes(folder):
    for split in ('train', 'val'):
        # All ten folders, so that classes have the same numbers in both.
        names = sorted(p.name for p in (folder / split).iterdir())
        assert names == [str(digit) for digit in range(10)]
        files = list((folder / split).rglob('*.png'))
        assert len(files) == FEW[f'num_{split}']
        for file in files:
            assert cv2.imread(str(file)).shape == (32, 32, 3)


def test_the_seed_alone_decides(folder, tmp_path):
    again = make_cluttered_digits(tmp_path / 'again', **FEW)
    assert contents(again) == contents(folder)
    other = make_cluttered_digits(tmp_path / 'other', **FEW, seed=1)
    assert not set(contents(other).values()) & set(contents(folder).values())


def test_made_once_and_again_for_other_settings(tmp_path):
    make_cluttered_digits(tmp_path, **FEW)
    file = next((tmp_path / 'val').rglob('*.png'))
    before = file.stat().st_mtime_ns
    make_cluttered_digits(tmp_path, **FEW)
    assert file.stat().st_mtime_ns == before
    make_cluttered_digits(tmp_path, 5, 4, size=16)
    assert len(contents(tmp_path)) == 9
    assert cv2.imread(str(next(tmp_path.rglob('*.png')))).shape[0] == 16


def test_train_and_val_share_nothing(tmp_path, monkeypatch):
    """Neither a digit nor a column of a photograph; none is left out."""
    found = {}
    paint = cluttered_digits._paint

    def record(rng, glyphs, labels, photographs, size):
        found[len(glyphs)] = glyphs, labels, photographs
        return paint(rng, glyphs, labels, photographs, size)

    monkeypatch.setattr(cluttered_digits, '_paint', record)
    make_cluttered_digits(tmp_path, 1, 1)
    (val, val_labels, right), (train, train_labels, left) = (
        found[n] for n in sorted(found)
    )
    digits = sklearn_data.load_digits()
    lines = np.column_stack(
        [
            np.concatenate([train, val]).reshape(-1, 64) * 16,
            np.concatenate([train_labels, val_labels]),
        ]
    )
    truth = np.column_stack([digits.data, digits.target])
    assert sorted(map(tuple, lines)) == sorted(map(tuple, truth))
    photographs = sklearn_data.load_sample_images().images
    for parts in zip(left, right, photographs):
        assert (np.concatenate(parts[:2], axis=1) == parts[2]).all()


def test_the_label_is_that_of_the_digit(monkeypatch):
    """Upright on black and without clutter, the glyph can be compared."""
    for name, value in dict(_PIECES=0, _ANGLE=0, _DARK=(0, 0)).items():
        monkeypatch.setattr(cluttered_digits, name, value)
    digits = sklearn_data.load_digits()
    photographs = sklearn_data.load_sample_images().images
    names = digits.target[:20] + 100
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(40):
        image, label = cluttered_digits._paint(
            rng, digits.images[:20] / 16, names, photographs, 64
        )
        shown = image.max(2).astype(float)
        rows, columns = np.nonzero(shown > 20)
        cut = shown[rows.min() : rows.max(), columns.min() : columns.max()]
        alike = []
        for glyph in digits.images[:20]:
            ys, xs = np.nonzero(glyph > 4)
            part = glyph[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            part = cv2.resize(part, cut.shape[::-1])
            alike.append(np.corrcoef(part.ravel(), cut.ravel())[0, 1])
        right += names[np.argmax(alike)] == label
    assert right > 32, right  # 4 if labels had nothing to do with digits


def test_grey_levels(monkeypatch):
    """Strokes have the levels of the glyph, which OpenCV 5.0.0 can lose."""
    monkeypatch.setattr(cluttered_digits, '_ANGLE', 0)
    rng = np.random.default_rng(0)
    for glyph in sklearn_data.load_digits().images[:20] / 16:
        image = np.zeros((32, 32, 3))
        cluttered_digits._add(rng, image, glyph, 32, np.ones(3))
        padded = np.pad(glyph, 2)  # black beyond the glyph
        large = cv2.resize(padded, (48, 48), interpolation=cv2.INTER_CUBIC)
        expected = np.clip(2 * large[8:40, 8:40] - 0.5, 0, 1)
        np.testing.assert_allclose(image[..., 0], expected, atol=0.02)


def test_unfinished_is_completed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(
            cv2, 'imwrite', lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        make_cluttered_digits(tmp_path, **FEW)
    assert len(contents(make_cluttered_digits(tmp_path, **FEW))) == 50


def test_foreign_folders_are_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('do not touch')
    with pytest.raises(ConfigError, match='did not make: name a new folder'):
        make_cluttered_digits(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['thesis.txt']


@pytest.mark.parametrize(
    ('name', 'value', 'least'),
    [
        *[
            ('size', value, '16 to 128')
            for value in (15, 0, -32, 32.5, None, True, 129)
        ],
        *[('num_train', value, 0) for value in (-1, 2.5, '9')],
        *[(name, -1, 0) for name in ('num_val', 'seed')],
    ],
)
def test_wrong_arguments(tmp_path, name, value, least):
    with pytest.raises(
        ConfigError, match=f'{name}={value!r}: use a whole number from {least}'
    ):
        make_cluttered_digits(tmp_path, **{name: value})
    assert not [*tmp_path.iterdir()]
