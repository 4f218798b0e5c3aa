"""PDF, by pypdfium2: the text as PDFium, the library of Chrome, reads it, in paragraphs, with pages.

pypdfium2 is Apache-2.0 and BSD, kept well, 9 MB, and much faster than readers in Python. Lines that recur at the top or
the bottom of the pages are left out; columns come one after the other, as PDFium orders them. Headings are what the
outline names, and where there is none, lines that are larger than the others. Scripts and links are never followed.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code
from embedsmith.prepare.documents.limits import MAX_TEXT, Unreadable
from embedsmith.prepare.documents.prose import _ITEM, is_laid_out, without_running_lines

_LONGEST_HEADING = 120
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad]\n(?=[a-zß-ÿ])")
_CONTENTS = re.compile(r"(?:\. ?){4,}\s*\d*\s*$")
"""A line of a table of contents."""


@dataclass(frozen=True)
class _Line:
    text: str
    size: float
    """Height of the font in points."""
    left: float
    base: float
    """Where its first letter stands, from the page's bottom, in points."""
    end: float
    """Where its last letter stands."""


def read_pdf(content: bytes) -> list[Block]:
    """Return the blocks of a file.

    Raises:
        Unreadable: it is damaged, encrypted, or holds pictures of text only.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        raise Unreadable(_reason(str(error))) from None
    pages: list[list[_Line]] = []
    chars = 0
    for number in range(len(document)):
        try:
            pages.append(_lines(document[number]))
        except pypdfium2.PdfiumError:  # one page that is damaged
            pages.append([])
        chars += sum(len(line.text) for line in pages[-1])
        if chars > MAX_TEXT:
            break
    if chars < 20:
        raise Unreadable("no text in it: pictures of pages, perhaps")
    return _blocks(_without_running(pages), _outline(document))


def _reason(said: str) -> str:
    return "encrypted" if "password" in said.lower() else f"damaged: {said.splitlines()[0]}"


def _lines(page: Any) -> list[_Line]:
    """Return the lines of a page in the order of the file."""
    from pypdfium2 import raw

    text = page.get_textpage()
    chars = text.count_chars()
    lines, at = [], 0
    for piece in text.get_text_range().split("\n"):
        said = piece.rstrip()
        first, last = at + len(said) - len(said.lstrip()), at + len(said) - 1
        at += len(piece) + 1
        if said.strip() and last < chars:
            size = round(raw.FPDFText_GetFontSize(text, first) or 0, 1)
            (left, base), (_, end) = _origin(text, first), _origin(text, last)
            # PDFium joins two lines at a hyphen, for which it writes a character of its own.
            lines.append(_Line(said.replace("\ufffe", ""), size, left, base, end))
    return lines


def _origin(text: Any, place: int) -> tuple[float, float]:
    """Return where a character begins, and where it stands."""
    from pypdfium2 import raw

    left, base = ctypes.c_double(), ctypes.c_double()
    raw.FPDFText_GetCharOrigin(text, place, ctypes.byref(left), ctypes.byref(base))
    return left.value, base.value


def _without_running(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Return the pages without what stands at the top or the bottom of many."""
    kept = without_running_lines([[line.text for line in page] for page in pages])
    found = []
    for page, texts in zip(pages, kept, strict=True):
        left = iter(page)
        found.append([next(line for line in left if line.text == text) for text in texts])
    return [
        [line for line in page if not re.fullmatch(r"\s*[-–]?\s*(?:\d+|[ivxlc]+)\s*[-–]?\s*", line.text)]
        for page in found
    ]


def _outline(document: Any) -> dict[tuple[int, str], int]:
    """Return (page, letters of a title) -> level of each entry of the outline that names a page."""
    found = {}
    for entry in document.get_toc(max_depth=8):
        place = entry.get_dest()
        page = place.get_index() if place else None
        if page is not None:
            found[page, _letters(entry.get_title() or "")] = entry.level + 1
    return found


def _letters(text: str) -> str:
    """Return a title's letters and digits, without its number."""
    return re.sub(r"\W+", "", re.sub(r"^\W*(?:(?:chapter|appendix)\s)?[\dA-Z]?[\d.]*\s", "", text.lower(), flags=re.I))


def _blocks(pages: list[list[_Line]], outline: dict[tuple[int, str], int]) -> list[Block]:
    """Return the paragraphs and headings of the pages; a paragraph that goes over a page stays one."""
    sizes: Counter[float] = Counter()
    for page in pages:
        for line in page:
            sizes[line.size] += len(line.text)
    body = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if size > 1.15 * body and size >= body + 1), reverse=True)[:6]
    blocks: list[Block] = []
    run: list[_Line] = []
    first_page = 1

    def end() -> None:
        if run:
            blocks.extend(_paragraph(run, first_page))
            run.clear()

    for number, page in enumerate(pages):
        steps = [one.end - other.base for one, other in pairwise(page) if one.end > other.base]
        # The lower quarter: in short paragraphs most steps are those between two of them.
        usual = sorted(steps)[len(steps) // 4] if steps else 0.0
        place = 0
        while place < len(page):
            line = page[place]
            level, count = _heading(page[place : place + 3], number, outline, larger)
            if level:
                end()
                said = " ".join(one.text.strip() for one in page[place : place + count])
                blocks.append(heading(said, level, page=number + 1))
                place += count
                continue
            if run and _begins_anew(run, line, usual, is_new_page=place == 0):
                end()
            if not run:
                first_page = number + 1
            run.append(line)
            place += 1
    end()
    return blocks


def _heading(
    lines: list[_Line], page: int, outline: dict[tuple[int, str], int], larger: list[float]
) -> tuple[int, int]:
    """Return the level of the heading that lines begin with, and how many it takes; 0 for none."""
    if outline:
        for count in range(1, len(lines) + 1):
            said = "".join(line.text for line in lines[:count])
            if len(said) <= _LONGEST_HEADING * 2 and (level := outline.get((page, _letters(said)))):
                return level, count
        return 0, 0
    size = lines[0].size
    if size not in larger:
        return 0, 0
    count = next((place for place, line in enumerate(lines) if line.size != size), len(lines))
    said = " ".join(line.text.strip() for line in lines[:count])
    if len(said) > _LONGEST_HEADING or not any(letter.isalpha() for letter in said):
        return 0, 0
    return larger.index(size) + 1, count


def _begins_anew(run: list[_Line], line: _Line, usual: float, *, is_new_page: bool) -> bool:
    """Tell whether a line begins a paragraph behind others."""
    last = run[-1]
    ends = last.text.rstrip()[-1:] in '.!?:”"。！？'
    if is_new_page or line.base > last.end:  # another page, or another column
        return ends
    if _ITEM.match(line.text) or abs(line.size - last.size) > 1:
        return True
    if usual and last.end - line.base > 1.35 * usual:
        return True
    # The first line of a paragraph is set in, and the line before it ended a sentence.
    return ends and line.left - min(one.left for one in run) > 0.8 * (line.size or 10)


def _paragraph(run: list[_Line], page: int) -> list[Block]:
    lines = [line.text for line in run if not _CONTENTS.search(line.text)]
    if not lines:
        return []
    if is_laid_out(lines):
        return [Block("code", lines_of_code("\n".join(lines)), page=page)]
    said = line_of(_HYPHEN.sub("", "\n".join(line.rstrip() for line in lines)))
    is_item = bool(_ITEM.match(said))
    return [Block("item" if is_item else "paragraph", _ITEM.sub("", said, count=1) if is_item else said, page=page)]
