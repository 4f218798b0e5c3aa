"""Drafts: what a converter makes of labelled rows, before negatives are found.

Passages are different texts, which drafts name by their row in a pool.

Shapes: N passages, E passages that are excluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from embedsmith.data.normalised import normalised


class PassagePool:
    """Passages, each text once whatever its case, width and white space.

    >>> pool = PassagePool()
    >>> pool.add("a cat", "train:1"), pool.add("A  CAT", "train:2"), pool.add("a dog", "train:3")
    (0, 0, 1)
    >>> pool.ids, pool.row("a Cat"), pool.row("a cow")
    (['train:1', 'train:3'], 0, None)
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.ids: list[str] = []
        self._rows: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.texts)

    def add(self, text: str, passage_id: str) -> int:
        """Return the row of a text, which is added where it is new."""
        row = self._rows.setdefault(normalised(text), len(self.texts))
        if row == len(self.texts):
            self.texts.append(text)
            self.ids.append(passage_id)
        return row

    def row(self, text: str) -> int | None:
        """Return the row of a text, None where it is no passage."""
        return self._rows.get(normalised(text))


class Draft(NamedTuple):
    """A query, what answers it, and what must not be its negative."""

    place: str
    """The row that says so."""
    query_id: str
    query: str
    positives: list[int]
    """Rows of passages."""
    negatives: list[int]
    """Rows of passages that the data says are none."""
    negative_places: list[str]
    """The rows that say so, where they are others than the draft's."""
    excluded: Int64[np.ndarray, " E"]
    """Ascending rows of passages that may answer it, or that are the query itself; drafts may share the array."""


@dataclass
class Converted:
    """Drafts, and what became of every row."""

    drafts: list[Draft]
    passages: PassagePool
    rows: int
    """Rows that could be read."""
    dropped: Counter[str]
    """Rows that no draft uses, by reason."""
    negative_places: set[str] = field(default_factory=set)
    """Rows that say what is a negative."""
    unused: str = ""
    """The reason why such a row stands in no draft."""

    def counts(self) -> RowCounts:
        """Return how the rows were used."""
        positives = {draft.place for draft in self.drafts}
        negatives = {place for draft in self.drafts for place in draft.negative_places} - positives
        dropped = +self.dropped
        if spare := len(self.negative_places - negatives - positives):
            dropped[self.unused] += spare
        found = RowCounts(self.rows, len(positives), len(negatives), dict(dropped.most_common()))
        assert found.rows == found.positives + found.negatives + sum(found.dropped.values()), found
        return found


class RowCounts(NamedTuple):
    """Rows by what they became; the last three add up to the first."""

    rows: int
    positives: int
    """Rows that examples were made of."""
    negatives: int
    """Rows that gave negatives to the examples of other rows."""
    dropped: dict[str, int]


def rows_of(rows: Iterable[int | None]) -> Int64[np.ndarray, " E"]:
    """Return rows as an ascending array without doubles.

    >>> rows_of([3, None, 1, 3])
    array([1, 3])
    """
    return np.array(sorted({row for row in rows if row is not None}), np.int64)


def capped(converted: Converted, limit: int | None, *, seed: int) -> Converted:
    """Return a sample with at most so many drafts; the drafts of one row stay together."""
    if limit is None or len(converted.drafts) <= limit:
        return converted
    sizes = Counter(draft.place for draft in converted.drafts)
    places = list(sizes)
    kept: set[str] = set()
    total = 0
    for number in np.random.default_rng((seed, 0xCA9)).permutation(len(places)).tolist():
        if total + sizes[places[number]] > limit:
            break
        total += sizes[places[number]]
        kept.add(places[number])
    dropped = converted.dropped + Counter({"beyond max_examples": len(places) - len(kept)})
    drafts = [draft for draft in converted.drafts if draft.place in kept]
    return replace(converted, drafts=drafts, dropped=dropped)
