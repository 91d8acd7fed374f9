#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write docs/commands.md: what ``--help`` of every tool prints.

python docs/make_help.py
"""

import importlib.util
import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs/commands.md'
HEAD = """# Command reference

What `--help` prints, written by `docs/make_help.py`. `tools/train.py` and
`tools/test.py` take the options of the stock tools of all three projects.
"""
COMMAND = """
Each tool is also a command of the installed package: `mutualnet train CONFIG`
is `python tools/train.py CONFIG`.
"""


def find_tools() -> list:
    """Find the tools: then those for analyses, then what starts several."""
    tools = ROOT / 'tools'
    kinds = ('*.py', 'analysis/*.py', 'dist_*.sh', 'slurm_*.sh')
    return [file for kind in kinds for file in sorted(tools.glob(kind))]


def read_help(tool: Path) -> str:
    """Return what ``python TOOL --help`` prints, 79 columns wide.

    Args:
        tool (Path): File.
    """
    if tool.suffix == '.sh':
        command = ['bash', str(tool), '--help']
        return subprocess.check_output(command, text=True).rstrip()
    argv, path, shown = sys.argv, list(sys.path), io.StringIO()
    sys.argv = [str(tool), '--help']
    sys.path.insert(0, str(tool.parent))
    columns = os.environ.get('COLUMNS')
    os.environ['COLUMNS'] = '79'
    try:
        with redirect_stdout(shown):
            runpy.run_path(str(tool), run_name='__main__')
    except SystemExit:
        pass
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.pop('COLUMNS')
        if columns is not None:
            os.environ['COLUMNS'] = columns
    # Defaults of a clone are inside of it, wherever that lies.
    return shown.getvalue().replace(f'{ROOT}{os.sep}', '').rstrip()


def find_commands() -> dict:
    """Return the console command of each tool, where there is one."""
    if importlib.util.find_spec('mutualnet_mm_command') is None:
        return {}
    from mutualnet_mm_command import FILES

    return {ROOT / 'tools' / file: name for name, file in FILES.items()}


def write_page() -> str:
    """Return the text of the page."""
    commands = find_commands()
    parts = [HEAD] + [COMMAND] * bool(commands)
    for tool in find_tools():
        command = commands.get(tool)
        also = f'`mutualnet {command}`\n\n' if command else ''
        parts.append(
            f'\n## {tool.relative_to(ROOT).as_posix()}\n\n'
            f'{also}```text\n{read_help(tool)}\n```\n'
        )
    return ''.join(parts)


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(write_page(), encoding='utf-8')
