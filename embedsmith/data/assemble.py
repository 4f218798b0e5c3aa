"""The last step of every reader: pooled texts and judged rows become a collection.

Shapes: J judgements, S pairs, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from embedsmith.data.collection import Collection
from embedsmith.data.pool import DROPPED, Pooled


@dataclass(frozen=True)
class Judged:
    """Rows of queries and passages with their grades; `DROPPED` where one of the two could not be used."""

    queries: Int64[np.ndarray, " J"]
    passages: Int64[np.ndarray, " J"]
    grades: Int64[np.ndarray, " J"]

    def __len__(self) -> int:
        return len(self.queries)

    def only(self, places: np.ndarray) -> Judged:
        """Return some of them."""
        return Judged(self.queries[places], self.passages[places], self.grades[places])


def distinct(judged: Judged) -> tuple[Judged, Int64[np.ndarray, " S"]]:
    """Return each pair's first judgement, by query row and else in order, and the places that contradict it.

    >>> judged = Judged(np.array([1, 0, 1, 1]), np.array([5, 5, 5, 4]), np.array([1, 1, 2, 1]))
    >>> kept, contradicting = distinct(judged)
    >>> kept.queries, kept.passages, contradicting
    (array([0, 1, 1]), array([5, 5, 4]), array([2]))
    """
    order = np.lexsort((judged.passages, judged.queries))  # stable: equal pairs stay in order
    queries, passages = judged.queries[order], judged.passages[order]
    starts = np.ones(len(order), bool)
    starts[1:] = (queries[1:] != queries[:-1]) | (passages[1:] != passages[:-1])
    first = order[starts]
    first_of = np.empty_like(order)
    first_of[order] = first[np.cumsum(starts) - 1]
    contradicting = np.flatnonzero(judged.grades != judged.grades[first_of])
    first.sort()
    return judged.only(first[np.argsort(judged.queries[first], kind="stable")]), contradicting


def assembled(name: str, passages: Pooled, queries: Pooled, judged: Judged, negatives: Judged) -> Collection | None:
    """Return the collection of the queries that have a positive, None if no query has.

    Judgements are distinct. A negative that is also a positive of its query is left out.
    """
    judged, _ = distinct(judged.only((judged.queries != DROPPED) & (judged.passages != DROPPED)))
    negatives, _ = distinct(negatives.only((negatives.queries != DROPPED) & (negatives.passages != DROPPED)))
    positive = judged.only(judged.grades > 0)
    is_answered = np.zeros(len(queries.ids), bool)
    is_answered[positive.queries] = True
    answered = np.flatnonzero(is_answered)
    if not len(answered):
        return None
    row_of = np.full(len(queries.ids), DROPPED, np.int64)
    row_of[answered] = np.arange(len(answered))
    width = len(passages.ids)
    contradicted = np.isin(negatives.queries * width + negatives.passages, positive.queries * width + positive.passages)
    negatives = negatives.only((row_of[negatives.queries] != DROPPED) & ~contradicted)
    judged = judged.only(row_of[judged.queries] != DROPPED)
    return Collection(
        name=name,
        passage_ids=passages.ids,
        passages=passages.texts,
        query_ids=queries.ids.kept(answered),
        queries=queries.texts.kept(answered),
        judged_queries=row_of[judged.queries],
        judged_passages=judged.passages,
        grades=judged.grades,
        metadata=passages.metadata,
        negative_queries=row_of[negatives.queries],
        negative_passages=negatives.passages,
    )
