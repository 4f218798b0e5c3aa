"""Grades of judgements: how relevant a passage is, as a whole number."""

from __future__ import annotations

from typing import Any

from embedsmith.data.bad_rows import Misread, Unusable
from embedsmith.data.labels import NUMBER, got, number_in, score_of, short
from embedsmith.data.pair_labels import MEANINGS, Relation, folded

MAX_GRADE = 1_000_000
"""The highest grade of a judgement: trec_eval counts the passages of every grade below the highest."""


def grade_of(value: Any, column: str, relevant_from: float | None = None) -> int:
    """Return how relevant the passage of a pair is: 0 is not, more is.

    Args:
        value: of the pair's column of relevance.
        column: its name, for messages.
        relevant_from: from where on a passage is relevant, as 1; None for whole numbers from 0 on.

    >>> grade_of("2.0", "label"), grade_of(False, "label"), grade_of(0.7, "score", 0.5), grade_of("relevant", "label")
    (2, 0, 1, 1)

    Raises:
        Unusable: there is no finite number.
        Misread: it is an unknown word, a fraction or below 0, so that nothing says what is relevant.
    """
    ignore = f"or ignore the column: --relevance-column none; --relevance-column names another than {column}"
    if isinstance(value, str) and value.strip() and number_in(value) is None and not NUMBER.fullmatch(value.strip()):
        meaning = MEANINGS.get(folded(value))
        if meaning is not None and meaning.relation is not Relation.MIGHT:
            return int(meaning.relation is Relation.ANSWERS)
        raise Misread(
            f'"{column}" is {short(value)}, wanted a number that says how relevant the passage is',
            reason="the relevance is a word",
            hint=f"write 0 for not relevant and 1 or more else, {ignore}",
        )
    try:
        number = score_of(value)
    except Unusable:
        raise Unusable(
            f'"{column}" is {got(value)}, wanted a number that says how relevant the passage is',
            reason="no relevance",
            hint="write 0 for not relevant and 1 or more else, or remove the row",
        ) from None
    if relevant_from is not None:
        return int(number >= relevant_from)
    if number < 0 or number != int(number):
        raise Misread(
            f'"{column}" is {short(value)}, wanted 0 for not relevant, or a whole number above',
            reason="the relevance is no whole number from 0 on",
            hint=f"say from where on a passage is relevant: --relevant-from 0.5, {ignore}",
        )
    if number > MAX_GRADE:
        raise Unusable(
            f'"{column}" is {short(value)}, wanted {MAX_GRADE:,} at most',
            reason="the relevance is too large",
            hint="write grades, such as 0 to 3",
        )
    return int(number)
