"""Retrieval scores of a teacher, a baseline or a trained model: all of them rank, so all are scored alike.

Shapes: Q queries, K ranked passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from embedsmith.data.collection import Collection
from embedsmith.data.ties import NO_PASSAGE
from embedsmith.data.trec import Ranking
from embedsmith.evaluation.metrics import DEFAULT_METRICS, Scores, depth_of, score_run
from embedsmith.teachers.named import Teacher

DEPTH = 100
"""Passages ranked for each query, more where a metric looks further."""


def evaluate_retrieval(
    teacher: Teacher, collection: Collection, metrics: Sequence[str] = DEFAULT_METRICS, *, depth: int | None = None
) -> Scores:
    """Return the scores of a teacher that was opened with the collection's passages."""
    return score_run(rank(teacher, collection, depth=depth or depth_for(metrics)), collection.qrels, metrics)


def depth_for(metrics: Sequence[str]) -> int:
    """Return how many passages to rank for each query.

    >>> depth_for(["ndcg@10"]), depth_for(["recall@1000"])
    (100, 1000)
    """
    return max(DEPTH, *map(depth_of, metrics))


def rank(
    teacher: Teacher,
    collection: Collection,
    *,
    depth: int = DEPTH,
    first_stage: Teacher | None = None,
    drop_identical_ids: bool = False,
) -> Ranking:
    """Return the passages that a teacher ranks highest for each query of a collection.

    Scores that tie stand in an order that is drawn for each query by `embedsmith.data.ties`, whatever the rows and ids
    of the passages are. What a teacher did not find, such as a passage that shares no word with the query, is not
    ranked: a ranking may be short, or empty.

    Args:
        teacher: was opened with the collection's passages.
        depth: passages of each query.
        first_stage: finds the passages, which the teacher then only scores. One that does not search needs it.
        drop_identical_ids: leave out the passage whose id is the query's: in ArguAna the query itself.
    """
    deeper = depth + 1 if drop_identical_ids else depth
    rows, scores = (first_stage or teacher).search(collection.queries, deeper)
    if first_stage is not None:
        rows = _narrow(rows)
        scores = teacher.scores(collection.queries, np.maximum(rows, 0))
    order = collection.ties.order(collection.queries, rows, scores)
    counts = (rows != NO_PASSAGE).sum(axis=1)
    found: Ranking = {}
    for q, query_id in enumerate(collection.query_ids):
        best = order[q, : counts[q]]
        # Plain numbers and strings in one go: a passage at a time takes longer than the search.
        ranked = list(zip(collection.passage_ids.take(rows[q, best]), scores[q, best].tolist(), strict=True))
        if drop_identical_ids:
            ranked = [(passage, score) for passage, score in ranked if passage != query_id]
        found[query_id] = ranked[:depth]
    return found


def _narrow(rows: Int64[np.ndarray, "Q K"]) -> Int64[np.ndarray, "Q k"]:
    """Return rows without the columns in which no query has a passage, as far as one is left.

    >>> _narrow(np.array([[3, -1, -1], [4, 1, -1]]))
    array([[ 3, -1],
           [ 4,  1]])
    """
    widest = int((rows != NO_PASSAGE).sum(axis=1).max(initial=0))
    return rows[:, : max(widest, 1)]
