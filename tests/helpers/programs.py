"""Programs of tools/ and others, in this process: without its start."""

import io
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import torch
from mmengine.utils.manager import ManagerMixin


class Result(NamedTuple):
    """What a program printed and how it ended, as of a real process."""

    returncode: int
    stdout: str
    stderr: str


def forget_instances():
    """Forget mmengine's loggers, visualizers, scopes: as a new process."""
    managers = [ManagerMixin]
    for manager in managers:
        managers.extend(manager.__subclasses__())
        manager._instance_dict.clear()


def run_program(path, *arguments):
    """Do what ``python PATH ARGUMENTS`` does, in the current folder."""
    argv, threads = sys.argv, torch.get_num_threads()
    sys.argv = [str(path), *map(str, arguments)]
    out, errors = io.StringIO(), io.StringIO()
    code = 0
    forget_instances()
    try:
        with redirect_stdout(out), redirect_stderr(errors):
            runpy.run_path(str(path), run_name='__main__')
    except SystemExit as end:
        code = end.code or 0
        if isinstance(code, str):  # as the interpreter does
            code = print(code, file=errors) or 1
    finally:
        sys.argv = argv
        torch.set_num_threads(threads)
        forget_instances()
    return Result(code, out.getvalue(), errors.getvalue())
