#!/usr/bin/env python
# Copyright (c) mutualnet_mm contributors. All rights reserved.
"""Write docs/llms.txt: every page of the site in one line.

python docs/make_index.py
"""

import re
from pathlib import Path

import yaml

DOCS = Path(__file__).resolve().parent
INDEX = DOCS / 'llms.txt'
HEAD = """# mutualnet_mm

> A plugin for mmdet, mmpretrain and mmaction2: one network, trained once by
> mutual learning, that runs at any width, resolution and, for video, number of
> frames. Each page lies beside its HTML as Markdown, under the names below.
"""


def read_nav() -> dict:
    """Return titles and pages of each section: ``{section: [(title, page)]}``.

    A page that stands for its section has the section's title.
    """
    config = yaml.safe_load((DOCS.parent / 'mkdocs.yml').read_text('utf-8'))
    sections: dict = {}
    for entry in config['nav']:
        ((section, content),) = entry.items()
        if isinstance(content, str):
            content = [content]
        for item in content:
            if isinstance(item, str):
                item = {section: item}
            sections.setdefault(section, []).extend(item.items())
    return sections


def describe(text: str) -> str:
    """Return what a page is about in one line, as plain text.

    That is its first sentence; or its title, where this is an explanation or
    the page says first which tool wrote it.

    Args:
        text (str): Markdown.
    """
    title = re.match('# (.*)', text)[1]
    sentence = first_sentence(text)
    says_more = ': ' in title or sentence.startswith('Written by')
    return title + '.' if says_more else sentence


def first_sentence(text: str) -> str:
    """Return the first sentence of a page below its title, as plain text.

    Args:
        text (str): Markdown.
    """
    for paragraph in re.split(r'\n\s*\n', text):
        words = ' '.join(paragraph.split())
        if not re.match(r'#|\||```|!\[|- |<!--|:::', words):
            break
    words = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', words)
    words = words.replace('``', '`').replace('**', '')
    return re.split(r'(?<=[.:]) (?=[A-Z])', words)[0].rstrip(':. ') + '.'


def write_index() -> str:
    """Return the text of the index."""
    parts = [HEAD]
    for section, pages in read_nav().items():
        parts.append(f'\n## {section}\n\n')
        for title, page in pages:
            text = (DOCS / page).read_text(encoding='utf-8')
            parts.append(f'- [{title}]({page}): {describe(text)}\n')
    return ''.join(parts)


if __name__ == '__main__':
    INDEX.write_text(write_index(), encoding='utf-8')
