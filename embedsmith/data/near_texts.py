"""Texts that are almost the same: MinHash finds those that might be, and the Jaccard share of their shingles decides.

Source: Broder, On the resemblance and containment of documents, 1997; the index is datasketch's.

Shapes: N texts, n shingles of one of them or texts of one bucket.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, Int64, UInt32, UInt64

from embedsmith.data.spool import Spool

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
        self._limit = limit
        self._signatures = _Signatures(limit, shingles)
        self._parts: list[UInt64[np.ndarray, " n"]] = []
        """Of each text: the hashes of its shingles, ascending. The shingles themselves are far larger."""
        # datasketch's own tables have a set for each text and band: more memory than these.
        self._bands: list[dict[int, int | list[int]]] = [{} for _ in range(self._signatures.bands)]
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
            self._last = text, *self._signatures.of(text)
        return self._last[1], self._last[2]


def nearest_before(
    texts: Iterable[str],
    limit: float,
    *,
    shingles: Shingles,
    folder: Path | None = None,
    on_text: Callable[[int], None] = lambda done: None,
) -> Int64[np.ndarray, " N"]:
    """Return for each text the number of the earlier one that it is most like, -1 where it is almost none of them.

    The same as `NearTexts.like` says of each text before it is added, in some 150 bytes a text.

    >>> nearest_before(["a cat sat", "an owl", "a cat sat"], 0.5, shingles=lambda text: {text.encode()})
    array([-1, -1,  0])

    Args:
        texts: N of them.
        limit: see `NearTexts`.
        shingles: see `NearTexts`.
        folder: on whose disk the hashes of shingles lie meanwhile.
        on_text: called with how many texts were read, from time to time.
    """
    signatures, spool = _Signatures(limit, shingles), Spool(folder)
    bands = [array("I") for _ in range(signatures.bands)]
    for number, text in enumerate(texts):
        parts, keys = signatures.of(text)
        spool.add(parts.tobytes())
        for band, key in zip(bands, keys, strict=True):
            # Half of a key: where two are alike by chance, the share of shingles decides as well.
            band.append(key & 0xFFFFFFFF)
        if number % 1000 == 0:
            on_text(number)
    nearest = np.full(len(spool), -1, np.int64)
    if not len(spool):
        return nearest
    buckets = []
    while bands:
        buckets.append(_Buckets(np.array(bands.pop(), np.uint32)))
    shared = np.zeros(len(spool), bool)
    for one in buckets:
        shared |= one.place >= 0
    for number in np.flatnonzero(shared).tolist():
        earlier = np.unique(np.concatenate([one.before(number) for one in buckets]))
        own, best = np.frombuffer(spool[number], np.uint64), limit
        for other in earlier.tolist():
            share = _share(own, np.frombuffer(spool[other], np.uint64))
            if share > best or (share == best and nearest[number] < 0):
                nearest[number], best = other, share
    on_text(len(spool))
    return nearest


class _Buckets:
    """Texts that share their key in one band with another one."""

    def __init__(self, keys: UInt32[np.ndarray, " N"]) -> None:
        order = np.argsort(keys, kind="stable")  # within a bucket texts stand in their order
        same = keys[order][1:] == keys[order][:-1]
        member = np.append(same, False) | np.insert(same, 0, False)
        self._members = order[member].astype(np.int32)
        begins = np.flatnonzero(~np.insert(same, 0, False)[member]).astype(np.int32)
        self._begins = np.repeat(begins, np.diff(begins, append=len(self._members)))
        self.place = np.full(len(keys), -1, np.int32)
        """Where each text stands among the members, -1 where it is none."""
        self.place[self._members] = np.arange(len(self._members), dtype=np.int32)

    def before(self, number: int) -> Int32[np.ndarray, " n"]:
        """Return the texts of a text's bucket that stand before it."""
        place = self.place[number]
        return self._members[self._begins[place] : place] if place >= 0 else self._members[:0]


class _Signatures:
    """What texts are found by: MinHash signatures, cut into bands."""

    def __init__(self, limit: float, shingles: Shingles) -> None:
        from datasketch import MinHash, MinHashLSH

        self._shingles = shingles
        self._minhash: Any = MinHash
        drawn = random.getstate()
        # To miss one counts nine times as much as to look at one in vain: the share itself is computed then.
        # Near 1 datasketch would have one band, which it refuses.
        index = MinHashLSH(threshold=min(limit, _HIGHEST), num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
        random.setstate(drawn)  # it draws itself a name
        self._rows: int = index.r
        self.bands: int = index.b

    def of(self, text: str) -> tuple[UInt64[np.ndarray, " n"], list[int]]:
        """Return the hashes of a text's shingles, ascending, and its key in each band."""
        own = frozenset(self._shingles(text))
        signature = self._minhash(num_perm=_PERMUTATIONS, seed=1)
        signature.update_batch(sorted(own))
        values, rows = signature.hashvalues, self._rows
        keys = [hash(values[band * rows : (band + 1) * rows].tobytes()) for band in range(self.bands)]
        # Python's hashes of bytes have 64 bits: that two of some millions are alike is not to be expected.
        return np.unique(np.fromiter(map(hash, own), np.int64, len(own)).view(np.uint64)), keys


def _share(one: UInt64[np.ndarray, " n"], other: UInt64[np.ndarray, " m"]) -> float:
    """Return the share of all shingles of either text that both have, by their hashes."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)
