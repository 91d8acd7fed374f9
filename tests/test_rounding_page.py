"""docs/rounding.md holds what the files beside it say."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_page_is_up_to_date():
    made = runpy.run_path(str(ROOT / 'docs/make_rounding.py'))
    page = made['PAGE'].read_text(encoding='utf-8')
    assert made['write_page']() == page, 'run docs/make_rounding.py'
    for file in made['FOLDER'].glob('*.json'):
        assert f'<!-- {file.stem} -->' in page


def test_what_is_compared():
    """Where two roundings keep the same channels, MACs are the same."""
    made = runpy.run_path(str(ROOT / 'docs/make_rounding.py'))
    for name in ('mobilenet_v1', 'resnet50'):
        macs = made['read'](name)['settings']['macs']
        widths = {key.split(', ')[0] for key in macs} - {'1x'}
        assert widths >= {'0.75x', '0.7x'}
        for width in widths:
            own = [macs[f'{width}, {n}'] for n in ('paper', 8, 16, 32)]
            assert own[3] > own[1]
            if name == 'mobilenet_v1':
                assert own[0] == own[1]
