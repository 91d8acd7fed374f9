"""Every block of the tutorials runs, in order, with less data and training."""

import json

import pytest
from pages import ROOT, run_page


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that looks like a clone, as the current one."""
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def replace(*pairs):
    """An edit of blocks; each text has to be in one of them."""

    def edit(code):
        for old, new in pairs:
            code = code.replace(old, new)
        return code

    page = lambda name: (ROOT / name).read_text()  # noqa: E731
    edit.check = lambda name: all(old in page(name) for old, _ in pairs)
    return edit


@pytest.mark.slow
def test_classification(place, capsys):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('sklearn')
    page = 'docs/tutorials/classification.md'
    edit = replace(('max_epochs=4', 'max_epochs=1'), ('epoch_4', 'epoch_1'))
    assert edit.check(page)
    names = run_page(page, edit)
    lines = [x for x in capsys.readouterr().out.splitlines() if 'MACs:' in x]
    assert len(lines) == 3
    table = json.loads((place / 'work_dirs/table/table.json').read_text())
    assert len(table['entries']) == 12 and table['full'] == '1.0x-32'
    assert str(names['net'].current) in lines[-1]
