"""Blocks of docs/: adaptive_config, faq, install, method, methods/, ranges,
video_data.
"""

from unittest.mock import create_autospec

import pytest
import torch
from pages import ROOT, read_blocks, run_page

from mutualnet_mm.models.settings import MutualSettings

CARDS = sorted((ROOT / 'docs/methods').glob('*.md'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'page', ['adaptive_config', 'faq', 'install', 'ranges']
)
def test_page(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmpretrain')
    for name in ('tools', 'configs'):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    page = f'docs/{page}.md'
    # A clone has the folder that is named so once it is installed.
    run_page(page, lambda code: code.replace('mutualnet_mm::', 'configs/'))
    said = capsys.readouterr().out
    for language, code, needs in read_blocks(page):
        if language == 'python' and not needs:
            last = code.splitlines()[-1]
            assert last.removeprefix('# ') in said


def values_of_mutual(code):
    """The settings that the statements of a block give ``mutual``, in turn."""

    class Settings(dict):
        def __init__(self, *rest, **settings):
            assert all(item is ... for item in rest)
            super().__init__(settings)

    class Names(dict):
        found = []

        def __setitem__(self, name, value):
            self.found.append((name, value))

    names = Names(dict=Settings)
    names.found = []
    exec(compile(code, 'a card', 'exec'), names)
    return [value for name, value in names.found if name == 'mutual']


@pytest.mark.parametrize('card', CARDS, ids=lambda card: card.stem)
def test_settings_of_cards(card):
    from mutualnet_mm.apis import AdaptiveModel

    for language, code, needs in read_blocks(f'docs/methods/{card.name}'):
        if language != 'python' or needs:
            continue
        if card.stem == 'cascade':
            exec(code, dict(net=create_autospec(AdaptiveModel)))
            continue
        found = values_of_mutual(code)
        assert found
        for mutual in found:
            MutualSettings.read(dict(mutual, resolution=(64, 48)))


def test_own_code_as_a_subnet(build_classifier):
    (block,) = [
        block for block in read_blocks('docs/method.md') if not block.needs
    ]
    model = build_classifier(dict(resolution=(320, 160))).eval()
    images = torch.randn(2, 3, 160, 160)
    pixels = [torch.rand(3, 320, 320) * 255 for _ in range(2)]
    batch = dict(inputs=pixels, data_samples=None)
    names = dict(
        torch=torch,
        model=model,
        images_of_160_pixels=images,
        train_loader=[batch],
    )
    exec(block.code, names)
    assert names['scores'].shape == (2, 4)


def test_reading_clips(enter_scope):
    enter_scope('mmaction')
    pytest.importorskip('decord')
    from mmengine.registry import TRANSFORMS

    (block,) = [
        block for block in read_blocks('docs/video_data.md') if not block.needs
    ]
    step = TRANSFORMS.build(eval(block.code))
    assert type(step).__name__ == 'ReadClip'
