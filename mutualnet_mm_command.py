#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""The command ``mutualnet``: every tool by a short name, wherever it lies.

``mutualnet table ...`` runs ``build_table.py``, of the clone that the package
is imported from or of ``mutualnet_mm/.mim/tools``, where a wheel keeps it. It
lies beside the package: importing that takes seconds, and help does not wait.
"""

import ast
import difflib
import importlib.util
import runpy
import shutil
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Dict, List, Optional

# By what they are for, the names of commands and the tools that they run.
COMMANDS: Dict[str, Dict[str, str]] = {
    'train and test': {
        'quickstart': 'quickstart.py',
        'adapt': 'make_adaptive.py',
        'train': 'train.py',
        'test': 'test.py',
        'table': 'build_table.py',
        'curves': 'plot_curves.py',
        'sort': 'sort_channels.py',
        'convert': 'convert_checkpoint.py',
    },
    'costs': {
        'flops': 'get_flops.py',
        'cost': 'training_cost.py',
        'latency': 'measure_latency.py',
        'benchmark': 'benchmark.py',
    },
    'deployment': {
        'export': 'export_subnet.py',
        'demo': 'demo.py',
    },
    'analyses': {
        'browse': 'analysis/browse_dataset.py',
        'cam': 'analysis/cam.py',
        'cam-video': 'analysis/cam_video.py',
        'compare': 'analysis/compare_subnets.py',
        'cut': 'analysis/cut.py',
        'gradients': 'analysis/gradients.py',
        'logs': 'analysis/learning_curves.py',
        'localize': 'analysis/localize.py',
    },
    'data, coverage, environment': {
        'charades': 'charades.py',
        'backbones': 'list_backbones.py',
        'survey': 'survey_configs.py',
        'env': 'collect_env.py',
    },
}
FILES = {
    name: file
    for commands in COMMANDS.values()
    for name, file in commands.items()
}


def package_folder() -> Path:
    """Find the package without importing it."""
    spec = importlib.util.find_spec('mutualnet_mm')
    if spec is None or spec.origin is None:
        sys.exit('mutualnet: mutualnet_mm is not installed')
    return Path(spec.origin).parent


def tools_folder(package: Path) -> Path:
    """Find the tools: of a clone its own, else those in the wheel.

    Args:
        package (Path): Folder of the package.
    """
    clone = package.parent
    folder = clone if (clone / 'setup.py').is_file() else package / '.mim'
    return folder / 'tools'


def first_line(file: Path) -> str:
    """Read the first line of a tool's docstring, without running it."""
    tree = ast.parse(file.read_text(encoding='utf-8'))
    return (ast.get_docstring(tree) or '').partition('\n')[0]


def help_page(tools: Path) -> str:
    """Write what ``mutualnet --help`` shows.

    Args:
        tools (Path): Folder of the tools.
    """
    width = shutil.get_terminal_size().columns - 2
    column = max(map(len, FILES)) + 4
    lines = [
        'usage: mutualnet COMMAND [ARGUMENTS]',
        '       mutualnet COMMAND --help',
        '       mutualnet --version',
        '',
        'One network, many widths and resolutions, for OpenMMLab.',
    ]
    for purpose, commands in COMMANDS.items():
        lines += ['', f'{purpose}:']
        for name, file in commands.items():
            lines += textwrap.wrap(
                first_line(tools / file),
                width,
                initial_indent=f'  {name}'.ljust(column),
                subsequent_indent=' ' * column,
            )
    lines += [
        '',
        'CONFIG is a file, or the name of one in a package, such as',
        'mutualnet_mm::classification/mutual-resnet14_1xb64_digits.py. On '
        'several GPUs:',
        'torchrun --nproc_per_node 8 -m mutualnet_mm train CONFIG',
    ]
    return '\n'.join(lines)


def main(arguments: Optional[List[str]] = None) -> None:
    """Run a command.

    Args:
        arguments (list[str], optional): Defaults to those of the process.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ['-h']
    package = package_folder()
    tools = tools_folder(package)
    if name in ('-h', '--help', 'help'):
        print(help_page(tools))
    elif name in ('-V', '--version'):
        values = runpy.run_path(str(package / 'version.py'))
        print(f'mutualnet_mm {values["__version__"]}')
    elif name not in FILES:
        near = difflib.get_close_matches(name, FILES, 1)
        meant = f': did you mean {near[0]}?' if near else ''
        print(
            f'mutualnet: no command {name!r}{meant} (mutualnet --help lists '
            'all)',
            file=sys.stderr,
        )
        sys.exit(2)
    else:
        check = runpy.run_path(str(package / 'packages.py'))['check_packages']
        try:
            check()
        except ImportError as error:
            sys.exit(f'mutualnet: {error}')
        run(f'mutualnet {name}', tools / FILES[name], rest)


def run(program: str, tool: Path, arguments: List[str]) -> None:
    """Run a tool in this process, as ``python TOOL ARGUMENTS`` does.

    Args:
        program (str): What its help calls it.
        tool (Path): File.
        arguments (list[str]): Of the tool.
    """
    sys.argv = [program, *arguments]
    sys.path.insert(0, str(tool.parent))
    # As runpy does, which would name the program after the file. Processes
    # that load data find the module by its file.
    module = ModuleType('__main__')
    module.__file__ = str(tool)
    sys.modules['__main__'] = module
    exec(compile(tool.read_bytes(), str(tool), 'exec'), module.__dict__)


if __name__ == '__main__':
    main()
