"""Texts that are almost the same: MinHash finds those that might be, and the Jaccard share of their shingles decides.

Source: Broder, On the resemblance and containment of documents, 1997; the index is datasketch's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import UInt64

Shingles = Callable[[str], Iterable[bytes]]
"""A text in, the parts of it out that are compared."""

_PERMUTATIONS = 128
_HIGHEST = 0.95
"""Limit that candidates are looked for by; above it more of them are looked at than need be."""


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
        self._parts: list[UInt64[np.ndarray, " n"]] = []
        """Of each text: the hashes of its shingles, ascending. The shingles themselves are far larger."""
        self._minhash: Any = MinHash
        drawn = random.getstate()
        # To miss one counts nine times as much as to look at one in vain: the share itself is computed then.
        # Near 1 datasketch would have one band, which it refuses.
        index = MinHashLSH(threshold=min(limit, _HIGHEST), num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
        random.setstate(drawn)  # it draws itself a name
        self._rows: int = index.r
        # datasketch's own tables have a set for each text and band: more memory than these.
        self._bands: list[dict[int, int | list[int]]] = [{} for _ in range(index.b)]
        self._last: tuple[str, UInt64[np.ndarray, " n"], list[int]] | None = None

    def add(self, text: str) -> int:
        """Add a text and return its number."""
        parts, keys = self._looked_at(text)
        number = len(self._parts)
        self._parts.append(parts)
        for band, key in zip(self._bands, keys, strict=True):
            known = band.get(key)
            if known is None:
                band[key] = number
            elif isinstance(known, list):
                known.append(number)
            else:
                band[key] = [known, number]
        return number

    def like(self, text: str) -> list[tuple[int, float]]:
        """Return the numbers of the texts that are almost one, ascending, and the share of shingles of each."""
        parts, keys = self._looked_at(text)
        numbers: set[int] = set()
        for band, key in zip(self._bands, keys, strict=True):
            known = band.get(key)
            if known is not None:
                numbers.update(known if isinstance(known, list) else [known])
        shares = ((number, _share(parts, self._parts[number])) for number in numbers)
        return sorted((number, share) for number, share in shares if share >= self._limit)

    def _looked_at(self, text: str) -> tuple[UInt64[np.ndarray, " n"], list[int]]:
        """Return the hashes of a text's shingles and its key in each band; of the last text they are remembered."""
        if self._last is None or self._last[0] != text:
            own = frozenset(self._shingles(text))
            signature = self._minhash(num_perm=_PERMUTATIONS, seed=1)
            signature.update_batch(sorted(own))
            values, rows = signature.hashvalues, self._rows
            keys = [hash(values[band * rows : (band + 1) * rows].tobytes()) for band in range(len(self._bands))]
            # Python's hashes of bytes have 64 bits: that two of some millions are alike is not to be expected.
            parts = np.unique(np.fromiter(map(hash, own), np.int64, len(own)).view(np.uint64))
            self._last = text, parts, keys
        return self._last[1], self._last[2]


def _share(one: UInt64[np.ndarray, " n"], other: UInt64[np.ndarray, " m"]) -> float:
    """Return the share of all shingles of either text that both have, by their hashes."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
