"""Blocks of docs/: adaptive_config, faq, install, method, methods/, ranges,
usage, video_data.
"""

import re
from unittest.mock import create_autospec

import pytest
import torch
from mmengine.config import Config
from pages import ROOT, read_blocks, run_page

from mutualnet_mm.config.stock import find_config
from mutualnet_mm.engine import BNCalibrationHook
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


def models_of(code):
    """What the statements of a block assign to ``model``, in turn."""

    class Names(dict):
        def __setitem__(self, name, value):
            found.append((name, value))

    found = []
    exec(compile(code, 'a card', 'exec'), Names())
    return [value for name, value in found if name == 'model']


@pytest.mark.parametrize('card', CARDS, ids=lambda card: card.stem)
def test_settings_of_cards(card):
    from mutualnet_mm.apis import AdaptiveModel

    for language, code, needs in read_blocks(f'docs/methods/{card.name}'):
        if language != 'python' or needs:
            continue
        if card.stem == 'cascade':
            exec(code, dict(net=create_autospec(AdaptiveModel)))
            continue
        found = models_of(code)
        assert found
        for model in found:
            settings = dict(model['mutual'], resolution=(64, 48))
            MutualSettings.read(settings)


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


def test_hooks_that_a_config_inherits(tmp_path):
    """They stay, beside the calibration; and so do imports."""
    pytest.importorskip('mmdet')
    (block,) = [b for b in read_blocks('docs/usage.md') if '_base_' in b.code]
    base = tmp_path / 'base.py'
    base.write_text("custom_imports = dict(imports=['mmdet.utils'])\n")
    imports = "imports=['mutualnet_mm', *_base_.custom_imports.imports]"
    assert imports in ' '.join(
        (ROOT / 'docs/adaptive_config.md').read_text().split()
    )
    name = re.search(r"'(mmdet::.*)'", block.code)[1]
    file = tmp_path / 'config.py'
    file.write_text(
        f'custom_imports = dict({imports})\n'
        + block.code.replace(f"'{name}'", f"'{name}', 'base.py'")
    )
    cfg = Config.fromfile(file)
    stock = Config.fromfile(find_config(name)[0])
    assert cfg.custom_imports.imports == ['mutualnet_mm', 'mmdet.utils']
    *others, own = cfg.custom_hooks
    kinds = [hook['type'] for hook in others]
    assert kinds == [hook['type'] for hook in stock.custom_hooks]
    assert kinds == ['EMAHook', 'PipelineSwitchHook']
    BNCalibrationHook(**{k: v for k, v in own.items() if k != 'type'})
