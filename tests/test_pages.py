"""The pages: links, navigation, blocks of code, and what scripts write."""

import argparse
import ast
import io
import re
import runpy
import sys
import unicodedata
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path

import pytest
from pages import ROOT, commands, read_blocks

from mutualnet_mm_command import FILES

DOCS = ROOT / 'docs'
PAGES = sorted(
    path.relative_to(DOCS).as_posix() for path in DOCS.rglob('*.md')
)
ALL = ['README.md', 'CONTRIBUTING.md', *(f'docs/{page}' for page in PAGES)]
# Pages whose blocks a test runs, but for those behind `<!-- needs: ... -->`.
RUN = {
    'README.md': 'tests/test_readme.py',
    'docs/configs_video.md': 'tests/test_configs_video.py',
    'docs/deploy.md': 'tests/test_deploy_page.py',
    'docs/layers.md': 'tests/test_slimmable/test_kinds.py',
    'docs/plain_pytorch.md': 'tests/test_plain_page.py',
    **{
        f'docs/{page}': 'tests/test_page_blocks.py'
        for page in (
            *('adaptive_config.md', 'faq.md', 'install.md', 'ranges.md'),
            *('method.md', 'usage.md', 'video_data.md'),
            *(page for page in PAGES if page.startswith('methods/')),
        )
    },
    **{
        f'docs/{page}': 'tests/test_tutorials.py'
        for page in PAGES
        if page.startswith('tutorials/')
    },
}


def load(script):
    return runpy.run_path(str(DOCS / f'{script}.py'))


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r'^ *```.*?^ *```$', '', text, flags=re.S | re.M)


@lru_cache(maxsize=None)
def anchors(path):
    """Anchors of a page that both GitHub and MkDocs make."""
    found = set()
    for heading in re.findall(
        r'^#+ (.*)', prose(path.read_text('utf-8')), re.M
    ):
        heading = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading)
        heading = heading.replace('`', '').replace('*', '').strip().lower()
        github = re.sub(r'[^\w\- ]', '', heading).replace(' ', '-')
        plain = unicodedata.normalize('NFKD', heading)
        plain = plain.encode('ascii', 'ignore').decode()
        mkdocs = re.sub(r'[-\s]+', '-', re.sub(r'[^\w\s-]', '', plain).strip())
        if github == mkdocs:
            found.add(github)
    return found


@pytest.mark.parametrize('page', ALL)
def test_links(page):
    """Files exist, and so do headings, by the names of GitHub and MkDocs."""
    file = ROOT / page
    text = prose(file.read_text(encoding='utf-8'))
    for target in re.findall(r'\]\(([^)\s]+)\)', text):
        if re.match('https?:', target):
            continue
        path, _, anchor = target.partition('#')
        path = (file.parent / path).resolve() if path else file
        assert path.exists(), f'{page}: {target}'
        if anchor:
            assert anchor in anchors(path), f'{page}: {target}'


def test_every_page_is_in_the_navigation():
    nav = load('make_index')['read_nav']()
    listed = [page for pages in nav.values() for _, page in pages]
    assert sorted(listed) == PAGES


@pytest.mark.parametrize(
    'script, write, file',
    [
        ('make_index', 'write_index', 'llms.txt'),
        pytest.param(
            *('make_help', 'write_page', 'commands.md'),
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    not (3, 10) <= sys.version_info < (3, 13),
                    reason='other releases of Python format help otherwise',
                ),
            ],
        ),
    ],
)
def test_what_scripts_write_is_up_to_date(script, write, file):
    written = (DOCS / file).read_text(encoding='utf-8')
    assert load(script)[write]() == written, f'run python docs/{script}.py'


def test_figures():
    """Each one is shown, and each is of the script."""
    made = load('make_figures')['FIGURES']
    files = {path.stem for path in (DOCS / 'figures').iterdir()}
    assert files == set(made)
    shown = (DOCS / 'concepts.md').read_text(encoding='utf-8')
    assert all(f'figures/{name}.svg' in shown for name in made)


@pytest.mark.parametrize('page', sorted((DOCS / 'api').glob('*.md')))
def test_every_public_name_is_in_the_reference(page):
    text = page.read_text(encoding='utf-8')
    package = re.match('# `(.*)`', text)[1]
    source = ROOT / package.replace('.', '/') / '__init__.py'
    tree = ast.parse(source.read_text(encoding='utf-8'))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == '__all__'
    )
    rooms = {path.name for path in source.parent.iterdir()}
    names = {n for n in names if n not in rooms and not n.startswith('_')}
    assert set(re.findall(rf'^::: {package}\.(\w+)$', text, re.M)) == names


def test_links_to_other_files_on_the_site():
    mend = load('site_hooks')['mend_links']
    text = (
        'See [the tool](../tools/train.py), [`setup.py`](../setup.py) and '
        '[here](method.md#memory) or [there](https://x.org/a).\n'
        '```\n[a](../b)\n```\n'
    )
    assert mend(text, 'faq.md') == (
        'See the tool (`tools/train.py`), `setup.py` and '
        '[here](method.md#memory) or [there](https://x.org/a).\n'
        '```\n[a](../b)\n```\n'
    )
    mended = mend('[a](../../README.md#x)', 'methods/norm.md', 'https://r/p/')
    assert mended == '[a](https://r/p/blob/main/README.md#x)'


@pytest.mark.parametrize('page', ALL)
def test_every_block_is_run_or_marked(page):
    for language, code, needs in read_blocks(page):
        if needs or language not in ('python', 'bash'):
            continue
        assert page in RUN, f'{page}: mark it by <!-- needs: ... -->:\n{code}'
        test = (ROOT / RUN[page]).read_text(encoding='utf-8')
        named = (Path(page).name, Path(page).stem, f'{Path(page).parent}')
        assert any(name in test for name in named)


@pytest.mark.parametrize('page', ALL)
def test_marked_python_is_python(page):
    for language, code, needs in read_blocks(page):
        if language == 'python' and needs:
            compile(code, page, 'exec')


class Parsed(Exception):
    """The arguments of a program have been parsed."""


@pytest.fixture(scope='module')
def parsers():
    """Return the parser of a program, by the file."""
    pytest.importorskip('mmpretrain')
    pytest.importorskip('mmdet')
    known = {}

    def stop(parser, *args, **kwargs):  # also called by those that intermix
        raise Parsed(parser)

    def find(file):
        if file not in known:
            path = list(sys.path)
            argv = sys.argv
            sys.argv = [str(file)]
            sys.path.insert(0, str(file.parent))
            try:
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(
                        argparse.ArgumentParser, 'parse_known_args', stop
                    )
                    runpy.run_path(str(file), run_name='__main__')
            except Parsed as found:
                (known[file],) = found.args
            finally:
                sys.path[:], sys.argv = path, argv
        return known[file]

    return find


def as_file(words):
    """A command with the file of a tool in place of its short name."""
    for i, word in enumerate(words[:-1]):
        if word in ('mutualnet', 'mutualnet_mm') and words[i + 1] in FILES:
            return [
                *words[:i],
                f'tools/{FILES[words[i + 1]]}',
                *words[i + 2 :],
            ]
    assert words[0] != 'mutualnet' or words[1][0] == '-', words
    return words


PROGRAM = re.compile(r'(tools|projects|tests/benchmarks)/.*\.(py|sh)')


@pytest.mark.slow
@pytest.mark.parametrize(
    'page',
    [p for p in ALL if any(b.language == 'bash' for b in read_blocks(p))],
)
def test_programs_and_options_exist(page, parsers):
    """Every command of a page is one that its program understands."""
    for language, code, _ in read_blocks(page):
        if language != 'bash':
            continue
        code = re.sub(r""""?\$\((?:[^()']|'[^']*')*\)"?""", 'a.b=1', code)
        for words in commands(code):
            for word in words:
                word = word.replace('mutualnet_mm::', 'configs/')
                if re.match(r'configs/(?!.*NAME).*\.py$', word):
                    assert (ROOT / word).is_file(), f'{page}: {word}'
            words = as_file(words)
            at = [i for i, word in enumerate(words) if PROGRAM.fullmatch(word)]
            if not at or words[at[0] - 1] == 'cat':
                continue
            file, arguments = ROOT / words[at[0]], words[at[0] + 1 :]
            assert file.is_file(), f'{page}: {file}'
            file = file.with_suffix('.py')
            if not file.is_file() or '_args(' not in file.read_text('utf-8'):
                continue
            parser = parsers(file)
            said = io.StringIO()
            try:
                with redirect_stderr(said):
                    parser.parse_args(arguments)
            except SystemExit:
                pytest.fail(f'{page}: {words}\n{said.getvalue()}')
