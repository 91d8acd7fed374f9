"""Whole stock configs in processes, and processes that fail."""

import json
from pathlib import Path

import pytest
from programs import run_program

from mutualnet_mm.config.stock import config_folder
from mutualnet_mm.survey import processes, survey
from mutualnet_mm.survey.processes import run_process

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/survey_configs.py'

GOOD = """
default_scope = 'mmpretrain'
model = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    data_preprocessor=dict(mean=[127.0] * 3, std=[60.0] * 3))
loader = dict(
    batch_size=64, num_workers=4, persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='ImageNet', data_root='nowhere', pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64)),
        dict(type='PackInputs')]))
train_dataloader = test_dataloader = loader
"""
CONFIGS = {
    'good.py': GOOD,
    # Stock normalisation makes three channels of one, without a word.
    'refused.py': GOOD.replace(
        "'LoadImageFromFile'", "'LoadImageFromFile', color_type='grayscale'"
    ),
    'broken.py': GOOD + "model['backbone']['depth'] = 7\n",
    'no_data.py': GOOD + "loader['dataset']['type'] = 'COCOCaption'\n",
    'crash.py': GOOD + '__import__("os")._exit(3)\n',
    'slow.py': GOOD + 'import time\ntime.sleep(60)\n',
}

# Stock configs that are unlike in what was hard about them.
SPREAD = dict(
    mmpretrain=[
        'convnext/convnext-tiny_32xb128_in1k.py',
        'densenet/densenet121_4xb256_in1k.py',
        'efficientnet/efficientnet-b0_8xb32_in1k.py',
        'inception_v3/inception-v3_8xb32_in1k.py',
        'mobilenet_v3/mobilenet-v3-small-050_8xb128_in1k.py',
        'resnest/resnest50_32xb64_in1k.py',
        'swin_transformer/swin-tiny_16xb64_in1k.py',
    ],
    mmdet=[
        'atss/atss_r50_fpn_1x_coco.py',
        'detr/detr_r50_8xb2-150e_coco.py',
        'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
        'gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py',
        'hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py',
        'retinanet/retinanet_r50_fpn_8xb8-amp-lsj-200e_coco.py',
        'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
        'yolox/yolox_tiny_8xb8-300e_coco.py',
    ],
    mmaction=[
        'recognition/csn/ircsn_ig65m-pretrained-r50-bnfrozen_8xb12-32x2x1-58e_'
        'kinetics400-rgb.py',
        'recognition/r2plus1d/r2plus1d_r34_8xb8-8x8x1-180e_kinetics400-rgb.py',
        'recognition/slowfast/'
        'slowfast_r50_8xb8-4x16x1-256e_kinetics400-rgb.py',
        'recognition/tsn/'
        'tsn_imagenet-pretrained-r50_8xb32-1x1x3-100e_kinetics400-rgb.py',
        'skeleton/posec3d/slowonly_r50_8xb16-u48-240e_ntu60-xsub-keypoint.py',
    ],
)


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip('mmpretrain')
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    (tmp_path / 'logs').mkdir()
    return tmp_path


def outcomes(folder, names, timeout=100):
    found = survey(
        *('mmpretrain', folder, names, folder / 'data', folder / 'logs'),
        timeout,
    )
    return {o.config: (o.result, o.stage, o.reason) for o in found}


@pytest.mark.slow
@pytest.mark.subprocess
def test_what_becomes_of_configs(folder):
    names = [name for name in CONFIGS if name != 'slow.py']
    found = outcomes(folder, names)
    assert found['good.py'] == ('works', '', '')
    assert found['refused.py'][:2] == ('refused', 'build')
    assert 'grayscale' in found['refused.py'][2]
    assert found['broken.py'][:2] == ('stock fails', 'build')
    assert found['broken.py'][2].startswith('the stock model cannot be buil')
    assert found['no_data.py'] == (
        *('not tried', 'data'),
        'the survey makes no data for a COCOCaption',
    )
    assert found['crash.py'] == (
        *('stock fails', 'build'),
        'the process ended with code 3',
    )
    logs = {path.name for path in (folder / 'logs').iterdir()}
    assert {'good-stock.txt', 'good-adaptive.txt', 'broken-stock.txt'} <= logs
    assert 'broken-adaptive.txt' not in logs
    log = (folder / 'logs/broken-stock.txt').read_text()
    assert 'Traceback' in log and 'KeyError' in log


SLOW = ('loss', 'takes more than 9 s')
FAILS = ('loss', 'too few pixels')
RUNS = ('', '')
REFUSED = ('build', 'A cannot be slimmed')


@pytest.mark.parametrize(
    'attempts, expected',
    [
        # Divisors of mmdet are 4 and 1; of adaptive ones also 2.
        (
            {(False, 4): RUNS, (True, 4): RUNS},
            ('works', '', '', True, 4),
        ),
        (
            {(False, 4): RUNS, (True, 4): SLOW},
            ('too slow', *SLOW, True, 4),
        ),
        ({(False, 4): SLOW}, ('too slow', *SLOW, False, 4)),
        (
            {(False, 4): FAILS, (False, 1): FAILS},
            ('stock fails', *FAILS, False, 1),
        ),
        (
            {(False, 4): RUNS, (True, 4): FAILS, (True, 2): RUNS},
            ('works', '', '', True, 2),
        ),
        (
            {(False, 4): FAILS, (False, 1): RUNS, (True, 1): FAILS},
            ('refused', *FAILS, True, 1),
        ),
        (
            {(False, 4): RUNS, **{(True, d): FAILS for d in (4, 2, 1)}},
            ('refused', *FAILS, True, 1),
        ),
        # Of larger images a layer is of the same kind.
        (
            {(False, 4): RUNS, (True, 4): REFUSED},
            ('refused', *REFUSED, True, 4),
        ),
    ],
)
def test_attempts(attempts, expected, tmp_path, monkeypatch):
    """Which sizes are tried, and what is said of the stock model."""
    made = []

    def run(arguments, log, timeout):
        made.append((arguments['adaptive'], arguments['divisor']))
        return attempts[made[-1]]

    monkeypatch.setattr(processes, 'run_process', run)
    (found,) = survey('mmdet', *[tmp_path, ['a.py'], tmp_path, tmp_path], 9)
    assert made == [*attempts]
    assert (
        *(found.result, found.stage, found.reason),
        *(found.stock_ran, found.divisor),
    ) == expected


@pytest.mark.subprocess
def test_a_time_limit(folder):
    arguments = dict(
        path=folder / 'slow.py', adaptive=False, divisor=1, data=folder
    )
    found = run_process(arguments, folder / 'logs/slow.txt', 3)
    assert found == ('build', 'takes more than 3 s')


@pytest.mark.slow
@pytest.mark.subprocess
@pytest.mark.parametrize(
    'project, config',
    [
        ('mmpretrain', 'resnet/resnet18_8xb16_cifar10.py'),
        ('mmdet', 'retinanet/retinanet_r18_fpn_1x_coco.py'),
        (
            'mmaction',
            'recognition/tsm/tsm_imagenet-pretrained-mobilenetv2_'
            '8xb16-1x1x8-100e_kinetics400-rgb.py',
        ),
    ],
)
def test_whole_configs(project, config, tmp_path, monkeypatch):
    """The tool, and that it goes on from what there is."""
    pytest.importorskip(project)
    monkeypatch.chdir(tmp_path)
    command = (TOOL, '--project', project, '--filter', config, '--out', 'out')
    done = run_program(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('1 of 1 configs work: ')
    line = (tmp_path / f'out/{project}.jsonl').read_text()
    assert json.loads(line)['outcome']['result'] == 'works'
    page = (tmp_path / f'out/{project}.md').read_text()
    assert '1 (100 %) run adaptive' in page
    monkeypatch.setattr(
        'mutualnet_mm.survey.processes.run_process', None
    )  # nothing is tried again
    assert run_program(*command).returncode == 0
    assert (tmp_path / f'out/{project}.jsonl').read_text() == line


@pytest.mark.nightly
@pytest.mark.subprocess
@pytest.mark.parametrize('project', SPREAD)
def test_a_spread_of_configs(project, tmp_path):
    pytest.importorskip(project)
    folder = config_folder(project)
    found = survey(
        *(project, folder, SPREAD[project], tmp_path / 'data', tmp_path),
        600,
    )
    assert {o.config: (o.result, o.stage, o.reason) for o in found} == (
        dict.fromkeys(SPREAD[project], ('works', '', ''))
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--project', 'mmseg'], "invalid choice: 'mmseg'"),
        (['--project', 'mmdet', '--filter', 'no/such'], 'no config in'),
        (['--project', 'mmdet', '--jobs', '0'], '--jobs=0: use a whole'),
        (['--project', 'mmdet', '--timeout', '-1'], '--timeout -1.0: use a'),
        (['--project', 'mmdet', '--timeout', 'nan'], '--timeout nan: use a'),
    ],
)
def test_refusals(arguments, message, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    done = run_program(TOOL, *arguments)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
