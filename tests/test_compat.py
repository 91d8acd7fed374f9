"""Each remedy is tried in a fresh interpreter, as a user meets it."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mutualnet_mm import compat

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.subprocess
PROJECTS = ('mmaction', 'mmdet', 'mmpretrain')


def run(code, *paths):
    """Run code in a fresh interpreter that sees ``paths`` first."""
    paths = [*map(str, paths), str(ROOT)]
    return subprocess.run(
        [sys.executable, '-c', dedent(code)],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(paths)},
        capture_output=True,
        text=True,
    )


def check(code, *paths):
    result = run(code, *paths)
    assert result.returncode == 0, result.stderr


def write_package(folder, *modules):
    """Make empty Python modules, and the packages that they lie in."""
    for module in modules:
        path = Path(folder, module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('')
        for parent in path.parents:
            if parent == Path(folder):
                break
            (parent / '__init__.py').touch()
    return folder


def test_import_is_light_and_repeatable():
    check(f"""
        import sys
        import torch
        import mutualnet_mm
        heavy = set(sys.modules) & {{'torchvision', *{PROJECTS}}}
        assert not heavy, heavy
        get = getattr(torch.serialization, 'get_safe_globals', list)
        before = len(get()), set(sys.modules)
        mutualnet_mm.compat.apply()
        assert (len(get()), set(sys.modules)) == before
        """)


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, PROJECTS)),
    reason='needs mmpretrain, mmdet and mmaction2',
)
def test_all_three_projects_import_in_one_process():
    check("""
        import mutualnet_mm
        import mmpretrain.models, mmpretrain.apis
        import mmaction.models, mmaction.apis
        import mmdet.models, mmdet.apis
        """)


# --- checkpoints ---------------------------------------------------------


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode):
        if mode == 'loss':
            return {'loss': self.layer(torch.stack(inputs)).mean()}
        return []


class Points(Dataset):
    metainfo = {'classes': ('point',)}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {'inputs': torch.ones(1)}


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of mmengine's Runner with a scalar as a best score."""
    runner = Runner(
        model=Line(),
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Points(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=0.1)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        experiment_name=tmp_path.name,
    )
    for name in compat._NUMPY_TYPES:
        runner.message_hub.update_info(name, np.dtype(name).type(1))
    runner.train()
    return tmp_path / 'epoch_1.pth'


def rename(checkpoint, numpy_core):
    """Write it as the numpy does whose private module has that name."""
    renamed = checkpoint.with_name(f'{numpy_core}.pth')
    found = False
    with zipfile.ZipFile(checkpoint) as old, zipfile.ZipFile(
        renamed, 'w'
    ) as new:
        for name in old.namelist():
            data = old.read(name)
            for other in (b'numpy.core', b'numpy._core'):
                found |= other in data
                data = data.replace(other, numpy_core.encode())
            new.writestr(name, data)
    assert found, 'the checkpoint holds no numpy value'
    return str(renamed)


def test_runner_checkpoint_loads_with_the_default_loader(checkpoint):
    names = ('numpy.core', 'numpy._core')
    check(f"""
        import mutualnet_mm
        import torch
        from mmengine.runner.checkpoint import _load_checkpoint
        for path in {[rename(checkpoint, name) for name in names]}:
            hub = _load_checkpoint(path)['message_hub']
            torch.load(path)  # the Runner's way left that as it was
            loss = hub['log_scalars']['train/loss']
            assert len(loss.data[0]) == 2, loss.data
            assert loss.mean() == loss.data[0].mean()
            for name in {compat._NUMPY_TYPES}:
                value = hub['runtime_info'][name]
                assert value == 1 and value.dtype == name, value
        """)


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'),
    reason='this torch does not restrict what it loads',
)
def test_other_globals_stay_refused(tmp_path):
    class Attack:
        def __init__(self, *call):
            self.call = call

        def __reduce__(self):
            return self.call

    paths = [str(tmp_path / name) for name in ('eval.pth', 'getattr.pth')]
    attacks = Attack(eval, ('1 + 1',)), Attack(getattr, (np.ndarray, 'tofile'))
    for path, attack in zip(paths, attacks):
        torch.save({'state_dict': {}, 'meta': attack}, path)
    check(f"""
        import pickle
        import mutualnet_mm
        import torch
        for path in {paths}:
            try:
                torch.load(path, weights_only=True)
            except pickle.UnpicklingError:
                continue
            raise AssertionError(path)
        """)


# --- torchvision ---------------------------------------------------------


@pytest.fixture
def broken_torchvision(tmp_path):
    """The installed torchvision with operators that do not load."""
    spec = importlib.util.find_spec('torchvision')
    if spec is None:
        pytest.skip('torchvision is not installed')
    folder = tmp_path / 'torchvision'
    folder.mkdir()
    for entry in Path(spec.submodule_search_locations[0]).iterdir():
        if entry.name.startswith('_C') and entry.suffix == '.so':
            (folder / entry.name).touch()
        elif entry.name != '__pycache__':
            (folder / entry.name).symlink_to(entry)
    return tmp_path


USE_TORCHVISION = """
    import torch
    import torchvision.transforms
    import torchvision.models
    from torchvision.ops import nms
    assert torchvision.models.resnet18() is not None
    """


def test_torchvision_imports_without_its_operators(broken_torchvision):
    check('import mutualnet_mm' + dedent(USE_TORCHVISION), broken_torchvision)


def test_torchvision_imports_after_a_failed_import(broken_torchvision):
    check(
        dedent("""
        try:
            import torchvision
        except (RuntimeError, AttributeError):
            pass
        import sys
        import mutualnet_mm
        junk = [m for m in sys.modules if m.startswith('torchvision.')]
        assert 'torchvision' in sys.modules or not junk, junk
        """)
        + dedent(USE_TORCHVISION),
        broken_torchvision,
    )


def test_operators_of_an_unknown_name_are_left_alone(tmp_path):
    """Declared here, they would end the process that loads them."""
    write_package(tmp_path, 'torchvision/__init__.py')
    check(
        """
        import torch
        import mutualnet_mm
        assert not hasattr(torch.ops.torchvision, 'nms')
        """,
        tmp_path,
    )


@pytest.mark.parametrize('name', ['_C', '_C_stable'])
@pytest.mark.parametrize('suffix', importlib.machinery.EXTENSION_SUFFIXES[::2])
def test_loadable_operators_are_left_alone(name, suffix, tmp_path):
    write_package(tmp_path, 'torchvision/__init__.py')
    library = tmp_path / 'torchvision' / f'{name}{suffix}'
    library.touch()
    check(
        f"""
        import torch
        loaded = []
        torch.ops.load_library = loaded.append
        import mutualnet_mm
        assert loaded == [{str(library)!r}], loaded
        assert not hasattr(torch.ops.torchvision, 'nms')
        """,
        tmp_path,
    )


# --- mmaction2 -----------------------------------------------------------


def test_missing_drn_gets_a_stand_in(tmp_path):
    write_package(tmp_path, 'mmaction/models/localizers/bmn.py')
    check(
        """
        import sys
        import mutualnet_mm
        assert 'mmaction' not in sys.modules
        from mmaction.models.localizers.drn.drn import DRN
        try:
            DRN(1)
        except ImportError as error:
            assert 'mmaction2' in str(error)
        else:
            raise AssertionError('DRN was built')
        """,
        tmp_path,
    )


def test_real_drn_is_left_alone(tmp_path):
    write_package(tmp_path, 'mmaction/models/localizers/drn/drn.py')
    check(
        """
        import mutualnet_mm
        from mmaction.models.localizers.drn import drn
        assert drn.__file__ and not hasattr(drn, 'DRN')
        """,
        tmp_path,
    )


def test_numpy_infinity():
    """By the name that steps of skeletons use."""
    check("""
        import numpy as np
        import mutualnet_mm
        assert np.Inf == np.inf == float('inf')
        """)


# --- mmpretrain ----------------------------------------------------------

BLIP = 'from transformers.modeling_utils import PreTrainedModel, prune\n'
BUILD_CAPTION = """
    import sys
    import mutualnet_mm
    from mmengine.registry import Registry
    sys.path.insert(0, {folder!r})  # now: PyTorch 2.1 looks into transformers
    mutualnet_mm.compat.apply()
    assert 'mmpretrain' not in sys.modules
    from mmpretrain.utils import dependency
    assert dependency.WITH_MULTIMODAL is {there}
    registry = Registry('model', scope='toy')
    dependency.register_multimodal_placeholder(['A', 'B'], registry)
    try:
        registry.get('A')(depth=1)
    except ImportError as error:
        print(error)
    """


def made_up_mmpretrain(folder, in_transformers):
    """As 1.2.0 has it, beside a transformers with these names."""
    write_package(folder, 'transformers/modeling_utils.py')
    write_package(folder, 'mmpretrain/models/multimodal/blip/__init__.py')
    write_package(folder, 'mmpretrain/utils/dependency.py')
    blip = folder / 'mmpretrain/models/multimodal/blip/language_model.py'
    blip.write_text(BLIP)
    names = folder / 'transformers/modeling_utils.py'
    names.write_text('\n'.join(f'{name} = 1' for name in in_transformers))
    (folder / 'mmpretrain/utils/dependency.py').write_text(
        'WITH_MULTIMODAL = True\n'
        'def register_multimodal_placeholder(names, registry):\n'
        '    for name in names:\n'
        '        registry.register_module(name, module=dict)\n'
    )
    return folder


def test_multimodal_networks_are_left_out(tmp_path):
    folder = made_up_mmpretrain(tmp_path, ['PreTrainedModel'])
    done = run(BUILD_CAPTION.format(folder=str(folder), there=False))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('A of mmpretrain'), done.stdout
    assert 'lacks prune:' in done.stdout


def test_multimodal_networks_that_import_are_left_alone(tmp_path):
    folder = made_up_mmpretrain(tmp_path, ['PreTrainedModel', 'prune'])
    done = run(BUILD_CAPTION.format(folder=str(folder), there=True))
    assert done.returncode == 0, done.stderr
    assert 'transformers' not in done.stdout
