"""The command ``mutualnet``: names, help, tools in the same process."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import mutualnet_mm
from mutualnet_mm import __version__

ROOT = Path(__file__).parents[1]


def load():
    spec = spec_from_file_location('command', ROOT / 'mutualnet_mm_command.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


command = load()


@pytest.fixture
def call(monkeypatch):
    """Run the command in this process; return its exit, output and errors."""
    monkeypatch.setattr(sys, 'argv', sys.argv)
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setitem(sys.modules, '__main__', sys.modules['__main__'])

    def run(*arguments):
        out, errors, code = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(errors):
            try:
                command.main(list(arguments))
            except SystemExit as end:
                code = end.code
        return code, out.getvalue(), errors.getvalue()

    return run


def test_every_tool_has_a_command():
    tools = {
        file.relative_to(ROOT / 'tools').as_posix()
        for file in (ROOT / 'tools').rglob('*.py')
    }
    assert tools == set(command.FILES.values())
    names = [name for group in command.COMMANDS.values() for name in group]
    assert len(names) == len(set(names)) == len(tools)


@pytest.mark.parametrize('options', [(), ('-h',), ('--help',), ('help',)])
def test_help_lists_every_command(options, call):
    code, out, _ = call(*options)
    assert code == 0
    lines = {line.split()[0] for line in out.splitlines() if line[:2] == '  '}
    assert set(command.FILES) <= lines
    assert 'table       Evaluate a grid of subnets; write their table' in out
    assert max(map(len, out.splitlines())) < 80


def test_help_needs_no_torch():
    program = (
        'import sys, mutualnet_mm_command\n'
        'mutualnet_mm_command.main(["--help"])\n'
        'mutualnet_mm_command.main(["--version"])\n'
        'print(sorted({"torch", "mmengine", "mutualnet_mm"} & {*sys.modules}))'
    )
    done = subprocess.run(
        [sys.executable, '-c', program],
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == '[]', done.stderr


@pytest.mark.parametrize('option', ['-V', '--version'])
def test_version(option, call):
    assert call(option) == (0, f'mutualnet_mm {__version__}\n', '')


def test_misspelt_command(call):
    code, out, errors = call('tabel', 'config.py')
    assert code == 2 and not out
    assert "no command 'tabel': did you mean table?" in errors
    code, _, errors = call('xyzzy')
    assert code == 2
    assert "no command 'xyzzy' (mutualnet --help lists all)" in errors


@pytest.mark.parametrize('name', command.FILES)
def test_help_of_a_tool_names_the_command(name, call):
    code, out, errors = call(name, '--help')
    assert code == 0, errors
    assert out.startswith(f'usage: mutualnet {name} ')


def test_arguments_and_errors_are_the_tools(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = call('table', 'no.py', 'no.pth', '--out', 'out')
    assert code == "error: config 'no.py' does not exist"
    code, _, errors = call('table', 'no.py')
    assert code == 2
    assert 'mutualnet table: error: the following arguments' in errors


def test_tool_is_the_main_module(call, tmp_path):
    """So that processes which load data find what it defines."""
    tool = tmp_path / 'tool.py'
    tool.write_text(
        'import sys\n'
        'class Thing: pass\n'
        'main = sys.modules["__main__"]\n'
        'print(__name__, main.Thing is Thing, main.__file__, sys.argv[1:])\n'
        'print(Thing.__module__)\n'
    )
    out = io.StringIO()
    with redirect_stdout(out):
        command.run('mutualnet tool', tool, ['a', '--b'])
    assert out.getvalue().splitlines() == [
        f"__main__ True {tool} ['a', '--b']",
        '__main__',
    ]


def test_package_is_the_one_that_is_imported():
    folder = command.package_folder()
    assert folder == Path(mutualnet_mm.__file__).parent
    assert command.tools_folder(folder) == ROOT / 'tools'


@pytest.mark.subprocess
def test_module_runs_the_command():
    done = subprocess.run(
        [sys.executable, '-m', 'mutualnet_mm', 'env'],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f'mutualnet_mm: {__version__}' in done.stdout
    assert 'PyTorch: ' in done.stdout


def test_what_is_not_installed_is_said_in_one_line(call, monkeypatch):
    def check():
        raise ImportError('mutualnet_mm needs mmcv')

    files = []
    monkeypatch.setattr(
        'runpy.run_path',
        lambda path: files.append(path) or {'check_packages': check},
    )
    assert call('flops', 'x')[0] == 'mutualnet: mutualnet_mm needs mmcv'
    assert Path(files[0]).is_file()
