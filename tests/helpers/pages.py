"""Blocks of code in our pages, found and run."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

from programs import run_program

from mutualnet_mm_command import FILES

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r'(?:^<!-- needs: (?P<needs>.+?) -->\n\s*)?'
    r'^(?P<indent> *)```(?P<language>\w*)\n(?P<code>.*?)^ *```$',
    re.S | re.M,
)


class Block(NamedTuple):
    """A block of a page, and what it needs that is not here, if anything."""

    language: str
    code: str
    needs: str


def read_blocks(page):
    """All blocks of a page, ``docs/deploy.md`` for example, in order."""
    text = (ROOT / page).read_text(encoding='utf-8')
    return [
        Block(found['language'], found['code'], found['needs'] or '')
        for found in BLOCK.finditer(text)
    ]


def commands(code):
    """The commands of a block of bash, each as a list of words."""
    for line in code.replace('\\\n', ' ').splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def find_program(command):
    """The file that a command runs, and what is given to it."""
    program, *rest = command
    if program == 'mutualnet':
        name, *rest = rest
        return [ROOT / 'tools' / FILES[name], *rest]
    assert program == 'python', command
    return rest


def run_page(page, edit=lambda code: code):
    """Run what a page says in the current folder, one block after the other.

    A Python block that begins with the name of a file, as a comment, is that
    file. What needs something that is not here is left out. Returns the
    names that the Python blocks defined.
    """
    names = {}
    for language, code, needs in read_blocks(page):
        code = edit(code)
        file = re.match(r'# (\w+\.py)\n', code)
        if needs or language not in ('python', 'bash'):
            continue
        if file:
            Path(file[1]).write_text(code)
        elif language == 'python':
            exec(compile(code, page, 'exec'), names)
        else:
            for command in commands(code):
                done = run_program(*find_program(command))
                assert done.returncode == 0, f'{command}\n{done.stderr}'
    return names
