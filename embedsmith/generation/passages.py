"""Long documents cut into passages, at the ends of sentences."""

from __future__ import annotations

import math
import re

_END = re.compile(r"[.!?…]+[\"'”’»)\]]*\s+|[。！？]+[」』）]*\s*|\n+")
"""Where a sentence ends, with what stands between it and the next one."""


def cut(text: str, limit: int) -> list[str]:
    """Return a text in parts of at most `limit` characters, of about the same length, that end where sentences do.

    A sentence that is longer than a part is cut between words, and a word that is longer wherever it must be.

    >>> cut("A cat sat. It purred! Then it slept.", 24)
    ['A cat sat. It purred!', 'Then it slept.']
    >>> cut("A cat sat.", 24), cut("unbelievable cat", 6)
    (['A cat sat.'], ['unbeli', 'evable', 'cat'])
    """
    parts = []
    rest = text.strip()
    while len(rest) > limit:
        # The blank behind the last sentence of a part does not count.
        window = rest[: limit + 1]
        ends = [end.end() for end in _END.finditer(window) if len(rest[: end.end()].rstrip()) <= limit]
        even = len(rest) / math.ceil(len(rest) / limit)
        at = next((end for end in ends if end >= even), ends[-1]) if ends else window.rfind(" ")
        at = at if at > 0 else limit
        parts.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [*parts, rest] if rest else parts
