"""docs/results/performance.md holds what the files beside it say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_up_to_date():
    made = runpy.run_path(str(ROOT / 'docs/make_performance.py'))
    page = made['PAGE'].read_text(encoding='utf-8')
    assert made['write_page']() == page, 'run docs/make_performance.py'
    for file in made['FOLDER'].glob('*.json'):
        assert f'<!-- {file.stem} -->' in page
