"""When two texts are the same: for exclusion, splits, contamination and false in-batch negatives."""

from __future__ import annotations

import unicodedata


def normalised(text: str) -> str:
    """Return a text without differences of case, width and white space.

    Two texts that are equal after this are the same text for exclusion, splits and false in-batch negatives.

    >>> normalised("  The\\n CAT ") == normalised("the cat")
    True
    """
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
