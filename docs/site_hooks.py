# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""What MkDocs does with our pages, so that they stay plain Markdown.

Links to files outside of ``docs/`` work in the repository; here they lead to
``repo_url``, or are names of files where there is none. Each page also lies
beside its HTML as Markdown, to which ``llms.txt`` links.
"""

import logging
import posixpath
import re
from pathlib import Path

LINK = re.compile(r'(!?)\[([^]]*)\]\(([^)\s]+)\)')
FENCE = re.compile(r'(^ *```.*?^ *```$)', re.S | re.M)
ROLE = re.compile(r':(?:attr|class|data|exc|func|meth|mod):<code>~?')
MARKER = re.compile(r'^<!-- (?:needs|run): .* -->\n', re.M)
LOADED = re.compile(
    r'<(?:script|img|link rel="?stylesheet)[^>]*https?://[^>]*>'
)
_log = logging.getLogger('mkdocs.hooks.site')
_texts: dict = {}


def mend_links(text: str, page: str, repo_url: str = '') -> str:
    """Replace links to files outside of the folder of the pages.

    Args:
        text (str): Markdown.
        page (str): Path of the page in ``docs/``, such as
            ``'results/video.md'``.
        repo_url (str): Of the repository; links become names without it.
            Defaults to ``''``.
    """

    def mend(link: re.Match) -> str:
        _, label, target = link.groups()
        if re.match(r'[a-z]+:|#|/', target):
            return link[0]
        folder = posixpath.join('docs', posixpath.dirname(page))
        path, _, anchor = target.partition('#')
        path = posixpath.normpath(posixpath.join(folder, path))
        if path.startswith('docs/'):
            return link[0]
        if repo_url:
            anchor = f'#{anchor}' if anchor else ''
            url = f'{repo_url.rstrip("/")}/blob/main/{path}{anchor}'
            return f'[{label}]({url})'
        named = label.strip('`') in path
        return f'`{path}`' if named else f'{label} (`{path}`)'

    parts = FENCE.split(text)
    parts[::2] = [LINK.sub(mend, part) for part in parts[::2]]
    return ''.join(parts)


def on_page_markdown(markdown, page, config, files):
    """Mend the links of a page, and drop the marks that are for tests."""
    text = mend_links(markdown, page.file.src_uri, config.repo_url or '')
    text = MARKER.sub('', text)
    _texts[page.file.src_uri] = text
    return text


def on_page_content(html, page, config, files):
    """Show the roles of docstrings as code alone."""
    return ROLE.sub('<code>', html)


def on_post_page(output, page, config):
    """Warn of what a page loads from elsewhere: the site works offline."""
    for tag in LOADED.findall(output):
        _log.warning('%s loads %s', page.file.src_uri, tag)
    return output


def on_post_build(config):
    """Write the pages as Markdown, too."""
    for path, text in _texts.items():
        (Path(config.site_dir) / path).write_text(text, encoding='utf-8')
