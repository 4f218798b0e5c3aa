"""How long work tells what it is doing; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called again and again while a piece of work goes on."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take note that `done` of `total` of the work called `what` is done."""


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Take no note."""
