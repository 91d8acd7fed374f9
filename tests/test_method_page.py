"""docs/method.md and the pages of what goes beyond the paper."""

import re
from pathlib import Path

from mutualnet_mm.models.learning import OPTIONS
from mutualnet_mm.models.settings import MutualSettings

DOCS = Path(__file__).parents[1] / 'docs'
PAGE = (DOCS / 'method.md').read_text(encoding='utf-8')
BEYOND = (*OPTIONS, 'start', 'stratified', 'stages', 'norm')
SECTIONS = [
    'What it does',
    'How to switch it on',
    'Suggested value',
    'Cost',
    'What it gave here',
    'When it hurts',
]


def test_every_option_has_a_row_and_a_page():
    rows = re.findall(r'^\| \[`(\w+)`\]\((methods/\w+\.md)\) \|', PAGE, re.M)
    assert sorted(name for name, _ in rows) == sorted(BEYOND)
    for name, page in rows:
        text = (DOCS / page).read_text(encoding='utf-8')
        assert f'`{name}' in text.splitlines()[0]
        assert f'- {name} (' in MutualSettings.__doc__


def test_every_page_is_listed_and_whole():
    listed = set(re.findall(r'methods/\w+\.md', PAGE))
    found = {f'methods/{p.name}' for p in (DOCS / 'methods').glob('*.md')}
    assert listed == found
    for page in found:
        text = (DOCS / page).read_text(encoding='utf-8')
        assert re.findall(r'^\*\*(.+?)\.\*\*', text, re.M) == SECTIONS, page
        assert re.search(r'^Source: .*', text, re.M), page
