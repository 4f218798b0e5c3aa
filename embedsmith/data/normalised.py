"""When two texts are the same: for exclusion, splits, contamination and false in-batch negatives."""

from __future__ import annotations

import re
import unicodedata

_MARKS_IN_A_ROW = 30
_MANY_MARKS = re.compile(rf"[^\w\x00-\x7f]{{{_MARKS_IN_A_ROW}}}")
"""What may be that many marks: they are no letters and not ASCII."""


def normalised(text: str) -> str:
    """Return a text without differences of case, width and white space.

    Two texts that are equal after this are the same text for exclusion, splits and false in-batch negatives.

    >>> normalised("  The\\n CAT ") == normalised("the cat")
    True
    """
    return " ".join(composed(text).casefold().split())


def composed(text: str) -> str:
    """Return a text in Unicode's form NFKC, in time that grows as its length does.

    Marks above and below a letter are put in order, which takes the square of how many there are: after 30 of them in a
    row others are ordered by themselves.

    Source: Unicode Standard Annex 15, section 12.1, the Stream-Safe Text Process, but for the joiner that it inserts.
    """
    if not _MANY_MARKS.search(text):
        return unicodedata.normalize("NFKC", text)
    pieces, marks, start = [], 0, 0
    for place, letter in enumerate(text):
        marks = marks + 1 if unicodedata.combining(letter) else 0
        if marks > _MARKS_IN_A_ROW:
            pieces.append(unicodedata.normalize("NFKC", text[start:place]))
            marks, start = 1, place
    return "".join([*pieces, unicodedata.normalize("NFKC", text[start:])])
