"""tools/charades.py: the official CSV becomes a list that mmaction2 reads."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / 'tools/charades.py'
HEAD = (
    'id,subject,scene,quality,relevance,verified,script,objects,'
    'descriptions,actions,length\n'
)
# As the official file is written: quoted commas, repeated and no actions.
ROWS = [
    (
        'YSKX3,HR43,Kitchen,6,7,Yes,"A person, tired, sits.",chair;food,'
        '"A person walks, sits; and eats.",'
        'c156 11.90 21.20;c000 0.00 12.60;c092 3.00 9.10;c000 20.00 21.00,'
        '30.50\n'
    ),
    '6RE8D,HR43,Bedroom,7,7,Yes,"Sleeps ""well"".",bed,Sleeps.,,31.25\n',
    '5LLOL,Z1,Stairs,5,6,No,Runs.,stairs,"Runs,\nup.",c150 0.00 -1.00,9.04\n',
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the tool on a text; return the path of the list."""
    spec = spec_from_file_location('charades', TOOL)
    tool = module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run_tool(text):
        path, out = tmp_path / 'in.csv', tmp_path / 'out.txt'
        path.write_text(text, encoding='utf-8')
        monkeypatch.setattr(sys, 'argv', [str(TOOL), str(path), str(out)])
        tool.main()
        return out

    return run_tool


def test_stock_data_set_reads_the_list(run, capsys):
    pytest.importorskip('mmaction')
    from mmaction.datasets import VideoDataset

    out = run(HEAD + ''.join(ROWS))
    assert '2 videos, 1 without an action' in capsys.readouterr().out
    assert out.read_text() == 'YSKX3.mp4 0 92 156\n5LLOL.mp4 150\n'
    data = VideoDataset(
        str(out),
        pipeline=[],
        data_prefix=dict(video='clips'),
        multi_class=True,
        num_classes=157,
    )
    labels = [data.get_data_info(i)['label'] for i in range(len(data))]
    assert [label.nonzero().flatten().tolist() for label in labels] == [
        [0, 92, 156],
        [150],
    ]
    assert data.get_data_info(1)['filename'] == 'clips/5LLOL.mp4'


@pytest.mark.parametrize(
    'text, expected',
    [
        (HEAD + ROWS[0] + ROWS[2].replace('c150', 'c157'), 'c157 0.00 -1.00'),
        (HEAD + ROWS[0].replace('c092 3.00', 'c92'), "line 2: 'c92 9.10'"),
        ('name,actions\nA,c000 0 1\n', 'no column id'),
        (HEAD + ROWS[1], 'no video with an action'),
        ('', 'no column'),
        (HEAD + ROWS[0] + '6RE8D,HR43,Bed', "line 3: '6RE8D' has fewer"),
        (HEAD + ROWS[0].replace('Yes,', 'Yes,,'), "line 2: 'YSKX3' has fewer"),
        (HEAD + ROWS[0].replace('YSKX3', 'Y X3'), "line 2: 'Y X3' is no id"),
    ],
)
def test_errors_take_one_line(run, text, expected, tmp_path):
    (tmp_path / 'out.txt').write_text('of before')
    with pytest.raises(SystemExit) as caught:
        run(text)
    message = str(caught.value)
    assert message.startswith('error: ') and '\n' not in message
    assert expected in message
    assert (tmp_path / 'out.txt').read_text() == 'of before'
