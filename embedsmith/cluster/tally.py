"""How many texts of the shards under way are encoded: the workers tell it, and the driver's bar asks.

Whoever has it loads nothing else.
"""

from __future__ import annotations


class Tally:
    """Counts the texts of the shards under way; an actor, so that every worker reaches it.

    >>> tally = Tally()
    >>> tally.note(3, 10), tally.note(4, 5), tally.forget(3), tally.note(3, 20), tally.total()
    (None, None, None, None, 5)
    """

    def __init__(self) -> None:
        self._done: dict[int, int] = {}
        self._finished: set[int] = set()

    def note(self, shard: int, done: int) -> None:
        """Take note of the texts of a shard that are encoded."""
        if shard not in self._finished:
            self._done[shard] = done

    def forget(self, shard: int) -> None:
        """Count a shard no more: it is written, and late notes of it are to be passed over."""
        self._finished.add(shard)
        self._done.pop(shard, None)

    def total(self) -> int:
        """Return how many texts are encoded."""
        return sum(self._done.values())
