"""Labels and scores: how a value is read. Every reader of labelled data reads values by `label_of` and `score_of`."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

from embedsmith.data.bad_rows import Misread, Unusable, kind

INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LISTED = re.compile(r"""\s*\[\s*(\]|['"{].*\])\s*""", re.DOTALL)
_OBJECT = re.compile(
    r"""\s*\{\s*['"](text|title|content|passage|document|_?id|doc_?id|score)['"]\s*:.*\}\s*""", re.DOTALL
)


def label_of(value: Any) -> str:
    """Return the name of a label, the same however its number is written.

    >>> [label_of(value) for value in ("card_arrival", " sport", 3, 1.0, True, "1.0", "true")]
    ['card_arrival', 'sport', '3', '1', '1', '1', '1']

    Raises:
        Unusable: it is empty, not finite, or neither a text nor a number.
        Misread: it is a fraction, which is a score, or a list in the form of a text.
    """
    number = number_in(value)
    if number is None and isinstance(value, str) and value.strip():
        if is_listed(value):
            raise Misread(
                f"the label is {short(value)}, a list that was written as a text",
                reason="a list in a text",
                hint="write JSON lines or Parquet, which hold lists, or one label a row",
            )
        return value.strip()
    if number is None or not math.isfinite(number):
        what = "an empty text" if isinstance(value, str) and not value.strip() else got(value)
        raise Unusable(
            f"the label is {what}, wanted a name or a whole number", reason="no label", hint="give every row one label"
        )
    if number != int(number):
        raise Misread(
            f"the label is {short(value)}, a fraction: is this a score?",
            reason="a fraction as a label",
            hint="scores are for --task sts; name the column of the labels, or give classes names that are no numbers",
        )
    return str(int(number))


def score_of(value: Any) -> float:
    """Return a score, which may be written as a text, as CSV has it.

    >>> score_of("4.5"), score_of(" 3 "), score_of(True)
    (4.5, 3.0, 1.0)

    Raises:
        Unusable: it is no number, or not finite.
    """
    number = number_in(value)
    if number is None and isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        number = float(value.strip())  # zeros in front are no name here
    if number is None or not math.isfinite(number):
        raise Unusable(
            f"the score is {got(value)}, wanted a number", reason="no score", hint="give every pair a finite score"
        )
    return float(number)


def is_listed(text: str) -> bool:
    """Return whether a text is a list or an object that was written as a text, as pandas writes lists into CSV.

    >>> is_listed("['a', 'b']"), is_listed('["a","b"]'), is_listed("{'text': 'a'}"), is_listed("[1] Smith")
    (True, True, True, False)
    """
    return _LISTED.fullmatch(text) is not None or _OBJECT.fullmatch(text) is not None


def number_in(value: Any) -> int | float | None:
    """Return the number that a value stands for, None where it is a name or nothing of use.

    >>> number_in(True), number_in("2.0"), number_in("false"), number_in("007"), number_in("1_000")
    (1, 2.0, 0, None, None)
    """
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float | Decimal):
        return float(value)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.casefold() in ("true", "false"):
        return int(text.casefold() == "true")
    if INTEGER.fullmatch(text):
        # Longer ones are ids; int() would refuse those of more than 4,300 digits.
        return int(text) if len(text) < 20 else None
    is_padded = re.match(r"[+-]?0[0-9]", text)
    if (NUMBER.fullmatch(text) and not is_padded) or _NOT_FINITE.fullmatch(text):
        return float(text)
    return None


def got(value: Any) -> str:
    """Return what stands in the place of a value that is wanted, for a message."""
    return repr(value) if isinstance(value, str | float) else kind(value)


def short(value: Any) -> str:
    """Return a value as it is written, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
