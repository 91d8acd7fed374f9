"""docs/deploy.md, every line of it, in the order of the page."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from pages import read_blocks, run_page
from torch_versions import needs_export

from mutualnet_mm.apis import build_model
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
ROOT = Path(__file__).parents[1]
PAGE = 'docs/deploy.md'
CONFIG = 'configs/classification/mutual-resnet14_1xb64_cluttered-digits.py'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with the quick start's results, but for the training."""
    root = tmp_path_factory.mktemp('page')
    (root / 'configs').symlink_to(ROOT / 'configs')
    digits = make_cluttered_digits(root / 'data/cluttered_digits', 200, 100)
    shutil.copy(next(Path(digits).glob('val/3/*')), root / 'digit.png')
    model = build_model(Config.fromfile(ROOT / CONFIG))
    (root / 'work_dirs/quickstart_cls').mkdir(parents=True)
    weights = dict(state_dict=model.state_dict())
    torch.save(weights, root / 'work_dirs/quickstart_cls/epoch_10.pth')
    return root


@needs_export
@pytest.mark.slow
def test_every_line_runs(place, monkeypatch):
    assert len(read_blocks(PAGE)) > 5
    assert not any(block.needs for block in read_blocks(PAGE))
    monkeypatch.chdir(place)
    # A clone has the folder that is named so once it is installed.
    run_page(PAGE, lambda code: code.replace('mutualnet_mm::', 'configs/'))
