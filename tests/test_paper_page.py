"""Each row of the page on the paper names what exists."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs/paper.md').read_text(encoding='utf-8')
# What a recipe is called with stands above the tables.
ROWS = [line for line in PAGE.splitlines() if line.startswith('| ')]
CODE = sorted({code for row in ROWS for code in re.findall('`([^`]+)`', row)})


@pytest.mark.parametrize('code', CODE)
def test_what_a_row_names(code, monkeypatch):
    """A file, a function in one, or a recipe."""
    if '/' not in code:
        monkeypatch.syspath_prepend(str(ROOT / 'projects'))
        from paper_recipes import RECIPES

        sys.modules.pop('paper_recipes')
        assert code in RECIPES
        return
    place, *options = code.split()
    file, _, name = place.partition(':')
    source = (ROOT / file).read_text(encoding='utf-8')
    defined = [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    assert not name or name in defined
    assert all(option in source for option in options)


@pytest.mark.parametrize(
    'link', sorted(set(re.findall(r'\]\(([^)#:]+)\)', PAGE)))
)
def test_links(link):
    assert (ROOT / 'docs' / link).is_file()


def test_every_recipe_is_listed(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'projects'))
    from paper_recipes import RECIPES

    sys.modules.pop('paper_recipes')
    assert set(RECIPES) <= set(CODE)
