"""Texts by the million: strings in one Arrow array, the row of each id, and JSON objects that are read when asked for.

A Python string costs 50 bytes and more beside its characters, an Arrow one 8.

Shapes: N texts, R rows that are asked for.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from operator import index
from typing import Any, SupportsIndex, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64

_CHUNK = 8192
"""Strings that are Python objects at one time."""


class Texts(Sequence[str]):
    """A list of strings that never changes, in an Arrow array.

    >>> texts = Texts.of(["a cat", "a dog", "a cow"])
    >>> texts[-1], len(texts[1:]), "a dog" in texts, texts == ["a cat", "a dog", "a cow"]
    ('a cow', 2, True, True)
    """

    __slots__ = ("_arrow",)

    def __init__(self, arrow: pa.LargeStringArray) -> None:
        assert arrow.type == pa.large_string(), f"wanted large_string, got {arrow.type}"
        assert arrow.null_count == 0, "a text may be empty, but not null"
        self._arrow = arrow

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return the texts of anything that yields strings; an Arrow array of them is used as it is."""
        if isinstance(texts, Texts):
            return texts
        return cls(pa.array(texts if isinstance(texts, Sequence) else list(texts), pa.large_string()))

    @property
    def arrow(self) -> pa.LargeStringArray:
        """The Arrow array."""
        return self._arrow

    def __len__(self) -> int:
        return len(self._arrow)

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Texts: ...
    def __getitem__(self, row: SupportsIndex | slice) -> str | Texts:
        if isinstance(row, slice):
            return Texts(self._arrow[row])
        return self._arrow[index(row)].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self._arrow.slice(start, _CHUNK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return self._arrow.equals(other._arrow)
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"Texts([{shown}{', ...' if len(self) > 3 else ''}], {len(self):,} texts)"

    def take(self, rows: Int64[np.ndarray, " R"]) -> list[str]:
        """Return the texts of some rows as Python strings."""
        return self._arrow.take(pa.array(rows)).to_pylist()

    def kept(self, rows: Int64[np.ndarray, " R"]) -> Texts:
        """Return the texts of some rows."""
        if len(rows) == len(self) and (rows == np.arange(len(rows))).all():
            return self
        return Texts(self._arrow.take(pa.array(rows)))

    def update(self, hasher: Any) -> None:
        """Feed a hash with the texts and where each ends."""
        offsets = np.frombuffer(self._arrow.buffers()[1], np.int64) if len(self) else np.zeros(1, np.int64)
        offsets = offsets[self._arrow.offset : self._arrow.offset + len(self) + 1]
        hasher.update(len(self).to_bytes(8, "little"))
        hasher.update(np.diff(offsets).astype("<i8", copy=False).data)
        data = self._arrow.buffers()[2]
        if data is not None and len(self):
            hasher.update(memoryview(data)[offsets[0] : offsets[-1]])


class TextsBuilder:
    """Texts that come one by one.

    >>> builder = TextsBuilder()
    >>> builder.add("a cat")
    >>> builder.texts() == ["a cat"]
    True
    """

    def __init__(self) -> None:
        # As they lie in an Arrow array, which takes them over: nothing is copied in the end.
        self._data = bytearray()
        self._ends = array("q", [0])
        self._pending: list[bytes] = []

    def add(self, text: str) -> None:
        """Add one text at the end."""
        self._pending.append(text.encode())
        if len(self._pending) == _CHUNK:
            self._flush()

    def extend(self, raws: Sequence[bytes]) -> None:
        """Add texts, which are given in UTF-8, at the end."""
        self._flush()
        self._ends.extend(islice(accumulate(map(len, raws), initial=len(self._data)), 1, None))
        self._data += b"".join(raws)

    def pad(self, count: int) -> None:
        """Add empty texts until there are so many."""
        self._flush()
        self._ends.extend([len(self._data)] * (count - len(self)))

    def __len__(self) -> int:
        return len(self._ends) - 1 + len(self._pending)

    def texts(self) -> Texts:
        """Return all of them, and forget them."""
        self._flush()
        data, ends = pa.py_buffer(self._data), pa.py_buffer(self._ends)
        arrow = pa.LargeStringArray.from_buffers(len(self), ends, data)
        self._data, self._ends = bytearray(), array("q", [0])
        return Texts(arrow)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending:
            self.extend(pending)


class Rows(Mapping[str, int]):
    """The row of each text, where every text is there once: for ids.

    What is kept is two numbers a text; a dict would hold every string.

    >>> rows = Rows(Texts.of(["d2", "d 1"]))
    >>> rows["d 1"], "d3" in rows, rows.of(["d2", "d3"])
    (1, False, array([ 0, -1]))
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        # Python's own hash: it differs between processes, and never leaves this one.
        hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def __getitem__(self, text: str) -> int:
        place = int(np.searchsorted(self._hashes, hash(text)))
        while place < len(self._hashes) and self._hashes[place] == hash(text):
            row = int(self._order[place])
            if self._texts[row] == text:
                return row
            place += 1
        raise KeyError(text)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def of(self, texts: Sequence[str] | pa.Array) -> Int64[np.ndarray, " R"]:
        """Return the rows of many texts at once, -1 where a text is not there."""
        wanted = texts if isinstance(texts, pa.Array) else Texts.of(texts).arrow
        rows = pc.index_in(wanted, value_set=self._texts.arrow)
        return rows.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)


class Objects(Sequence[dict[str, Any]]):
    """A list of JSON objects that never changes, kept as the texts of their JSON.

    >>> Objects.of([{"line": 3}, {}])[0]
    {'line': 3}
    """

    __slots__ = ("texts",)

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    @classmethod
    def of(cls, objects: Iterable[Mapping[str, Any]]) -> Objects:
        """Return plain objects as a sequence."""
        if isinstance(objects, Objects):
            return objects
        return cls(Texts.of([as_json(item) for item in objects]))

    def __len__(self) -> int:
        return len(self.texts)

    @overload
    def __getitem__(self, row: SupportsIndex) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> Objects: ...
    def __getitem__(self, row: SupportsIndex | slice) -> dict[str, Any] | Objects:
        return Objects(self.texts[row]) if isinstance(row, slice) else _from_json(self.texts[row])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_from_json, self.texts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Objects) and self.texts == other.texts:
            return True
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Objects({list(self[:3])}{'...' if len(self) > 3 else ''}, {len(self):,} objects)"


def as_json(value: Mapping[str, Any]) -> str:
    """Return an object as JSON, its characters as they are; an empty one as no text at all.

    >>> as_json({"name": "猫"}), as_json({})
    ('{"name": "猫"}', '')
    """
    return json.dumps(value, ensure_ascii=False) if value else ""


def _from_json(text: str) -> dict[str, Any]:
    return json.loads(text) if text else {}


def digest(raw: bytes) -> bytes:
    """Return 128 bits of hash of a text in UTF-8, the same in every process.

    Among a thousand million texts two share theirs with a chance of one in 10^21.
    """
    return hashlib.blake2b(raw, digest_size=16).digest()


def digests(texts: Iterable[str]) -> Int64[np.ndarray, "N 2"]:
    """Return the digest of each text as two numbers.

    >>> bool((digests(["a"]) == digests(["b", "a"])[1]).all())
    True
    """
    raw = bytearray()
    for text in texts:
        raw += digest(text.encode())
    return np.frombuffer(raw, np.int64).reshape(-1, 2)


def numbered(found: Int64[np.ndarray, "N 2"]) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " R"]]:
    """Return the number of each text, and the row where each number appears first; equal texts share a number.

    Numbers count up from 0 in the order of first appearance.

    >>> numbered(digests(["b", "a", "b", "c"]))
    (array([0, 1, 0, 2]), array([0, 1, 3]))
    """
    order = np.lexsort((found[:, 1], found[:, 0]))  # stable: equal texts stay in order
    ordered = found[order]
    starts = np.ones(len(found), bool)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = order[starts]
    number_of = np.empty(len(first), np.int64)
    number_of[np.argsort(first)] = np.arange(len(first))
    numbers = np.empty(len(found), np.int64)
    numbers[order] = number_of[np.cumsum(starts) - 1]
    return numbers, np.sort(first)
