"""Source code: what is documented in it, each piece with its comment.

Python is read as the code harvest reads it. Of other languages pygments knows the comments; it is BSD, kept well, and
rich brings it along. (tree-sitter would know the functions too, and its grammars take 100 MB.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from embedsmith.prepare.documents.blocks import Block, heading, line_of, lines_of_code
from embedsmith.prepare.documents.limits import Unreadable
from embedsmith.prepare.first_sentence import first_sentence
from embedsmith.prepare.functions import Skipped, functions_in

_MARKS = re.compile(r"^\s*(?:/\*+!?|\*+/|\*(?!/)|//+!?|#+|--+|;+|%+|<!--|-->|\(\*|\"{3}|'{3})?\s?|\s*\*+/\s*$")
_MOST_LINES = 60
"""Of the code behind a comment."""


def read_python(content: bytes, file: str) -> list[Block]:
    """Return each documented function, with what it does as its label.

    Args:
        content: of the file, unpacked.
        file: its path from the folder, which ends in `.py`: functions have their module's name before them.

    Raises:
        Unreadable: it cannot be parsed.
    """
    found = functions_in(content, file)
    if isinstance(found, Skipped):
        place = "" if found.line is None else f"line {found.line}: "
        raise Unreadable(f"{place}{found.reason}")
    blocks = []
    for function in found:
        blocks += [heading(function.name, 1), Block("code", lines_of_code(function.passage), label=function.query)]
    return blocks


def read_code(text: str, file: str) -> list[Block]:
    """Return the code behind each comment of a file, with the comment's first sentence as its label."""
    from pygments.lexers import get_lexer_for_filename
    from pygments.token import Comment, String
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_for_filename(file, stripnl=False)
    except ClassNotFound:
        raise Unreadable("no language that is known by its name") from None
    comments: set[int] = set()
    others: set[int] = set()
    line = 0
    for kind, said in lexer.get_tokens(text):
        is_comment = (kind in Comment and kind not in Comment.Preproc) or kind in String.Doc
        for piece in said.splitlines(keepends=True):
            if piece.strip():
                (comments if is_comment else others).add(line)
            line += piece.endswith("\n")
    # A comment behind code is about its own line.
    return list(_commented(text.split("\n"), comments - others))


def _commented(lines: list[str], comments: set[int]) -> Iterator[Block]:
    place = 0
    while place < len(lines):
        start = place
        while place in comments:
            place += 1
        if place == start:
            place += 1
            continue
        code = _code_at(lines, place)
        said = "\n".join(_MARKS.sub("", line).rstrip() for line in lines[start:place]).strip()
        if code:
            yield Block("code", lines_of_code("\n".join(code)), label=first_sentence(said))
        elif said:
            yield Block("paragraph", line_of(said))


def _code_at(lines: list[str], start: int) -> list[str]:
    """Return the code that begins at a line: to the line that closes what it opens, or to an empty one."""
    if start >= len(lines) or not lines[start].strip():
        return []
    indent = len(lines[start]) - len(lines[start].lstrip())
    taken: list[str] = []
    for line in lines[start : start + _MOST_LINES]:
        own = len(line) - len(line.lstrip())
        if (
            not line.strip()
            and not any(mark in taken[-1] for mark in "{(")
            and _is_over(lines, start + len(taken), indent)
        ):
            break
        if taken and line.strip() and own < indent:
            break
        taken.append(line)
        if (len(taken) > 1 and own == indent and line.strip()[:1] in ("}", "]")) or line.strip() in ("end", "end;"):
            break
    return taken


def _is_over(lines: list[str], place: int, indent: int) -> bool:
    """Tell whether behind an empty line nothing is set in deeper than where the code began."""
    later = next((line for line in lines[place:] if line.strip()), "")
    return len(later) - len(later.lstrip()) <= indent and not later.strip().startswith("}")
