"""What every reader makes of a file: blocks in the order of reading, each with what it is.

The text of a document is its blocks with an empty line between; offsets are characters of that text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

Kind: TypeAlias = Literal["heading", "paragraph", "item", "code", "row"]

BETWEEN = "\n\n"
"""What stands between two blocks."""

_KINDS = get_args(Kind)
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3000-\u303f\uff00-\uffef"
_BROKEN_CJK = re.compile(rf"(?<=[{_CJK}])[ \t]*\n[ \t]*(?=[{_CJK}])")
_CONTROLS = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\ufeff\ud800-\udfff]")
_SECTION_NUMBER = re.compile(
    r"^(?:(?:chapter|section|part|appendix|kapitel)\s+)?(?:\d+|[A-Z](?=\.\d))(?:\.\d+)*\.?[ :)]\s*"
    r"|^第\s*\d+\s*[章節部回]\s*",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One piece of a document."""

    kind: Kind
    text: str
    """One line, but for code."""
    level: int = 0
    """Of a heading, from 1."""
    page: int | None = None
    """From 1, where the file has pages."""
    label: str = ""
    """What the block answers, where the document says so: the comment of code, the term at the head of a definition."""
    links: tuple[tuple[str, str], ...] = ()
    """(text, where to) of each link."""
    anchors: tuple[str, ...] = ()
    """Names by which links lead here."""

    def plain(self) -> list[Any]:
        """Return the block as JSON holds it; see `block_of`."""
        return [self.kind, self.text, self.level, self.page, self.label, self.links, self.anchors]


def block_of(plain: list[Any]) -> Block:
    """Return the block that `Block.plain` wrote.

    >>> block_of(Block("item", "a cat", links=(("cat", "cats.md"),)).plain()).links
    (('cat', 'cats.md'),)
    """
    kind, text, level, page, label, links, anchors = plain
    assert kind in _KINDS
    return Block(kind, text, level, page, label, tuple((said, to) for said, to in links), tuple(anchors))


@dataclass(frozen=True, slots=True)
class Placed:
    """A block in its document."""

    block: Block
    start: int
    """Offset of its first character."""
    path: tuple[str, ...]
    """The headings that it stands under, from the outermost; a heading stands under itself."""

    @property
    def end(self) -> int:
        """Offset behind its last character."""
        return self.start + len(self.block.text)


@dataclass(frozen=True)
class Document:
    """A file that was read."""

    file: str
    """Path relative to the folder, with slashes."""
    text: str
    blocks: tuple[Placed, ...]
    is_whole: bool = True
    """False where the file is longer than what is read of one."""

    @classmethod
    def of(cls, file: str, blocks: Iterable[Block], *, is_whole: bool = True) -> Document:
        """Return blocks at their places; empty ones are left out.

        >>> document = Document.of("a.md", [Block("heading", "Cats", 1), Block("paragraph", "They purr.")])
        >>> document.text, document.blocks[1].start, document.blocks[1].path
        ('Cats\\n\\nThey purr.', 6, ('Cats',))
        """
        placed: list[Placed] = []
        open_headings: list[tuple[int, str]] = []
        path: tuple[str, ...] = ()
        start = 0
        for block in blocks:
            if not block.text.strip():
                continue
            if block.kind == "heading":
                open_headings = [(level, text) for level, text in open_headings if level < block.level]
                open_headings.append((block.level, block.text))
                path = tuple(text for _, text in open_headings)
            placed.append(Placed(block, start, path))
            start += len(block.text) + len(BETWEEN)
        return cls(file, BETWEEN.join(one.block.text for one in placed), tuple(placed), is_whole)


@dataclass(frozen=True)
class Unread:
    """A file or folder that was not read."""

    path: str
    reason: str


def line_of(text: str) -> str:
    """Return a text on one line, without control characters; lines of a script without spaces are joined without one.

    >>> line_of("a  cat\\n sat\\x00"), line_of("猫が\\n座る")
    ('a cat sat', '猫が座る')
    """
    return " ".join(_BROKEN_CJK.sub("", without_controls(text)).split())


def lines_of_code(text: str) -> str:
    """Return lines as they stand, without control characters, empty lines at the ends and blanks behind lines."""
    lines = [line.rstrip() for line in without_controls(text.expandtabs(4)).splitlines()]
    return "\n".join(lines).strip("\n")


def without_controls(text: str) -> str:
    """Return a text without characters that are not shown, and that no file of UTF-8 can hold."""
    return _CONTROLS.sub("", text)


def heading(text: str, level: int, **more: Any) -> Block:
    """Return a heading without its section number and the marks of links behind it.

    >>> heading("4.2.1. Partitioning a disk ¶", 3).text
    'Partitioning a disk'
    """
    said = line_of(text).rstrip(" ¶#")
    return Block("heading", _SECTION_NUMBER.sub("", said, count=1) or said, max(1, level), **more)
