"""A user's first project, in the current folder, with an installed package.

``python throw_away_project.py`` of any environment that has mutualnet_mm,
mmpretrain and scikit-learn: no clone is needed. Takes a minute.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

CONFIG = """
_base_ = 'mutualnet_mm::classification/mutual-resnet14_1xb64_digits.py'
model = dict(mutual=dict(num_random=1))
train_cfg = dict(max_epochs=2, val_interval=2)
param_scheduler = dict(T_max=2, end=2)
custom_hooks = [dict(type='mutualnet_mm.BNCalibrationHook', num_batches=2)]
"""
PREDICT = """
from pathlib import Path
from mutualnet_mm.apis import AdaptiveModel

net = AdaptiveModel.from_file('table/adaptive.pth')
images = sorted(map(str, Path('data/digits/val').rglob('*.png')))[:4]
for macs in (10e6, 0.3e6):
    subnet = net.set_budget(macs=macs)
    found = net(images)
    print(subnet, [len(sample.pred_score) for sample in found])
"""
SUBNETS = ['1.0x-16', '0.25x-8']


def call(*command, fails=False):
    """Run a command, show what it prints, and return that."""
    print('$', *command, flush=True)
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )
    print(done.stdout, flush=True)
    if bool(done.returncode) != fails:
        sys.exit(f'{command[0]} ended with {done.returncode}')
    return done.stdout


def expect(text, shown):
    """Fail unless a text is among what was shown."""
    if text not in shown:
        sys.exit(f'expected {text!r}')


def main():
    python = sys.executable
    suffix = '.exe' if sys.platform == 'win32' else ''
    mutualnet = Path(sysconfig.get_path('scripts')) / f'mutualnet{suffix}'
    expect('Evaluate a grid of subnets', call(mutualnet, '--help'))
    expect('mutualnet_mm ', call(mutualnet, '--version'))
    expect('did you mean table?', call(mutualnet, 'tabel', fails=True))
    expect('PyTorch: ', call(mutualnet, 'env'))
    make = 'from mutualnet_mm.datasets.digits import make_digits as make; '
    call(python, '-c', f'{make}make("data/digits")')
    Path('own.py').write_text(CONFIG)
    shown = call(mutualnet, 'flops', 'own.py', '--subnet', *SUBNETS, '--json')
    macs = [
        row['macs']
        for row in json.loads(shown[shown.index('{\n') :])['subnets']
    ]
    if not 20 * macs[1] < macs[0]:
        sys.exit(f'unlikely costs: {macs}')
    call(mutualnet, 'train', 'own.py', '--work-dir', 'work')
    call(
        *(mutualnet, 'test', 'own.py', 'work/epoch_2.pth'),
        *('--subnet', *SUBNETS, '--work-dir', 'test'),
    )
    shown = call(
        *(mutualnet, 'table', 'own.py', 'work/epoch_2.pth', '--out', 'table'),
        *('--subnet', *SUBNETS),
    )
    expect('2 subnets', shown)
    shown = call(
        *(mutualnet, 'export', 'table/adaptive.pth', '--subnet', SUBNETS[1]),
        *('--format', 'static', '--out', 'small.pth'),
    )
    expect('largest difference', shown)
    shown = call(python, '-c', PREDICT)
    for subnet in SUBNETS:
        expect(f'{subnet} [10, 10, 10, 10]', shown)
    shown = call(mutualnet, 'curves', 'table/table.json', '--out', 'curve.png')
    for name in ('small.pth', 'small.py', 'curve.png', 'table/curve.png'):
        if not Path(name).is_file():
            sys.exit(f'{name} is missing')
    print('the throw-away project works')


if __name__ == '__main__':
    main()
