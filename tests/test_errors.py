"""Errors of others in one line, with what helps."""

import pytest
from mmengine.config import Config

from mutualnet_mm.errors import first_line


def test_the_first_line():
    assert first_line(ValueError('\n  wrong\nmore')) == 'wrong'
    assert first_line(KeyError()) == 'KeyError'


def test_imports_of_a_config(tmp_path):
    """MMEngine goes on for many lines, and its cause comes last."""
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['no_such_package'])")
    try:
        Config.fromfile(path)
    except ImportError as error:
        said = first_line(error)
    assert 'no_such_package' in said
    assert said.startswith('custom_imports') and 'PYTHONPATH' in said


def test_a_package_that_lacks_another_one(tmp_path, monkeypatch):
    """It is there itself: what is missing is what it imports."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / 'package_of_tests.py').write_text('import no_such_package')
    path = tmp_path / 'config.py'
    path.write_text("custom_imports = dict(imports=['package_of_tests'])")
    with pytest.raises(ImportError) as error:
        Config.fromfile(path)
    assert "No module named 'no_such_package'" in first_line(error.value)
    # What it says itself is better than how it came to that.
    (tmp_path / 'other_of_tests.py').write_text(
        'try:\n    import no_such_package\nexcept ImportError:\n'
        "    raise ImportError('install the one of 2.0')"
    )
    path.write_text("custom_imports = dict(imports=['other_of_tests'])")
    with pytest.raises(ImportError) as error:
        Config.fromfile(path)
    assert '(install the one of 2.0)' in first_line(error.value)
