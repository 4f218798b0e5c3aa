"""Rows that cannot be used: one line that names the place and stops, or a count by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from embedsmith.errors import InputError


class Unusable(Exception):
    """What is wrong with a row, from code that does not know where the row stands; never leaves a reader."""

    def __init__(self, what: str, *, reason: str, hint: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.hint = hint


class Misread(Unusable):
    """A value that shows that its whole column is not what it is taken for: to skip the row would hide it."""


class BadRow(InputError):
    """A row that cannot be used.

    >>> str(BadRow("pairs.jsonl:3", Unusable('"query" is empty', reason="empty text", hint="remove the row")))
    'pairs.jsonl:3: "query" is empty'
    """

    def __init__(self, place: str, flaw: Unusable) -> None:
        super().__init__(f"{place}: {flaw}", hint=flaw.hint)
        self.reason = flaw.reason
        """A few words that bad rows of one kind share."""
        self.is_misread = isinstance(flaw, Misread)
        """Whether other rows of the column are wrong too, though they look right."""


OnBad = Callable[[BadRow], None]
"""Called with each bad row; the reader goes on behind it when the call returns."""


def refuse(row: BadRow) -> None:
    """Raise the first bad row."""
    raise row


class Tally:
    """Counts bad rows by reason, and remembers the first of each.

    >>> tally = Tally()
    >>> for line in (3, 7):
    ...     tally(BadRow(f"pairs.jsonl:{line}", Unusable('"query" is empty', reason="empty text", hint="")))
    >>> tally.lines()
    ['2 rows skipped for "empty text", the first: pairs.jsonl:3: "query" is empty']
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._first: dict[str, BadRow] = {}

    def __call__(self, row: BadRow) -> None:
        """Count a row.

        Raises:
            BadRow: its column is misread, so that the rows that are kept would be wrong.
        """
        if row.is_misread:
            raise row
        self.counts[row.reason] += 1
        self._first.setdefault(row.reason, row)

    def lines(self) -> list[str]:
        """Return one line a reason."""
        return [
            f'{count:,} row{"s" if count > 1 else ""} skipped for "{reason}", the first: {self._first[reason]}'
            for reason, count in self.counts.items()
        ]


def kind(value: Any) -> str:
    """Return what a reader of JSON calls a value.

    >>> kind(["a"]), kind(None), kind(3), kind({})
    ('a list', 'null', 'a number', 'an object')
    """
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")


def id_of(value: Any) -> str | None:
    """Return the id that a value stands for, None where it is none.

    >>> id_of("d 1"), id_of(31715818), id_of(True), id_of("")
    ('d 1', '31715818', None, None)
    """
    if isinstance(value, str):
        return value or None
    # Some published sets have numbers as ids, and the same numbers in the qrels; bool is an int to Python.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
