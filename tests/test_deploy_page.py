"""docs/deploy.md, every line of it, in the order of the page."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from programs import run_program

from mutualnet_mm.apis import build_model
from mutualnet_mm.datasets.cluttered_digits import make_cluttered_digits

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')
ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs/deploy.md').read_text()
CONFIG = 'configs/classification/mutual-resnet14_1xb64_cluttered-digits.py'
BLOCKS = re.findall(r'^```(\w+)\n(.*?)^```', PAGE, re.S | re.M)


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with the quick start's results, but for the training."""
    root = tmp_path_factory.mktemp('page')
    for name in ('tools', 'configs'):
        (root / name).symlink_to(ROOT / name)
    digits = make_cluttered_digits(root / 'data/cluttered_digits', 200, 100)
    shutil.copy(next(Path(digits).glob('val/3/*')), root / 'digit.png')
    model = build_model(Config.fromfile(ROOT / CONFIG))
    (root / 'work_dirs/quickstart_cls').mkdir(parents=True)
    weights = dict(state_dict=model.state_dict())
    torch.save(weights, root / 'work_dirs/quickstart_cls/epoch_10.pth')
    return root


@pytest.mark.slow
def test_every_line_runs(place, monkeypatch):
    assert len(BLOCKS) > 5
    monkeypatch.chdir(place)
    names: dict = {}
    for language, block in BLOCKS:
        if language == 'python':
            exec(compile(block, 'docs/deploy.md', 'exec'), names)
            continue
        assert language == 'bash'
        for line in block.replace('\\\n', ' ').splitlines():
            program, *command = shlex.split(line)
            assert program == 'python'
            done = run_program(*command)
            assert done.returncode == 0, f'{line}\n{done.stderr}'
