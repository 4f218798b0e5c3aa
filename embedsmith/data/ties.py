"""Ties: in which order passages stand that score alike for a query.

By a draw of its own for every query. It depends on the texts of query and passage (and on the passage's id where
several passages have one text), so neither the order of a corpus nor the names of its ids decide who comes first, and
a passage that is lucky with one query is not with the next. The same query and passages are drawn alike everywhere.

Shapes: N passages, Q queries, K passages of each, n some passages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int64, UInt64

NO_PASSAGE = -1
"""Fills the places of passages that a query does not have: fewer were found than were asked for."""


class Ties:
    """The draws among some passages.

    >>> ties = Ties(["a cat", "a dog", "an owl"])
    >>> ties.order(["cat?"], np.array([[2, 1, -1]]), np.array([[0.5, 0.9, -np.inf]], np.float32))
    array([[1, 0, 2]])
    """

    def __init__(self, passages: Sequence[str], ids: Sequence[str] | None = None) -> None:
        """Take note of the passages; nothing is read before the first tie.

        Args:
            ids: tell passages of the same text apart. Without them the lower row comes first.
        """
        self._passages = passages
        self._ids = ids

    @cached_property
    def keys(self) -> UInt64[np.ndarray, " N"]:
        """64 bits of each passage that do not depend on its row."""
        keys = _hashes(self._passages)
        if self._ids is not None:
            _, number, counts = np.unique(keys, return_inverse=True, return_counts=True)
            again = np.flatnonzero(counts[number] > 1)
            keys[again] = mixed(keys[again] ^ _hashes(self._ids[row] for row in again.tolist()))
        return keys

    def draw(self, query: str, rows: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        """Return a number for each passage; of those that score alike for the query, the lowest comes first."""
        return mixed(_hashes([query]) + self.keys[rows])

    def order(
        self, queries: Sequence[str], rows: Int64[np.ndarray, "Q K"], scores: Float32[np.ndarray, "Q K"]
    ) -> Int64[np.ndarray, "Q K"]:
        """Return the places of each query's passages, best first; `NO_PASSAGE` comes last.

        Args:
            scores: whatever it holds where there is no passage is not looked at.
        """
        missing = rows == NO_PASSAGE
        falling = np.where(missing, np.float32(np.inf), -scores)
        order = np.argsort(falling, axis=1, kind="stable")
        ordered, there = np.take_along_axis(falling, order, axis=1), np.take_along_axis(~missing, order, axis=1)
        tied = ((ordered[:, 1:] == ordered[:, :-1]) & there[:, 1:]).any(axis=1)
        for q in np.flatnonzero(tied).tolist():
            drawn = self.draw(queries[q], rows[q])
            order[q] = np.lexsort((rows[q], drawn, falling[q], missing[q]))
        return order


def mixed(counter: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Return 64 bits that look random for each number, the output function of SplitMix64.

    Source: Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014, figure 17.

    >>> hex(mixed(np.array([0], np.uint64))[0])  # what a generator with the seed 0 gives first
    '0xe220a8397b1dcdaf'
    """
    mixed = (counter + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _hashes(texts: Iterable[str]) -> UInt64[np.ndarray, " n"]:
    """Return 64 bits of hash of each text, the same in every process."""
    raw = bytearray()
    for text in texts:
        raw += hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.frombuffer(raw, "<u8").astype(np.uint64)
