"""Long documents cut into passages, at the ends of sentences."""

from __future__ import annotations

import math
import re

_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』）]*\s*|\n+")
"""Where a sentence ends, with what stands between it and the next one."""


def beginning(text: str, limit: int) -> str:
    """Return at most `limit` characters of a text, to the end of the last sentence that is whole.

    >>> beginning("A cat sat. It purred! Then it slept.", 24), beginning("unbelievable cat", 6)
    ('A cat sat. It purred!', 'unbeli')
    """
    text = text.strip()
    return text if len(text) <= limit else text[: _place(text, limit, least=limit)].rstrip()


def cut(text: str, limit: int) -> list[str]:
    """Return a text in parts of at most `limit` characters, of about the same length, that end where sentences do.

    A sentence that is longer than a part is cut between words, and a word that is longer wherever it must be.

    >>> cut("A cat sat. It purred! Then it slept.", 24)
    ['A cat sat. It purred!', 'Then it slept.']
    >>> cut("A cat sat.", 24), cut("unbelievable cat", 6)
    (['A cat sat.'], ['unbeli', 'evable', 'cat'])
    """
    parts: list[str] = []
    text, start = text.strip(), 0
    while (left := len(text) - start) > limit:
        # No more than the window is copied: a book has many parts.
        at = _place(text[start : start + limit + 1], limit, least=left / math.ceil(left / limit))
        parts.append(text[start : start + at].rstrip())
        start += at
        while start < len(text) and text[start].isspace():
            start += 1
    return [*parts, text[start:]] if start < len(text) else parts


def _place(text: str, limit: int, *, least: float) -> int:
    """Return where to cut a text that is longer than `limit`: behind the first sentence that ends at `least` or later,
    else behind the last one, else between words, else at the limit.
    """  # noqa: D205
    # The blank behind the last sentence of a part does not count.
    window = text[: limit + 1]
    ends = [end.end() for end in _END.finditer(window) if len(text[: end.end()].rstrip()) <= limit]
    at = next((end for end in ends if end >= least), ends[-1]) if ends else window.rfind(" ")
    return at if at > 0 else limit
