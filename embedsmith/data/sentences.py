"""Where sentences and words may be cut, in scripts with spaces and without; and texts cut to a budget of tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

Tokens = Callable[[str], int]
"""A text in, how many tokens a model makes of it out."""


@runtime_checkable
class Span(Protocol):
    """What is not cut any more: a part of a text, with the number of its tokens."""

    @property
    def start(self) -> int:
        """Offset of its first character."""

    @property
    def end(self) -> int:
        """Offset behind its last character."""

    @property
    def tokens(self) -> int:
        """How many a model makes of it."""


class _Sentence(NamedTuple):
    """A sentence, or a part of one that is too long."""

    start: int
    end: int
    tokens: int


Piece = TypeVar("Piece", bound=Span)

_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’»)\]]*\s+(?=[^a-z\s])|[。！？]+[」』）]*\s*|[।؟]+\s+|\n+")
"""Where a sentence ends, with what stands between it and the next one; not where lower case goes on: `e.g. so`."""

_WORD = re.compile(r"\S+\s*")
_SHORT = 32
"""Characters of a run without borders that is kept together."""

_SPACELESS = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def sentences(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of each sentence; the blanks between two are in neither.

    >>> text = "A cat sat, e.g. here. It purred! 猫が座る。犬は走る。"
    >>> [text[start:end] for start, end in sentences(text)]
    ['A cat sat, e.g. here.', 'It purred!', '猫が座る。', '犬は走る。']
    """
    spans, start = [], 0
    for found in [*_END.finditer(text), None]:
        end = found.end() if found else len(text)
        said = text[start:end]
        if said.strip():
            spans.append((start + len(said) - len(said.lstrip()), start + len(said.rstrip())))
        start = end
    return spans


def pieces(text: str, limit: int, tokens: Tokens) -> list[tuple[int, int]]:
    """Return (start, end) of parts of a text that have at most `limit` tokens, cut between words where there are any.

    A single character that has more tokens than the limit is a part by itself.

    >>> text = "unbelievably good cats"
    >>> [text[start:end] for start, end in pieces(text, 12, len)]
    ['unbelievably', 'good cats']
    >>> [text[start:end] for start, end in pieces(text, 8, len)]
    ['unbeliev', 'ably', 'good', 'cats']
    """
    units = _units(text, limit, tokens)
    found: list[tuple[int, int]] = []
    first = 0
    while first < len(units):
        start, last, count = units[first][0], first, units[first][2]
        while last + 1 < len(units) and count + units[last + 1][2] <= limit:
            last += 1
            count += units[last][2]
        # Two words may have more tokens together than each by itself; seldom.
        while last > first and tokens(text[start : units[last][1]].rstrip()) > limit:
            last -= 1
        found.append((start, start + len(text[start : units[last][1]].rstrip())))
        first = last + 1
    return found


def _units(text: str, limit: int, tokens: Tokens) -> list[tuple[int, int, int]]:
    """Return (start, end, tokens) of each word, or of parts of words that are too long or have no borders."""
    units: list[tuple[int, int, int]] = []
    for word in _WORD.finditer(text):
        start, end = word.span()
        count = tokens(word[0].rstrip())
        if count <= limit and (_SPACELESS.search(word[0]) is None or len(word[0]) < _SHORT):
            units.append((start, end, count))
            continue
        while start < end:
            stop = _longest(text, start, end, limit, tokens)
            units.append((start, stop, tokens(text[start:stop].rstrip())))
            start = stop
    return units


def _longest(text: str, start: int, end: int, limit: int, tokens: Tokens) -> int:
    """Return the end of a beginning that has at most `limit` tokens, found by halves; of one character at least."""
    low, high = start + 1, min(end, start + 64 * limit + 64)
    while low < high:
        middle = (low + high + 1) // 2
        if tokens(text[start:middle].rstrip()) <= limit:
            low = middle
        else:
            high = middle - 1
    return low


def parts(text: str, limit: int, tokens: Tokens, *, overlap: int = 0) -> list[tuple[int, int]]:
    """Return (start, end) of the parts of a text that have at most `limit` tokens, cut between sentences.

    A sentence that is longer than a part is cut between words. A text of blanks alone has one part, itself.

    Args:
        text: that is cut.
        limit: tokens of a part, at most.
        tokens: a text in, how many tokens a model makes of it out.
        overlap: tokens of whole sentences, at most, that a part has in common with the one before it.

    >>> text = "A cat sat. It purred! Then it slept for a long time."
    >>> [text[start:end] for start, end in parts(text, 24, len)]
    ['A cat sat. It purred!', 'Then it slept for a long', 'time.']
    >>> text = "One. Two. Three. Four."
    >>> [text[start:end] for start, end in parts(text, 13, len, overlap=7)]
    ['One. Two.', 'Two. Three.', 'Three. Four.']
    """
    if tokens(text) <= limit:
        return [(0, len(text))]
    cut: list[_Sentence] = []
    for start, end in sentences(text):
        count = tokens(text[start:end])
        spans = [(0, end - start)] if count <= limit else pieces(text[start:end], limit, tokens)
        for first, last in spans:
            cut.append(_Sentence(start + first, start + last, tokens(text[start + first : start + last])))

    def repeated(run: Sequence[_Sentence], room: int) -> list[_Sentence]:
        taken: list[_Sentence] = []
        for sentence in reversed(run[1:]):
            room -= sentence.tokens + 1
            if room < 0:
                break
            taken.insert(0, sentence)
        return taken

    found = runs(text, cut, limit, tokens, overlap=overlap, repeated=repeated)
    return [(run[0].start, run[-1].end) for run in found] or [(0, len(text))]


def runs(
    text: str,
    cut: Sequence[Piece],
    limit: int,
    tokens: Tokens,
    *,
    overlap: int,
    repeated: Callable[[Sequence[Piece], int], list[Piece]],
) -> Iterator[list[Piece]]:
    """Yield pieces of a text in runs of at most `limit` tokens, in order.

    Args:
        text: that the pieces are of.
        cut: what is not cut any more, each of at most `limit` tokens.
        limit: tokens of a run, what stands between its pieces included.
        tokens: a text in, how many tokens a model makes of it out.
        overlap: tokens that a run may repeat of the one before it; 0 for none.
        repeated: (the run before, room in tokens) -> what the next run begins with.
    """
    run: list[Piece] = []
    count = 0
    for piece in cut:
        # One for what stands between two pieces; what the parts add up to is looked at once more below.
        if run and count + piece.tokens + 1 > limit:
            yield run
            run = repeated(run, min(overlap, limit - piece.tokens - 1)) if overlap else []
            count = sum(one.tokens + 1 for one in run)
        run.append(piece)
        count += piece.tokens + 1
        if len(run) > 1 and count > 0.9 * limit and tokens(text[run[0].start : run[-1].end]) > limit:
            yield run[:-1]
            run, count = [piece], piece.tokens + 1
    if run:
        yield run
