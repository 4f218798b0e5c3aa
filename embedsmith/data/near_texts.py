"""Texts that are almost the same: MinHash finds those that might be, and the Jaccard share of their shingles decides.

Source: Broder, On the resemblance and containment of documents, 1997; the index is datasketch's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

Shingles = Callable[[str], Iterable[bytes]]
"""A text in, the parts of it out that are compared."""

_PERMUTATIONS = 128


class NearTexts:
    """Texts by their number, in the order they are added, and which of them are almost another one.

    >>> near = NearTexts(0.5, shingles=lambda text: {word.encode() for word in text.split()})
    >>> near.add("a cat sat down"), near.add("an owl flew off")
    (0, 1)
    >>> near.like("a cat sat there"), near.like("a dog barked")
    ([(0, 0.6)], [])
    """

    def __init__(self, limit: float, *, shingles: Shingles) -> None:
        """Begin without texts.

        Args:
            limit: share of shingles from which on two texts are almost the same, in (0, 1].
            shingles: the parts of a text that are compared.
        """
        from datasketch import MinHash, MinHashLSH

        self._limit = limit
        self._shingles = shingles
        self._sets: list[frozenset[bytes]] = []
        self._minhash: Any = MinHash
        drawn = random.getstate()
        # To miss one counts nine times as much as to look at one in vain: the share itself is computed then.
        self._index: Any = MinHashLSH(threshold=limit, num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
        random.setstate(drawn)  # it draws itself a name

    def add(self, text: str) -> int:
        """Add a text and return its number."""
        own = frozenset(self._shingles(text))
        self._index.insert(len(self._sets), self._signature(own))
        self._sets.append(own)
        return len(self._sets) - 1

    def like(self, text: str) -> list[tuple[int, float]]:
        """Return the numbers of the texts that are almost one, ascending, and the share of shingles of each."""
        own = frozenset(self._shingles(text))
        shares = ((number, jaccard(own, self._sets[number])) for number in self._index.query(self._signature(own)))
        return sorted((number, share) for number, share in shares if share >= self._limit)

    def _signature(self, shingles: frozenset[bytes]) -> Any:
        signature = self._minhash(num_perm=_PERMUTATIONS, seed=1)
        signature.update_batch(sorted(shingles))
        return signature


def jaccard(one: frozenset[bytes], other: frozenset[bytes]) -> float:
    """Return the share of all shingles of either set that both have.

    >>> jaccard(frozenset([b"a", b"b", b"c"]), frozenset([b"b", b"c", b"d"]))
    0.5
    """
    return len(one & other) / len(one | other)
