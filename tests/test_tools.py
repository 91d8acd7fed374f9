import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = str(ROOT / 'configs/mutual_mask_rcnn_vgg16.py')


@pytest.mark.parametrize(
    'command, message',
    [
        (['train.py', 'no.py'], "config 'no.py' does not exist"),
        (['test.py', 'no.py', 'no.pth'], "config 'no.py' does not exist"),
        (
            ['train.py', CONFIG],
            "annotation file 'data/coco/annotations/instances_train2017.json' "
            'does not exist: set train_dataloader.dataset.data_root or '
            'train_dataloader.dataset.ann_file',
        ),
    ],
    ids=['train', 'test', 'annotations'],
)
def test_one_line_errors(command, message, tmp_path):
    if CONFIG in command:
        pytest.importorskip('mmdet')
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / command[0]), *command[1:]],
        cwd=tmp_path,
        env=dict(os.environ, PYTHONPATH=str(ROOT), PYTHONWARNINGS='ignore'),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f'error: {message}'
    assert 'Traceback' not in done.stderr
