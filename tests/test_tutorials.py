"""Every block of the tutorials runs, in order, with less data and training."""

import json

import pytest
from pages import ROOT, run_page

DIGITS = "make_digits('data/digits', size=24)"
SURE = 'test_cfg=dict(score_thr=0.0),'
FEW_DIGITS = """
from pathlib import Path
for folder in Path('data/digits').glob('*/*'):
    for path in sorted(folder.glob('*'))[8:]:
        path.unlink()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that looks like a clone, as the current one."""
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name, *shorter):
    """Run a tutorial with some of its text replaced, to be quicker."""
    page = f'docs/tutorials/{name}.md'
    text = (ROOT / page).read_text(encoding='utf-8')
    assert all(old in text for old, _ in shorter)

    def edit(code):
        for old, new in shorter:
            code = code.replace(old, new)
        return code

    return run_page(page, edit)


def read_table():
    return json.loads(open('work_dirs/table/table.json').read())


@pytest.mark.slow
def test_classification(place, capsys):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('sklearn')
    names = run(
        'classification',
        (DIGITS, DIGITS + FEW_DIGITS),
        ('max_epochs=12, val_interval=4', 'max_epochs=1'),
        ('epoch_12', 'epoch_1'),
    )
    lines = [x for x in capsys.readouterr().out.splitlines() if 'MACs:' in x]
    assert len(lines) == 3 and str(names['net'].current) in lines[-1]
    table = read_table()
    assert len(table['entries']) == 12 and table['full'] == '1.0x-24'


@pytest.mark.slow
def test_detection(place, capsys):
    pytest.importorskip('mmdet')
    pytest.importorskip('sklearn')
    run(
        'detection',
        ('num_train=200, num_val=40', 'num_train=8, num_val=4'),
        ('max_epochs=12, val_interval=4', 'max_epochs=1'),
        ('epoch_12', 'epoch_1'),
        ('0.5x-128 0.5x-96 0.25x-96 0.25x-64', '0.25x-64'),
        # An untrained network is sure of nothing.
        ('stacked_convs=2\n    ),', f'stacked_convs=2\n    ),\n    {SURE}'),
    )
    lines = [x for x in capsys.readouterr().out.splitlines() if 'MACs,' in x]
    assert [line.split(':')[0] for line in lines] == ['1.0x-128', '0.25x-64']
    assert read_table()['metric'] == 'coco/bbox_mAP'


@pytest.mark.slow
def test_video(place, capsys):
    pytest.importorskip('mmaction')
    run(
        'video',
        ("('train', 200), ('val', 100)", "('train', 10), ('val', 4)"),
        ('max_epochs=8, val_interval=4', 'max_epochs=1'),
        ('epoch_8', 'epoch_1'),
        ('--step 0.5', '--subnet 1.0x-64-8 0.5x-32-3'),
    )
    lines = [x for x in capsys.readouterr().out.splitlines() if ' cost: ' in x]
    assert len(lines) == 3 and ' 0.5x-32-3, class ' in lines[-1]
    assert read_table()['full'] == '1.0x-64-8'


def test_backbone(place, capsys):
    pytest.importorskip('mmpretrain')
    names = run('backbone')
    assert names['maps'].shape[1] == 16
    lines = capsys.readouterr().out.splitlines()
    # The stem of the full network: 3 x 32 x 9 on 32 x 32; and so on.
    macs = (864 * 1024 + 9 * 32 * 1024 + 9 * 1024 * 1024) + 18432 * 256
    assert f'1.0x-64: {(macs + 64 * 256) / 1e6:.2f} M MACs' in lines[0]
