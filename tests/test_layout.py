"""Imports inside of the package point one way, and files stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'mutualnet_mm'
# From the bottom up; what shares a row does not know each other.
FLOORS = [
    {'errors', 'version', 'packages', 'compat', 'registry'},
    {
        *('files', 'tensor_files', 'checked_json', 'progress_bars'),
        *('devices', 'random_state'),
    },
    {'shards'},
    {'widths'},
    {'subnet'},
    {'sampler'},
    {'slimmable', 'datasets'},
    {'query_table', 'config'},
    {'models', 'visualization'},
    {'cost'},
    {'engine'},
    {'deploy'},
    {'export'},
    {'apis'},
    {'survey', 'analysis', 'benchmarks'},
    {'cli'},  # of the tools, not of the library
    {'cli_analysis'},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob('*.py'))


def imported_rooms(file):
    """Rooms that a file imports from, wherever in the file."""
    package = file.relative_to(PACKAGE.parent).parent.parts
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
        if not isinstance(node, ast.ImportFrom):
            continue
        parts = (node.module or '').split('.')
        if node.level:
            parts = [*package[: len(package) - node.level + 1], *parts]
        if parts[0] != 'mutualnet_mm':
            continue
        parts = [part for part in parts[1:] if part]
        yield from [parts[0]] if parts else [a.name for a in node.names]


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_imports_point_down(file):
    room = file.relative_to(PACKAGE).parts[0].split('.')[0]
    if room == '__init__':
        return
    for other in imported_rooms(file):
        assert other == room or FLOOR[other] < FLOOR[room], (
            f'{file} imports {other}'
        )


def test_core_knows_no_project():
    for file in (PACKAGE / 'slimmable').glob('*.py'):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            assert not any(module.startswith('mm') for module in modules)


def test_files_hold_one_subject():
    long = {
        str(file): lines
        for file in FILES
        for lines in [len(file.read_text(encoding='utf-8').splitlines())]
        if lines > 420
    }
    assert not long
