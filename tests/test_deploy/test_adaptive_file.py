import math
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveFile
from mutualnet_mm.query_table import QueryTable, TableEntry, table_to_dict

CONFIG = dict(
    model=dict(
        type='mmpretrain.ImageClassifier',
        _scope_='mmpretrain',
        width=(0.25, 1.0),
        stages=[(0, 1), [2, (3,)]],
        pool=None,
        name='it\'s "quoted"',
    ),
    rate=1e-7,
    keys={1: 'one'},
)


@pytest.fixture
def content():
    entry = TableEntry(Subnet(0.5, 48), 100, 10, {'accuracy/top1': 50.0})
    return AdaptiveFile(
        config=Config(CONFIG).pretty_text,
        weights={'fc.weight': torch.rand(4, 8), 'bn.steps': torch.tensor(3)},
        statistics={'0.5x-48': {'bn': (torch.rand(4), torch.rand(4))}},
        table=QueryTable(
            [entry], 'accuracy/top1', 'classification', Subnet(1.0, 64), 12
        ),
        width=(0.25, 1.0),
        rounding='paper',
        calibration=dict(num_batches=32, dataloader=None),
    )


def test_round_trip(content, tmp_path):
    path = tmp_path / 'adaptive.pth'
    content.save(path)
    again = AdaptiveFile.load(path)
    assert torch.equal(
        again.weights['fc.weight'], content.weights['fc.weight']
    )
    pair = again.statistics['0.5x-48']['bn']
    assert torch.equal(pair[1], content.statistics['0.5x-48']['bn'][1])
    assert table_to_dict(again.table) == table_to_dict(content.table)
    for name in ('config', 'width', 'rounding', 'calibration', 'versions'):
        assert getattr(again, name) == getattr(content, name)
    assert {'mutualnet_mm', 'torch', 'mmengine', 'mmcv'} <= set(again.versions)
    assert again.versions['torch'] == torch.__version__
    assert list(tmp_path.iterdir()) == [path]


def test_the_text_is_the_config(content, tmp_path):
    content.save(tmp_path / 'adaptive.pth')
    text = AdaptiveFile.load(tmp_path / 'adaptive.pth').config
    config = Config.fromstring(text, '.py').to_dict()
    assert config == CONFIG  # a tuple is no list
    assert type(config['model']['stages'][0]) is tuple


def test_what_is_known_of_the_data_set(content, tmp_path):
    path = tmp_path / 'adaptive.pth'
    assert content.dataset_meta == {}
    content.dataset_meta = dict(classes=['a', 'b'], palette=[(0, 1, 2)])
    content.save(path)
    assert AdaptiveFile.load(path).dataset_meta == content.dataset_meta
    saved = torch.load(path)
    del saved['dataset_meta']  # as files were before it was kept
    torch.save(saved, path)
    assert AdaptiveFile.load(path).dataset_meta == {}


@pytest.mark.subprocess
def test_plain_torch_reads_it(content, tmp_path):
    content.save(tmp_path / 'adaptive.pth')
    code = (
        'import sys, torch; '
        "x = torch.load('adaptive.pth', weights_only=True); "
        "assert 'mmengine' not in sys.modules; "
        "print(x['schema'], x['weights']['fc.weight'].shape, "
        "x['table']['entries'][0]['subnet'])"
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == '1 torch.Size([4, 8]) 0.5x-48\n', done.stderr


def test_a_file_that_cannot_be_written(content, tmp_path, full_disk):
    content.weights['fc.weight'] = torch.rand(100_000)
    path = tmp_path / 'adaptive.pth'
    for size in (0, 40_000):
        with full_disk(size), pytest.raises(UsageError) as caught:
            content.save(path)
        assert str(caught.value).endswith('cannot be written: File too large')
    for place in (tmp_path, tmp_path / 'gone' / 'adaptive.pth'):
        with pytest.raises(UsageError, match='cannot be written: '):
            content.save(place)
    assert list(tmp_path.iterdir()) == []


def damage(path, kind):
    content = path.read_bytes()
    if kind == 'truncated':
        content = content[: len(content) // 2]
    elif kind == 'empty':
        content = b''
    elif kind == 'no file of torch':
        content = b'weights' * 100
    elif kind == 'a bit flipped':  # in the middle of a tensor
        at = content.index(torch.load(path)['weights']['fc.weight'].numpy())
        content = b''.join(
            [content[:at], bytes([content[at] ^ 1]), content[at + 1 :]]
        )
    path.write_bytes(content)


@pytest.mark.parametrize(
    'kind', ['truncated', 'empty', 'no file of torch', 'a bit flipped']
)
def test_damaged_files(content, tmp_path, kind):
    path = tmp_path / 'adaptive.pth'
    content.save(path)
    damage(path, kind)
    with pytest.raises(UsageError, match='damaged, or not an') as error:
        AdaptiveFile.load(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c.pop('schema'), 'is not an adaptive.pth'),
        (lambda c: c.update(schema=2), 'has schema 2.*update mutualnet_mm'),
        (lambda c: c.pop('weights'), 'is damaged: it has no weights'),
        (lambda c: c.update(schema=0), 'is not an adaptive.pth'),
        (lambda c: c.update(schema=True), 'is not an adaptive.pth'),
        (lambda c: c.update(config=[]), 'its config is of type list$'),
        (lambda c: c.update(rounding=8), 'its rounding is of type int$'),
        (lambda c: c['weights'].update(a='b'), "its weight 'a' is a str$"),
        (lambda c: c.update(statistics={'0.5x-48': 3}), 'are no layers$'),
        (
            lambda c: c.update(statistics={'0.5x-48': {'bn': [1.0, 2.0]}}),
            "its statistics of 0.5x-48 do not fit layer 'bn'$",
        ),
        (
            lambda c: c['statistics']['0.5x-48'].update(
                bn=(torch.ones(4), torch.ones(3))
            ),
            "its statistics of 0.5x-48 do not fit layer 'bn'$",
        ),
        (lambda c: c.update(width=(0.25,)), r'its width is \(0.25,\)$'),
        (lambda c: c.update(width=('a', 1)), r"its width is \('a', 1\)$"),
        (
            lambda c: c.update(dataset_meta=dict(classes=3)),
            'its classes are int$',
        ),
        (
            lambda c: c['table']['entries'][0].update(macs=0),
            'the table of .* is damaged: 0.5x-48: macs=0$',
        ),
        (
            lambda c: c['table']['entries'][0].update(macs=2**63),
            'is damaged: 0.5x-48: macs=9223372036854775808$',
        ),
        (
            lambda c: c['table']['entries'][0]['metrics'].update(a=math.nan),
            'is damaged: 0.5x-48: metrics=',
        ),
        (
            lambda c: c['table']['entries'][0]['metrics'].update(a=10**400),
            'is damaged: 0.5x-48: metrics=',
        ),
        (
            lambda c: c['table'].pop('entries'),
            'the table of .* is not a query',
        ),
    ],
)
def test_other_files(content, tmp_path, change, message):
    path = tmp_path / 'adaptive.pth'
    content.save(path)
    saved = torch.load(path)
    change(saved)
    torch.save(saved, path)
    with pytest.raises(UsageError, match=message):
        AdaptiveFile.load(path)


def change_value(tensor):
    tensor.view(-1)[0] += 1


@pytest.mark.parametrize(
    'mix',
    [
        lambda c: change_value(c['weights']['fc.weight']),
        lambda c: change_value(c['statistics']['0.5x-48']['bn'][0]),
        lambda c: c['statistics'].update(
            {'0.3x-48': c['statistics'].pop('0.5x-48')}
        ),
        lambda c: c['weights'].pop('bn.steps'),
        lambda c: c['table']['entries'][0].update(macs=101),
        lambda c: c['table'].update(extra={(1, 2): 3}),
        lambda c: c.update(sha256='0' * 64),
        lambda c: c.update(sha256=None),
    ],
)
def test_parts_of_several_networks(content, tmp_path, mix):
    """Each of them a good one, and all checksums of the archive right."""
    path = tmp_path / 'adaptive.pth'
    content.save(path)
    saved = torch.load(path)
    mix(saved)
    torch.save(saved, path)
    with pytest.raises(UsageError, match='not those that were .* together'):
        AdaptiveFile.load(path)
    del saved['sha256']  # as files were before they had one
    torch.save(saved, path)
    AdaptiveFile.load(path)


def test_text_may_be_edited(content, tmp_path):
    path = tmp_path / 'adaptive.pth'
    content.save(path)
    saved = torch.load(path)
    saved['config'] += 'work_dir = None'
    torch.save(saved, path)
    assert AdaptiveFile.load(path).config.endswith('work_dir = None')


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match='does not exist'):
        AdaptiveFile.load(tmp_path / 'adaptive.pth')


class Evil:
    def __reduce__(self):
        return print, ('executed',)


def test_code_is_not_run(tmp_path, capsys):
    torch.save(dict(schema=1, weights=Evil()), tmp_path / 'adaptive.pth')
    with pytest.raises(UsageError, match='UnpicklingError'):
        AdaptiveFile.load(tmp_path / 'adaptive.pth')
    assert 'executed' not in capsys.readouterr().out
