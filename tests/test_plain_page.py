"""Every block of docs/plain_pytorch.md runs, one after the other."""

import re
from pathlib import Path

import torch

PAGE = Path(__file__).parents[1] / 'docs/plain_pytorch.md'


def test_page(capsys):
    blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
    names = {}
    for block in blocks:
        exec(compile(block, PAGE.name, 'exec'), names)
    assert len(blocks) == 4
    assert type(names['narrow'].conv1) is torch.nn.Conv2d
    assert names['narrow'].conv1.out_channels == 32
    assert names['difference'] < 1e-4
    assert 'MMACs, Conv2d' in capsys.readouterr().out
