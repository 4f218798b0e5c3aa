"""Where sentences and words may be cut, in scripts with spaces and without."""

from __future__ import annotations

import re
from collections.abc import Callable

Tokens = Callable[[str], int]
"""A text in, how many tokens a model makes of it out."""

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
