"""A pool of texts, some with ids: read from several files, then made one list in which no id comes twice.

Shapes: A texts that were added, N different ones.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Int64

from embedsmith.data.bad_rows import BadRow, OnBad, Unusable
from embedsmith.data.tables import Table
from embedsmith.data.texts import Objects, Texts, TextsBuilder, as_json, digest, numbered

DROPPED = -1
"""The row of a text that was added and could not be used."""

_CHUNK = 4096
"""Texts that wait as Python objects."""


@dataclass(frozen=True)
class Pooled:
    """The different texts of a pool, in the order in which they first appeared."""

    ids: Texts
    texts: Texts
    metadata: Objects
    rows: Int64[np.ndarray, " A"]
    """Which text each of those became that were added; `DROPPED` where it could not be used."""
    spellings: int = 0
    """How many different texts became an earlier one that is spelled otherwise."""
    first_spelling: str = ""
    """The first of them, and what it became."""


class Pool:
    """Texts as they are read.

    With an id a text is what the id says, and two ids may have the same text. Without one it is the first text with an
    id that is equal, else the first that is equal.

    Args:
        prefix: of the ids that texts without one get: `p0`, `p1`...
        key: texts without an id are equal when this is; None for the text itself.
    """

    def __init__(self, prefix: str, key: Callable[[str], str] | None = None) -> None:
        self._prefix = prefix
        self._key = key
        self._ids = TextsBuilder()
        self._texts = TextsBuilder()
        self._metadata = TextsBuilder()
        self._digests = bytearray()
        self._raw_digests = bytearray()
        self._numbers = array("q")
        self._pending: list[tuple[str, str | None, int, dict[str, Any] | None]] = []
        self._starts: list[int] = []
        self._tables: list[tuple[Table, bool]] = []

    def __len__(self) -> int:
        return len(self._numbers) + len(self._pending)

    def begin(self, table: Table, *, unique: bool) -> None:
        """Say where the texts come from that are added next, and whether each id stands there only once."""
        self._starts.append(len(self))
        self._tables.append((table, unique))

    def add(self, text: str, text_id: str | None, number: int, metadata: dict[str, Any] | None = None) -> int:
        """Add the text of a line or row; return how many were added before."""
        self._pending.append((text, text_id, number, metadata))
        if len(self._pending) == _CHUNK:
            self._flush()
        return len(self) - 1

    def pooled(self, on_bad: OnBad) -> Pooled:
        """Return the different texts, and forget what was added."""
        self._flush()
        text_of, first_of = numbered(np.frombuffer(self._digests, np.int64).reshape(-1, 2))
        self._digests = bytearray()
        owner = first_of[text_of]
        has_ids, has_metadata = len(self._ids) > 0, len(self._metadata) > 0
        for builder in (self._ids, self._metadata):
            builder.pad(len(self))
        ids, metadata, texts = self._ids.texts(), self._metadata.texts(), self._texts.texts()
        if has_ids:
            owner = self._owners(ids, text_of, owner, on_bad)
        kept = np.flatnonzero(owner != DROPPED)
        first = _first(owner[kept])
        owners = np.flatnonzero(first < len(kept))
        owners = owners[np.argsort(first[owners])]
        row_of = np.full(len(owner), DROPPED, np.int64)
        row_of[owners] = np.arange(len(owners))
        rows = np.where(owner == DROPPED, DROPPED, row_of[owner])
        count, first_spelling = self._spellings(owner, texts)
        return Pooled(
            ids=self._named(ids.kept(owners)),
            texts=texts.kept(owners),
            metadata=Objects(metadata.kept(owners)) if has_metadata else Objects.of([]),
            rows=rows,
            spellings=count,
            first_spelling=first_spelling,
        )

    def _spellings(self, owner: Int64[np.ndarray, " A"], texts: Texts) -> tuple[int, str]:
        """Return how many different texts became another one, and the first of them."""
        if self._key is None:
            return 0, ""
        raw, _ = numbered(np.frombuffer(self._raw_digests, np.int64).reshape(-1, 2))
        self._raw_digests = bytearray()
        others = np.flatnonzero((owner != DROPPED) & (raw != raw[owner]))
        if not len(others):
            return 0, ""
        at = int(others[0])
        what = f'{self._place(at)}: "{_short(texts[at])}" is the same as "{_short(texts[int(owner[at])])}"'
        return len(np.unique(raw[others])), what

    def _flush(self) -> None:
        """Put away what waits: many texts at once cost a third of each for itself."""
        if not self._pending:
            return
        texts, ids, numbers, metadata = zip(*self._pending, strict=True)
        added, self._pending = len(self._numbers), []
        raws = [text.encode() for text in texts]
        self._texts.extend(raws)
        keys = raws if self._key is None else [self._key(text).encode() for text in texts]
        self._digests += b"".join([digest(key) for key in keys])
        if self._key is not None:
            self._raw_digests += b"".join([digest(raw) for raw in raws])
        self._numbers.extend(numbers)
        # Most files of pairs have neither.
        if any(text_id is not None for text_id in ids):
            self._ids.pad(added)
            self._ids.extend([(text_id or "").encode() for text_id in ids])
        if any(metadata):
            self._metadata.pad(added)
            self._metadata.extend([as_json(extra or {}).encode() for extra in metadata])

    def _owners(
        self, ids: Texts, text_of: Int64[np.ndarray, " A"], first_of_text: Int64[np.ndarray, " A"], on_bad: OnBad
    ) -> Int64[np.ndarray, " A"]:
        """Return for each text that was added the first one that it is the same as."""
        number_of_id = ids.arrow.dictionary_encode().indices.to_numpy().astype(np.int64)
        first_of_id = _first(number_of_id)[number_of_id]
        named = pc.not_equal(ids.arrow, "").to_numpy(zero_copy_only=False)
        owner = np.where(named, first_of_id, first_of_text)
        for at in np.flatnonzero(named & self._clashes(first_of_id, text_of)).tolist():
            owner[at] = DROPPED
            on_bad(BadRow(self._place(at), self._clash(ids[at], at, int(first_of_id[at]))))
        # Backwards: what is written last remains.
        of_text = np.full(len(text_of), DROPPED, np.int64)
        last_to_first = np.flatnonzero(named & (owner != DROPPED))[::-1]
        of_text[text_of[last_to_first]] = owner[last_to_first]
        found = of_text[text_of]
        return np.where(~named & (found != DROPPED), found, owner)

    def _clashes(self, first: Int64[np.ndarray, " A"], text_of: Int64[np.ndarray, " A"]) -> Bool[np.ndarray, " A"]:
        """Return which texts have an id that is taken."""
        at = np.arange(len(first))
        file_of = np.searchsorted(self._starts, at, side="right") - 1
        unique = np.array([unique for _, unique in self._tables])[file_of]
        again = unique & (file_of == file_of[first]) & (at != first)
        return again | (text_of != text_of[first])

    def _clash(self, text_id: str, at: int, first: int) -> Unusable:
        """Return what is wrong with an id that is taken."""
        here, there = (self._tables[bisect_right(self._starts, place) - 1][0] for place in (at, first))
        number = self._numbers[first]
        other = f"{there.unit} {number:,}" if here.name == there.name else there.place(number)
        return Unusable(
            f'the id "{text_id}" is taken by {other}', reason="duplicate id", hint="remove or rename one of the two"
        )

    def _place(self, at: int) -> str:
        return self._tables[bisect_right(self._starts, at) - 1][0].place(self._numbers[at])

    def _named(self, ids: Texts) -> Texts:
        """Return ids where each text has one."""
        numbers = pa.array(np.arange(len(ids))).cast(pa.large_string())
        prefix = self._prefix
        while True:
            given = pc.binary_join_element_wise(pa.scalar(prefix, numbers.type), numbers, pa.scalar("", numbers.type))
            if not pc.any(pc.is_in(given, value_set=ids.arrow)).as_py():
                return Texts(pc.if_else(pc.equal(ids.arrow, ""), given, ids.arrow))
            prefix = f"_{prefix}"


def _short(text: str) -> str:
    """Return a text as a line that is not too long.

    >>> _short("a\\ncat " * 9)
    'a cat a cat a cat a cat a cat a cat a...'
    """
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:37]}..."


def _first(numbers: Int64[np.ndarray, " A"]) -> Int64[np.ndarray, " R"]:
    """Return where each number, from 0 on, stands first; the length of the array for one that stands nowhere.

    >>> _first(np.array([2, 0, 2]))
    array([1, 3, 0])
    """
    first = np.full(numbers.max(initial=-1) + 1, len(numbers), np.int64)
    # Backwards: what is written last remains.
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]
    return first
