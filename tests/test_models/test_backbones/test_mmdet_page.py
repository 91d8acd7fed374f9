"""docs/backbones_mmdet.md says what is found, without trying all of it."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from mutualnet_mm import UsageError

pytest.importorskip('mmdet')
ROOT = Path(__file__).parents[3]
spec = spec_from_file_location('tool', ROOT / 'tools/list_backbones.py')
tool = module_from_spec(spec)
spec.loader.exec_module(tool)
BACKBONES = tool.stock_backbones('mmdet')
PAGE = (ROOT / 'docs/backbones_mmdet.md').read_text()
REASONS = dict(re.findall(r'^\| (\w+) \| (.* .*) \|$', PAGE, re.M))
WORKS = re.findall(r'^- (\w+)$', PAGE, re.M)


@pytest.fixture(autouse=True)
def same_release():
    import mmdet

    if f'mmdet {mmdet.__version__}\n' not in PAGE:
        pytest.skip('the page was written with another mmdet')


def test_every_backbone_is_on_the_page():
    assert sorted([*WORKS, *REASONS]) == sorted(BACKBONES)
    assert (
        tool.survey_page(
            {name: REASONS.get(name, '') for name in BACKBONES}, 'mmdet'
        )
        == PAGE
    )


@pytest.mark.parametrize('name', sorted(REASONS))
def test_what_is_refused(name):
    with pytest.raises(UsageError) as error:
        tool.try_backbone(name, BACKBONES[name], 'mmdet')
    assert str(error.value) == REASONS[name]


@pytest.mark.sweep(1)
@pytest.mark.parametrize('name', ['EfficientNet', 'HRNet', 'SSDVGG'])
def test_what_works(name):
    assert name in WORKS
    tool.try_backbone(name, BACKBONES[name], 'mmdet')
