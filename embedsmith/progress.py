"""Progress of long work, as a callback; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called again and again while a piece of work goes on."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take note that `done` of `total` of the work called `what` is done."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Take no note."""


class Pieces:
    """Tells pieces of work of one name apart: of another data set, say."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}

    def begins(self, what: str, done: int, total: int) -> bool:
        """Return whether this call is the first of a piece of work.

        >>> begins = Pieces().begins
        >>> begins("encode", 0, 9), begins("encode", 9, 9), begins("encode", 0, 9), begins("encode", 5, 20)
        (True, False, True, True)
        """
        before, of = self._last.get(what, (0, -1))
        self._last[what] = done, total
        return total != of or done < before
