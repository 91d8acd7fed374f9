"""Damaged files give one line, or what they gave before.

``pytest tests/test_damaged_files.py -m nightly`` tries more than 20,000 cases.
"""

import json
import random
from types import SimpleNamespace

import pytest
import torch
from damage import KINDS, damage, damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mutualnet_mm import Subnet, UsageError
from mutualnet_mm.apis import AdaptiveFile
from mutualnet_mm.models.checkpoints import load_trained
from mutualnet_mm.models.published_file import read_published
from mutualnet_mm.query_table import (
    Cascade,
    Latency,
    QueryTable,
    TableEntry,
    load_table,
    save_table,
    table_to_dict,
)
from mutualnet_mm.query_table.answers import Answers
from mutualnet_mm.query_table.progress import Progress
from mutualnet_mm.tensor_files import load_tensors, save_tensors

SETTINGS = {'config': 'c0ffee', 'checkpoint': 'ab', 'number of images': 8}
SUBNETS = ('1.0x-64', '0.5x-48')


def table(seed):
    """Of round and of long numbers."""
    entries = [
        TableEntry(
            Subnet.parse(subnet),
            400 - 300 * i + seed,
            40 - i,
            {'accuracy/top1': 100 / (3 + i + seed), 'other': None},
            {'cpu': Latency(1.5 + i, 2.0 + i)},
        )
        for i, subnet in enumerate(SUBNETS)
    ]
    full = Subnet.parse(SUBNETS[0])
    second, first = (entry.subnet for entry in entries)
    macs = sum(entry.macs for entry in entries)
    cascade = Cascade(
        (first, second), 0.6, macs - 100.0, macs, 'accuracy/top1', 33.3
    )
    return QueryTable(
        entries, 'accuracy/top1', 'classification', full, 50, None, [cascade]
    )


def bank(seed):
    torch.manual_seed(seed)
    return {SUBNETS[1]: {'bn': (torch.randn(4), torch.rand(4))}}


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def weights(seed):
    torch.manual_seed(seed)
    return {
        key: torch.rand(v.shape) if v.dim() else v
        for key, v in net().state_dict().items()
    }


class TableJson:
    name = 'table.json'

    def write(self, path, folder, seed):
        save_table(table(seed), path)

    def read(self, path):
        return table_to_dict(load_table(path))


class AdaptivePth:
    name = 'adaptive.pth'

    def write(self, path, folder, seed):
        AdaptiveFile(
            config='model = dict()',
            weights=weights(seed),
            statistics=bank(seed),
            table=table(seed),
            width=(0.5, 1.0),
            rounding='paper',
            calibration=dict(num_batches=2, dataloader=None),
        ).save(path)

    def read(self, path):
        found = dict(vars(AdaptiveFile.load(path)))
        return dict(found, table=table_to_dict(found['table']))


class InFolder:
    """A part of what an unfinished table has left."""

    def write(self, path, folder, seed):
        progress = Progress(folder, SETTINGS)
        progress.keep_statistics(bank(seed))
        for i, subnet in enumerate(SUBNETS):
            torch.manual_seed(seed + i)
            truth = torch.arange(8, dtype=torch.int32)
            answers = Answers(truth, truth % 3 == i, torch.rand(8))
            progress.keep_answers(subnet, answers)
            progress.add(subnet, {'top1': 1 / (3 + i + seed), 'ap': None})
        progress.finish()


class ResultsJson(InFolder):
    name = 'results.json'

    def read(self, path):
        # Another checkpoint's results would be replaced.
        return Progress(path.parent, SETTINGS).results


class StatisticsPth(InFolder):
    name = 'statistics.pth'

    def read(self, path):
        return Progress(path.parent, SETTINGS).statistics


class AnswersPth(InFolder):
    name = f'answers/{SUBNETS[0]}.pth'

    def read(self, path):
        folder = path.parents[1]
        found = Progress(folder, SETTINGS).answers
        if SUBNETS[0] not in found:
            raise UsageError(f'{path} counts as missing')
        return {name: vars(answers) for name, answers in found.items()}


class StaticPth:
    """As :func:`load_static` reads it; the network takes its time."""

    name = 'static.pth'

    def write(self, path, folder, seed):
        meta = dict(cfg='model = dict()', subnet='0.5x-48')
        with path.open('wb') as file:
            save_tensors(dict(meta=meta, state_dict=weights(seed)), file)

    def read(self, path):
        try:
            return load_tensors(path)
        except Exception as error:  # which load_static makes one line of
            raise UsageError(f'{path}: {type(error).__name__}') from error


class StockPth:
    name = 'epoch_12.pth'

    def write(self, path, folder, seed):
        torch.save(dict(meta=dict(epoch=12), state_dict=weights(seed)), path)

    def read(self, path):
        model = net()
        load_trained(model, str(path))
        return dict(model.state_dict())


class PublishedPth:
    name = 'published.pt'

    def write(self, path, folder, seed):
        named = {f'features.0.{k}': v for k, v in weights(seed).items()}
        named['features.1.body.0.weight'] = torch.rand(2)
        torch.save(dict(model=named), path)

    def read(self, path):
        return read_published(str(path))


FILES = {
    kind.name: kind()
    for kind in (
        *(TableJson, AdaptivePth, ResultsJson, StatisticsPth, AnswersPth),
        *(StaticPth, StockPth, PublishedPth),
    )
}


@pytest.fixture(params=sorted(FILES))
def file(request, tmp_path):
    """A file, its bytes, those of another network's, and what it says."""
    kind = FILES[request.param]
    found = []
    for seed in (1, 0):
        folder = tmp_path / str(seed)
        folder.mkdir()
        path = folder / kind.name
        kind.write(path, folder, seed)
        found.append(path.read_bytes())
    other, whole = found
    said = kind.read(path)
    assert not equal(said, kind.read(tmp_path / '1' / kind.name))
    return SimpleNamespace(
        kind=kind, path=path, whole=whole, other=other, said=said
    )


def equal(a, b):
    """Whether two values are the same, bit by bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def outcome(file, content):
    """``'same'`` or ``'refused'``, or an error of the test."""
    file.path.write_bytes(content)
    try:
        found = file.kind.read(file.path)
    except UsageError as error:
        text = str(error)
        assert str(file.path) in text and '\n' not in text, text
        assert len(text) < 1000
        return 'refused'
    assert equal(found, file.said), 'another result, and no error'
    return 'same'


def try_all(file, number, seed=0):
    counts = dict(same=0, refused=0)
    for name, content in damaged(file.whole, file.other, number, seed):
        try:
            counts[outcome(file, content)] += 1
        except BaseException as error:
            raise AssertionError(f'{file.path.name}, case {name}') from error
    file.path.write_bytes(file.whole)
    assert equal(file.kind.read(file.path), file.said)
    return counts


@pytest.mark.filterwarnings('ignore')
def test_some_damage(file):
    counts = try_all(file, 200)
    assert counts['refused'] > 100, counts


@pytest.mark.nightly
@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('seed', [0, 1])
def test_all_damage(file, seed, capsys):
    counts = try_all(file, 3000, seed)
    with capsys.disabled():
        print(f'\n{file.path.name}: {json.dumps(counts)}')
    assert sum(counts.values()) > 2600 and counts['refused'] > 1000


edits = st.lists(
    st.tuples(
        st.sampled_from(KINDS[:-1]),
        st.integers(0, 9999).map(lambda part: part / 10_000),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=4,
)


def try_edits(file, examples):
    """By hypothesis, which finds the least damage that matters."""

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
    )
    @given(edits)
    def run(chosen):
        content = file.whole
        for kind, part, seed in chosen:
            if content:
                draw = random.Random(seed)
                content = damage(content, kind, part, draw, file.other)
        if content != file.other:
            outcome(file, content)

    run()


@pytest.mark.filterwarnings('ignore')
def test_some_edits(file):
    try_edits(file, 40)


@pytest.mark.nightly
@pytest.mark.filterwarnings('ignore')
def test_many_edits(file):
    try_edits(file, 400)
