"""Passages: documents cut at their structure, to a budget of tokens.

A passage is a run of a document's text that crosses no heading. It ends where a block does, else where a sentence does;
code and rows are cut, between lines, only where one of them alone is too long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, TypeAlias

from embedsmith.data.sentences import Tokens, pieces, runs, sentences
from embedsmith.prepare.documents.blocks import Document, Kind, Placed
from embedsmith.prepare.documents.settings import PassageSettings

PassageKind: TypeAlias = Literal["", "rows", "code"]
_ALL_OF: dict[frozenset[Kind], PassageKind] = {frozenset({"row"}): "rows", frozenset({"code"}): "code"}


@dataclass(frozen=True)
class Passage:
    """A part of a document."""

    file: str
    text: str
    """The document's text from `start` to `end`."""
    path: tuple[str, ...]
    """The headings that it stands under, from the outermost."""
    front: tuple[str, ...]
    """Those of them that may stand before it: the innermost ones that take at most half of the budget."""
    start: int
    end: int
    page: int | None
    """Of its beginning, from 1, where the file has pages."""
    section: int
    """Which heading it stands under, counted from 1; 0 before the first."""
    kind: PassageKind = ""
    """What is all of it; empty where it has prose."""
    blocks: tuple[Placed, ...] = field(default=(), repr=False)
    """Those that begin or go on in it, as long as its document is at hand."""


def in_front(path: Sequence[str]) -> str:
    """Return headings as they stand before a passage; one that repeats the one above it stands there once.

    >>> in_front(["Cats", "Cats", "Food"]), in_front([])
    ('Cats > Food\\n', '')
    """
    said = [one for place, one in enumerate(path) if not place or one != path[place - 1]]
    return " > ".join(said) + "\n" if said else ""


@dataclass(frozen=True)
class _Piece:
    """What is not cut any more."""

    start: int
    end: int
    block: Placed
    tokens: int


def passages_of(document: Document, settings: PassageSettings, tokens: Tokens) -> list[Passage]:
    """Return the passages of a document in their order.

    Args:
        document: that is cut.
        settings: how long passages are; what they have of their headings in front counts too, up to half of that.
        tokens: a text in, how many tokens a model makes of it out.
    """
    found: list[Passage] = []
    for number, blocks in enumerate(_sections(document)):
        front = _front(blocks, settings, tokens)
        limit = max(1, settings.limit - (tokens(in_front(front)) if front else 0))
        cut = [piece for block in blocks for piece in _pieces(block, limit, tokens)]
        repeated = partial(_repeated, tokens=tokens)
        own = runs(document.text, cut, limit, tokens, overlap=settings.overlap_tokens, repeated=repeated)
        found += [_passage(document, run, number, front) for run in own]
    return found


def _front(blocks: Sequence[Placed], settings: PassageSettings, tokens: Tokens) -> tuple[str, ...]:
    """Return the headings that stand before the passages of a section."""
    path = blocks[0].path if settings.heading_path and blocks else ()
    while path and tokens(in_front(path)) > settings.limit // 2:
        path = path[1:]
    return path


def _sections(document: Document) -> Iterator[list[Placed]]:
    """Yield the blocks before the first heading, then those under each heading, without it; there may be none."""
    own: list[Placed] = []
    for one in document.blocks:
        if one.block.kind == "heading":
            yield own
            own = []
        else:
            own.append(one)
    yield own


def _pieces(one: Placed, limit: int, tokens: Tokens) -> list[_Piece]:
    """Return a block in pieces that fit: itself, its sentences, its lines, or parts of these."""
    text = one.block.text
    whole = tokens(text)
    if whole <= limit:
        return [_Piece(one.start, one.end, one, whole)]
    spans = _lines(text) if one.block.kind == "code" else sentences(text)
    found = []
    for start, end in spans:
        count = tokens(text[start:end])
        parts = [(0, end - start)] if count <= limit else pieces(text[start:end], limit, tokens)
        for first, last in parts:
            said = text[start + first : start + last]
            found.append(_Piece(one.start + start + first, one.start + start + last, one, tokens(said)))
    return found


def _lines(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each line that is not empty."""
    spans, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            spans.append((start, start + len(line)))
        start += len(line) + 1
    return spans


def _repeated(run: Sequence[_Piece], room: int, *, tokens: Tokens) -> list[_Piece]:
    """Return the sentences at the end of a passage's last piece that have room in the next one; never all of them."""
    last = run[-1]
    if last.block.block.kind not in ("paragraph", "item"):
        return []
    text = last.block.block.text[last.start - last.block.start : last.end - last.block.start]
    taken: list[_Piece] = []
    for start, end in reversed(sentences(text)[1:]):
        count = tokens(text[start:end])
        room -= count + 1
        if room < 0:
            break
        taken.insert(0, _Piece(last.start + start, last.start + end, last.block, count))
    return taken


def _passage(document: Document, run: Sequence[_Piece], section: int, front: tuple[str, ...]) -> Passage:
    start, end = run[0].start, run[-1].end
    blocks = tuple(dict.fromkeys(piece.block for piece in run))
    first = blocks[0]
    return Passage(
        file=document.file,
        text=document.text[start:end],
        path=first.path,
        front=front,
        start=start,
        end=end,
        page=first.block.page,
        section=section,
        kind=_ALL_OF.get(frozenset(one.block.kind for one in blocks), ""),
        blocks=blocks,
    )
