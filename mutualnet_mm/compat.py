# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What the released OpenMMLab stack needs on today's Python and PyTorch.

Every function here mends one defect of one release and does nothing where the
defect is absent, so the module can shrink as releases catch up. It does not
import mmpretrain, mmdet, mmaction2 or torchvision, and it never loosens a
safety check such as ``torch.load(weights_only=True)``.
"""

import ast
import functools
import importlib.util
import inspect
import pickle
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, List, Optional, Tuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import HistoryBuffer

_US = __name__.partition('.')[0]

_MULTIMODAL = 'mmpretrain.utils.dependency'

_DRN = 'mmaction.models.localizers.drn'

# The scalar types that metrics and log values come in.
_NUMPY_TYPES = ('bool', 'int32', 'int64', 'float32', 'float64')

# An operator lives only as long as the Library object that defined it.
_torchvision_library: Optional[torch.library.Library] = None


def apply() -> None:
    """Apply every remedy that this environment needs.

    Called on ``import mutualnet_mm``; calling it again changes nothing.
    """
    allow_mmengine_checkpoints()
    allow_inheriting_our_configs()
    declare_torchvision_operators()
    provide_mmaction_drn()
    restore_numpy_inf()
    leave_out_multimodal()
    keep_checkpoints_allowed()


def allow_mmengine_checkpoints() -> None:
    """Let ``weights_only`` loading read what mmengine's Runner saves.

    Needed by mmengine 0.10.7 with torch >= 2.6, where ``torch.load`` defaults
    to ``weights_only=True``: its checkpoints hold the message hub's
    ``HistoryBuffer`` objects (numpy arrays beside references to their own
    methods) and numpy scalars. Only these become loadable; ``weights_only``
    itself stays on. A torch without ``add_safe_globals`` (before 2.4) does
    not need it.
    """
    if hasattr(torch.serialization, 'add_safe_globals'):
        torch.serialization.add_safe_globals(_checkpoint_globals())


@functools.lru_cache(maxsize=None)
def _checkpoint_globals() -> List[Any]:
    """List the classes and functions that mmengine's checkpoints name."""
    # numpy 2 renamed its private module; files written by either must load.
    functions = [
        _named(f'{module}.multiarray', function)
        for function in (_constructor(np.zeros(1)), _constructor(np.int64(0)))
        for module in ('numpy.core', 'numpy._core')
    ]
    # Pickle protocol 2 refers to a method as `getattr(class, name)`.
    functions += [
        _named(module, _history_buffer_method, 'getattr')
        for module in ('builtins', '__builtin__')
    ]
    # A dtype is built by `numpy.dtype(...)` and then filled by its own class,
    # whose public name, `numpy.dtypes`, is younger than numpy 1.24.
    dtypes = [type(np.dtype(name)) for name in _NUMPY_TYPES]
    return [HistoryBuffer, np.ndarray, np.dtype, *dtypes, *functions]


def _constructor(value: Any) -> Callable:
    """Find the function by which pickle makes such a value again."""
    return value.__reduce__()[0]


def _named(
    module: str, function: Callable, name: Optional[str] = None
) -> Callable:
    """Wrap a function so that a checkpoint finds it under another name.

    ``add_safe_globals`` takes ``(function, name)`` pairs too, but not in every
    torch that has it.
    """

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    wrapper.__module__ = module
    wrapper.__qualname__ = name or function.__name__
    return wrapper


def _history_buffer_method(owner: Any, name: str) -> Callable:
    """Stand in for ``getattr``, which must not become loadable as it is."""
    method = vars(HistoryBuffer).get(name)
    if owner is not HistoryBuffer or not inspect.isfunction(method):
        raise pickle.UnpicklingError(
            f'refused to load {owner!r}.{name}: of mmengine checkpoints only '
            'the methods of HistoryBuffer are loadable'
        )
    return method


def keep_checkpoints_allowed() -> None:
    """Keep checkpoints loadable after the Runner has loaded one.

    Needed by OneDL's mmengine 0.10.12, which allows a list of its own while
    it loads. ``torch.serialization.safe_globals`` takes all of that list back
    afterwards, also what had been allowed before, so that the next checkpoint
    is refused.
    """
    loading = importlib.import_module('mmengine.runner.checkpoint')
    stock = getattr(loading, 'get_torch_safe_globals', None)
    if stock is None or getattr(stock, '_mutualnet_mm', False):
        return

    @functools.wraps(stock)
    def missing() -> List[Any]:
        allowed = torch.serialization.get_safe_globals()
        return [value for value in stock() if value not in allowed]

    missing._mutualnet_mm = True  # type: ignore[attr-defined]
    loading.get_torch_safe_globals = missing  # type: ignore[attr-defined]


def allow_inheriting_our_configs() -> None:
    """Let configs inherit ours, ``_base_ = 'mutualnet_mm::detection/...'``.

    Needed by mmengine 0.10.7, which keeps a closed list of the packages that
    ``package::`` may name, and looks values of such a base up in the scope of
    that package alone. Ours are written for the scope that they name as their
    ``default_scope``, as configs of a project of one's own are.

    By the name of one of our modules MMEngine finds the folder of the package
    that is imported, also in editable installs, whose metadata lie elsewhere.
    """
    if _US not in MODULE2PACKAGE:
        MODULE2PACKAGE[_US] = f'{_US}.version'
    stock = Config._get_cfg_path
    if getattr(stock, '_mutualnet_mm', False):
        return

    @functools.wraps(stock)
    def find(cfg_path: str, filename: str) -> Tuple[str, Optional[str]]:
        path, scope = stock(cfg_path, filename)
        return path, None if scope == _US else scope

    find._mutualnet_mm = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(find)


def declare_torchvision_operators() -> None:
    """Let torchvision import although its compiled operators do not load.

    Needed where torchvision was built for another torch, for instance with
    CUDA beside a CPU-only torch: its Python code then refers to operators
    that do not exist (``operator torchvision::nms does not exist``) and fails
    to import. Declaring the schemas of the two operators it names is enough
    for all its Python parts, which is what mmpretrain uses; calling the
    operators still fails.
    """
    global _torchvision_library
    if 'torchvision' in sys.modules or hasattr(torch.ops.torchvision, 'nms'):
        return
    spec = importlib.util.find_spec('torchvision')
    if spec is None or _loads_operators(spec):
        return
    # An import that failed before leaves its submodules behind, and they make
    # the next one fail for another reason.
    for name in [n for n in sys.modules if n.startswith('torchvision.')]:
        del sys.modules[name]
    library = torch.library.Library('torchvision', 'FRAGMENT')
    arguments = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
    library.define(f'nms{arguments}')
    library.define(f'qnms{arguments}')
    _torchvision_library = library


def _loads_operators(spec: ModuleSpec) -> bool:
    """Load the compiled operators the way torchvision does, without it.

    Torchvision 0.29 calls them ``_C_stable``, older ones ``_C``. Where there
    is neither, nothing is known: operators that are declared here and then
    loaded under a third name end the process.
    """
    libraries = [
        file
        for folder in spec.submodule_search_locations or []
        for file in Path(folder).glob('_C*')
        if file.name.endswith(tuple(EXTENSION_SUFFIXES))
    ]
    for library in libraries:
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return not libraries


def provide_mmaction_drn() -> None:
    """Stand in for the package that mmaction2's wheel forgot.

    Needed by mmaction2 1.2.0, whose wheel lacks
    ``mmaction/models/localizers/drn`` although ``mmaction.models`` imports
    it. The stand-in offers the one name asked for, a ``DRN`` that refuses to
    be built; a source checkout, which has the real one, is left alone.
    """
    if _DRN in sys.modules:
        return
    spec = importlib.util.find_spec('mmaction')
    if spec is None:
        return
    for folder in spec.submodule_search_locations or []:
        if Path(folder, 'models', 'localizers', 'drn').is_dir():
            return
    for name in (_DRN, f'{_DRN}.drn'):
        stand_in = ModuleSpec(name, None, is_package=name == _DRN)
        sys.modules[name] = importlib.util.module_from_spec(stand_in)
    sys.modules[f'{_DRN}.drn'].DRN = DRN  # type: ignore[attr-defined]


class DRN(torch.nn.Module):
    """Placeholder for mmaction2's DRN localizer; building it is an error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError(
            'DRN is missing from the installed mmaction2 package; install '
            'mmaction2 from its source repository to use it'
        )


def restore_numpy_inf() -> None:
    """Give infinity its old name back, which numpy 2 removed.

    Needed by mmaction2 1.2.0, whose ``PoseCompact``, a step of every pipeline
    of skeletons, says ``np.Inf``.
    """
    if not hasattr(np, 'Inf'):
        np.Inf = np.inf  # type: ignore[attr-defined]


def leave_out_multimodal() -> None:
    """Leave mmpretrain's multimodal networks out where they do not import.

    Needed by mmpretrain 1.2.0 with pycocotools and transformers 4.57 or 5,
    which do not have names any more that its BLIP imports, so that ``import
    mmpretrain.models`` fails as a whole. With this, it is as if transformers
    were not installed: the names of these networks stay registered, and
    building one is an error.
    """
    lost = _lost_transformers_names()
    if not lost or _MULTIMODAL in sys.modules:
        return
    if not any(isinstance(f, _WithoutMultimodal) for f in sys.meta_path):
        sys.meta_path.insert(0, _WithoutMultimodal(lost))


def _lost_transformers_names() -> List[str]:
    """List what mmpretrain's BLIP imports and transformers does not have.

    Both are read as text: importing either takes seconds.
    """
    texts = []
    for package, parts in (
        ('mmpretrain', ('models', 'multimodal', 'blip', 'language_model.py')),
        ('transformers', ('modeling_utils.py',)),
    ):
        spec = importlib.util.find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        file = Path((folders or [''])[0], *parts)
        if not folders or not file.is_file():
            return []
        texts.append(file.read_text(encoding='utf-8'))
    return [
        alias.name
        for node in ast.walk(ast.parse(texts[0]))
        if isinstance(node, ast.ImportFrom)
        and node.module == 'transformers.modeling_utils'
        for alias in node.names
        if alias.name not in texts[1]
    ]


class _WithoutMultimodal(MetaPathFinder):
    """Changes one module of mmpretrain as it is imported, then goes."""

    def __init__(self, lost: List[str]) -> None:
        self.lost = lost

    def find_spec(
        self, fullname: str, path: Any, target: Any = None
    ) -> Optional[ModuleSpec]:
        """Find that module, and leave all others to the next finder."""
        if fullname != _MULTIMODAL:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        loader: Any = spec and spec.loader
        if loader is not None:
            stock = loader.exec_module

            def execute(module: ModuleType) -> None:
                stock(module)
                module.WITH_MULTIMODAL = False  # type: ignore[attr-defined]
                module.register_multimodal_placeholder = (  # type: ignore[attr-defined]
                    self.register
                )

            loader.exec_module = execute
        return spec

    def register(self, names: List[str], registry: Any) -> None:
        """Register errors in the place of networks."""
        for name in names:
            registry.register_module(
                name=name, module=functools.partial(self.refuse, name)
            )

    def refuse(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Say why there is no such network."""
        raise ImportError(
            f'{name} of mmpretrain does not work with the installed '
            f'transformers, which lacks {", ".join(self.lost)}: install an '
            'older one, such as transformers==4.30.2'
        )
