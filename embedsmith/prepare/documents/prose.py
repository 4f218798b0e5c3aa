"""Plain text: paragraphs, headings that are underlined or numbered, items, and what is laid out with blanks.

The lines that stand at the top or the bottom of every page (of an RFC, of a PDF) are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code

_UNDERLINE = re.compile(r"^\s*([=\-~^*#+])\1{2,}\s*$")
_NUMBERED = re.compile(r"^(\d{1,2}(?:\.\d{1,2})*)\.?\s+(?=\S*[^\W\d_])")
_ITEM = re.compile(r"^\s*(?:[-*+•‣◦–]|\(?\d{1,3}[.)]|[a-z][.)])\s+")
_PAGE_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b")
_LONGEST_HEADING = 80
_LEVELS = {"=": 1, "#": 1, "*": 1, "-": 2, "~": 3, "^": 4, "+": 4}


def read_prose(text: str) -> list[Block]:
    """Return the blocks of a plain text."""
    pages = [page.split("\n") for page in text.split("\f")]
    lines = [line for page in without_running_lines(pages) for line in page] if len(pages) > 2 else text.split("\n")
    return [block for paragraph in _paragraphs(lines) for block in _blocks(paragraph)]


def without_running_lines(pages: Sequence[list[str]]) -> list[list[str]]:
    """Return pages without the lines at their top and bottom that recur on others, whatever numbers are in them.

    >>> without_running_lines([["My book", "a", "Page 1"], ["My book", "b", "Page 2"], ["My book", "c", "Page 3"]])
    [['a'], ['b'], ['c']]
    """
    filled = [[line for line in page if line.strip()] for page in pages]
    seen = Counter(
        key for page in filled for key in {_PAGE_NUMBER.sub("0", line.strip()) for line in (*page[:2], *page[-2:])}
    )
    often = {key for key, count in seen.items() if count >= max(3, 0.3 * len(pages))}
    kept = [_without_edges(page, often) for page in pages]
    # Pages of a line or two that are all alike have nothing but edges.
    return kept if any(line.strip() for page in kept for line in page) else [list(page) for page in pages]


def _without_edges(page: list[str], running: set[str]) -> list[str]:
    """Return a page without running lines among the first two and the last two that are not empty."""
    places = [place for place, line in enumerate(page) if line.strip()]
    edges = {*places[:2], *places[-2:]}
    return [
        line
        for place, line in enumerate(page)
        if place not in edges or _PAGE_NUMBER.sub("0", line.strip()) not in running
    ]


def _paragraphs(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the runs of lines that are not empty."""
    run: list[str] = []
    for line in lines:
        if line.strip():
            run.append(line)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _blocks(lines: list[str]) -> Iterator[Block]:
    """Yield the blocks of a run of lines."""
    if len(lines) >= 2 and (mark := _UNDERLINE.match(lines[1])) and len(lines[0].strip()) <= _LONGEST_HEADING:
        yield heading(lines[0], _LEVELS[mark[1]])
        lines = lines[2:]
    elif len(lines) == 1 and (level := _heading_level(lines[0].strip())):
        yield heading(lines[0], level)
        return
    if not lines:
        return
    if is_laid_out(lines):
        yield Block("code", lines_of_code("\n".join(lines)))
        return
    starts = [place for place, line in enumerate(lines) if _ITEM.match(line)]
    if not starts or (starts[0] > 0 and len(starts) < 2):
        yield Block("paragraph", line_of("\n".join(lines)))
        return
    if starts[0] > 0:
        yield Block("paragraph", line_of("\n".join(lines[: starts[0]])))
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Block("item", line_of(_ITEM.sub("", "\n".join(lines[start:end]), count=1)))


def _heading_level(line: str) -> int:
    """Return the level of a line that stands alone, 0 where it is no heading.

    >>> _heading_level("3.1 Opening a file"), _heading_level("SEE ALSO"), _heading_level("It was late.")
    (2, 1, 0)
    """
    if len(line) > _LONGEST_HEADING or line[-1:] in ".,;" or not any(letter.isalpha() for letter in line):
        return 0
    if number := _NUMBERED.match(line):
        return number[1].count(".") + 1
    return 1 if line.isupper() and line[0].isalpha() and len(line) > 3 else 0


def is_laid_out(lines: Sequence[str]) -> bool:
    """Tell whether lines are a table, a drawing or code, so that their blanks and line ends mean something."""
    text = "".join(lines)
    visible = sum(not letter.isspace() for letter in text)
    letters = sum(letter.isalnum() for letter in text)
    gaps = sum(bool(re.search(r"\S(?: {3,}|\t)\S", line)) for line in lines)
    return visible > 0 and (letters < 0.55 * visible or (len(lines) > 1 and gaps > 0.5 * len(lines)))
