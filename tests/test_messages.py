"""Commands, configs and files that messages name are there for every user.

Also for one who has the wheel and no clone.
"""

import ast
import re
from pathlib import Path

import pytest
from packaging_tree import ROOT

import mutualnet_mm_command as command

FILES = sorted(
    path.relative_to(ROOT)
    for folder in ('mutualnet_mm', 'tools', 'configs')
    for path in (ROOT / folder).rglob('*.py')
    if '.mim' not in path.parts
)
# Their subject is a page of the clone.
OF_CLONES = {'tools/list_backbones.py', 'tools/survey_configs.py'}
COMMAND = re.compile(
    r'(?<![\w./-])(?:mutualnet|-m mutualnet_mm)\s+(?:\\\s+)?([a-z][a-z-]*)'
)
CONFIG = re.compile(r'mutualnet_mm::([\w./-]+\.py)')
TOOL = re.compile(r'\btools/[\w/]+\.(?:py|sh)')
IN_CLONES = re.compile(r'\b(?:tools|docs|requirements|projects|tests)/\w')


def strings(tree):
    """All strings, each with whether it is a docstring."""
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(
            node,
            (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef),
        )
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, id(node) in docstrings
        elif isinstance(node, ast.JoinedStr):
            parts = [
                getattr(part, 'value', '')
                if isinstance(part, ast.Constant)
                else '{}'
                for part in node.values
            ]
            yield ''.join(parts), False


@pytest.mark.parametrize('file', FILES, ids=str)
def test_what_strings_name(file):
    tree = ast.parse((ROOT / file).read_text(encoding='utf-8'))
    for text, is_docstring in strings(tree):
        for name in COMMAND.findall(text):
            assert name in command.FILES, f'no command {name!r}: {text}'
        for name in CONFIG.findall(text.replace('/NAME.py', '')):
            assert (ROOT / 'configs' / name).is_file(), text
            assert '/' in name, f'MMEngine needs a folder: {text}'
        assert not TOOL.search(text), text
        is_shown = file.parts[0] == 'tools' or not is_docstring
        if is_shown and file.as_posix() not in OF_CLONES:
            assert not IN_CLONES.search(text), text


def test_rule_finds_what_it_should():
    assert COMMAND.findall('made by mutualnet tabel, or') == ['tabel']
    assert COMMAND.findall('torchrun -m mutualnet_mm train X') == ['train']
    assert COMMAND.findall('mutualnet train \\\n  CONFIG') == ['train']
    assert not COMMAND.findall('import mutualnet_mm as mm')
    assert CONFIG.findall('mutualnet_mm::a/b-c_d.py x') == ['a/b-c_d.py']
    assert TOOL.search('by tools/analysis/cam.py')
    assert IN_CLONES.search('see docs/layers.md')
    assert not IN_CLONES.search('see work_dirs/table.json')


def test_extras_that_messages_name_are_offered():
    setup = (ROOT / 'setup.py').read_text(encoding='utf-8')
    for file in FILES:
        text = (ROOT / file).read_text(encoding='utf-8')
        for extra in re.findall(r'mutualnet_mm\[(\w+)\]', text):
            assert f"'{extra}': read_requirements('{extra}')" in setup
    assert Path(ROOT / 'requirements/deploy.txt').is_file()
