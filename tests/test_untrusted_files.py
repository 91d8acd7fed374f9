"""Files from anywhere: no code in them is run, none of them fills memory."""

import ast
import functools
import struct
import zlib
from pathlib import Path

import adaptive_networks as nets
import pytest
import torch

from mutualnet_mm import UsageError
from mutualnet_mm.apis import AdaptiveFile, AdaptiveModel
from mutualnet_mm.export import load_static
from mutualnet_mm.export.checkpoint_file import check_replaced
from mutualnet_mm.models.checkpoints import (
    check_checkpoint,
    check_resumed,
    load_backbone,
    load_trained,
    read_trained,
)
from mutualnet_mm.models.published_file import read_published
from mutualnet_mm.models.training_record import TrainingRecord
from mutualnet_mm.query_table import load_table
from mutualnet_mm.query_table.progress import Progress
from mutualnet_mm.tensor_files import load_checkpoint, load_tensors

ROOT = Path(__file__).parents[1]
NAMES = {
    *('load', 'loads', 'load_checkpoint', 'load_url', 'fromfile'),
    *('fromstring', 'eval', 'exec', 'InferenceSession', 'ZipFile', 'TarFile'),
    *('unpack_archive', 'extract', 'extractall', 'read_pickle', 'Unpickler'),
}
TENSORS = 'tensors and plain values, by weights_only, with checksums'
TEXT = 'JSON'
CONFIG = 'a config is code: give only those that you trust'
OWN = 'a file that the same call has just written'
NOTHING = 'runs nothing, unpacks nothing'
# Every place that reads what others may have written.
LOADERS = {
    'mutualnet_mm/analysis/true_boxes.py': {'json.loads': TEXT},
    'mutualnet_mm/apis/build_table.py': {'Config.fromstring': CONFIG},
    'mutualnet_mm/benchmarks/load.py': {
        'load_checkpoint': OWN,
        'Config.fromfile': OWN,
    },
    'mutualnet_mm/benchmarks/scale.py': {'torch.load': OWN},
    'mutualnet_mm/checked_json.py': {'json.loads': TEXT},
    'mutualnet_mm/config/coco_file.py': {'json.loads': TEXT},
    'mutualnet_mm/config/delta_file.py': {'Config.fromfile': OWN},
    'mutualnet_mm/config/load.py': {'Config.fromfile': CONFIG},
    'mutualnet_mm/config/source.py': {'Config.fromstring': CONFIG},
    'mutualnet_mm/config/stock.py': {'Config.fromfile': CONFIG},
    'mutualnet_mm/datasets/folders.py': {'json.loads': TEXT},
    'mutualnet_mm/datasets/single_digits.py': {'json.loads': TEXT},
    'mutualnet_mm/deploy/adaptive_file.py': {'AdaptiveFile.load': TENSORS},
    'mutualnet_mm/deploy/adaptive_model.py': {'AdaptiveFile.load': TENSORS},
    'mutualnet_mm/deploy/latency.py': {'AdaptiveFile.load': TENSORS},
    # The text in an adaptive file, where its network is built.
    'mutualnet_mm/deploy/stored_model.py': {'Config.fromstring': CONFIG},
    'mutualnet_mm/export/checkpoint_file.py': {
        'Config.fromfile': CONFIG,
        'Config.fromstring': CONFIG,
    },
    'mutualnet_mm/export/onnx_file.py': {'onnxruntime.InferenceSession': OWN},
    'mutualnet_mm/export/program_file.py': {'torch.export.load': OWN},
    'mutualnet_mm/models/checkpoints.py': {
        'load_checkpoint': TENSORS,
        # Of addresses: torch's default, weights_only since 2.6.
        'CheckpointLoader.load_checkpoint': 'stock',
    },
    'mutualnet_mm/models/published_file.py': {
        'torch.load': TENSORS,
        'zipfile.ZipFile': NOTHING,
    },
    'mutualnet_mm/models/trained_teacher.py': {'Config.fromfile': CONFIG},
    'mutualnet_mm/query_table/progress.py': {'json.loads': OWN},
    'mutualnet_mm/slimmable/known.py': {'json.loads': TEXT},
    'mutualnet_mm/survey/one_config.py': {'Config.fromfile': CONFIG},
    'mutualnet_mm/survey/records.py': {'json.loads': TEXT},
    'mutualnet_mm/survey/selection.py': {'Config.fromfile': CONFIG},
    'mutualnet_mm/tensor_files.py': {
        'torch.load': TENSORS,
        'ZipFile': NOTHING,
    },
    'mutualnet_mm/visualization/training_log.py': {'json.loads': TEXT},
    'tools/list_backbones.py': {'Config.fromfile': CONFIG},
    'tools/quickstart.py': {'Config.fromfile': CONFIG},
}


@functools.lru_cache(maxsize=None)
def readers(file):
    """Calls in a file that may read one; ``model.eval()`` is none."""
    return [*_readers(file)]


def _readers(file):
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last = name.split('.')[-1]
            if last in NAMES and not (last == 'eval' and '.' in name):
                yield name


def test_all_places_that_load_are_known():
    """A new one gets a row above, and a test below."""
    found = {}
    for folder in ('mutualnet_mm', 'tools'):
        for file in sorted((ROOT / folder).rglob('*.py')):
            names = set(readers(file))
            if names:
                found[file.relative_to(ROOT).as_posix()] = names
    expected = {file: set(calls) for file, calls in LOADERS.items()}
    assert found == expected


@pytest.mark.parametrize('folder', ['mutualnet_mm', 'tools', 'projects'])
def test_no_archive_is_unpacked_and_weights_alone_are_loaded(folder):
    never = {'unpack_archive', 'extract', 'extractall', 'read_pickle'}
    for file in sorted((ROOT / folder).rglob('*')):
        if file.suffix == '.sh':
            words = file.read_text().split()
            assert not {'tar', 'unzip', 'gunzip'}.intersection(words), file
        elif file.suffix == '.py':
            text = file.read_text(encoding='utf-8')
            assert 'weights_only=False' not in text, file
            assert 'import pickle' not in text or file.name in (
                'compat.py',  # its error
                'made_files.py',  # which writes
            ), file
            for name in readers(file):
                assert name.split('.')[-1] not in never, file


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, 'w')


def in_progress(name):
    def load(path):
        progress = Progress(path.parent, {})
        path.rename(progress.folder / name)
        _ = progress.statistics
        raise UsageError('counts as missing')

    return load


def answers(path):
    progress = Progress(path.parent, {})
    progress.add('1.0x-8', {'top1': 0.5})
    (path.parent / 'answers').mkdir()
    path.rename(path.parent / 'answers/1.0x-8.pth')
    if not progress.answers:
        raise UsageError('damaged: counts as missing')


def resumed(path):
    from mmengine.config import Config

    cfg = Config(dict(load_from=str(path), resume=True, work_dir='x'))
    check_resumed(cfg, torch.nn.Linear(1, 1))


def replaced(path):
    check_replaced(path)


def static(path):
    path.with_suffix('.py').write_text('model = dict(type="No")')
    load_static(path)


# All functions that take a file of weights.
READERS = dict(
    tensors=load_tensors,
    checkpoint=load_checkpoint,
    adaptive_file=AdaptiveFile.load,
    adaptive_model=AdaptiveModel.from_file,
    static=static,
    replaced=replaced,
    statistics=in_progress('statistics.pth'),
    answers=answers,
    trained=lambda path: read_trained(str(path)),
    tested=lambda path: check_checkpoint(str(path), torch.nn.Linear(1, 1)),
    resumed=resumed,
    loaded=lambda path: load_trained(torch.nn.Linear(1, 1), str(path)),
    pretrained=lambda path: load_backbone(torch.nn.Linear(1, 1), str(path)),
    record=lambda path: TrainingRecord(str(path)),
    published=lambda path: read_published(str(path)),
    table=load_table,
)


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'),
    reason='this torch reads MMEngine checkpoints by a full unpickling alone',
)
@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'old format'])
@pytest.mark.parametrize('reader', sorted(READERS))
def test_code_in_a_file_is_not_run(reader, zipped, tmp_path):
    trace, path = tmp_path / 'trace', tmp_path / 'weights.pth'
    content = dict(schema=1, meta={}, state_dict=Evil(trace), model={})
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Exception) as caught:
        READERS[reader](path)
    assert not trace.exists()
    if READERS[reader] not in (load_tensors, load_checkpoint):
        assert isinstance(caught.value, UsageError)
        assert '\n' not in str(caught.value)
    # It is the loader that keeps it from running.
    torch.load(next(tmp_path.rglob('*.pth')), weights_only=False)[
        'state_dict'
    ].close()
    assert trace.exists()


def png(path, width, height):
    """A file whose header says that it is large."""

    def chunk(kind, data):
        code = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + code

    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', header)
        + chunk(b'IDAT', zlib.compress(bytes(1000)))
        + chunk(b'IEND', b'')
    )


def peak_of(call):
    """Bytes by which a call raises the most that the process ever took."""
    resource = pytest.importorskip('resource')
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError) as caught:
        call()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert '\n' not in str(caught.value)
    return (after - before) * 1024, str(caught.value)


def test_an_image_of_100000_x_100000(tmp_path, request):
    """30 GB, if it were decoded."""
    net = AdaptiveModel(nets.adaptive_file('classifier', request))
    path = tmp_path / 'large.png'
    png(path, 100_000, 100_000)
    peak, message = peak_of(lambda: net(str(path)))
    assert peak < 2**28 and str(path) in message


def test_a_table_of_a_billion_entries(tmp_path):
    path = tmp_path / 'table.json'
    with path.open('wb') as file:
        file.write(b'{"schema": 1, "entries": [')
        file.truncate(300 * 10**9)  # a hole: it takes no space
    peak, message = peak_of(lambda: load_table(path))
    assert peak < 2**26 and str(path) in message and 'bytes' in message


def test_weights_of_a_million_million_values(tmp_path):
    path = tmp_path / 'adaptive.pth'
    torch.save(dict(schema=1, weights=torch.ones(1).expand(10**12)), path)
    peak, message = peak_of(lambda: AdaptiveModel.from_file(path))
    assert peak < 2**26 and str(path) in message
