"""Retrieval scores of a teacher, a baseline or a trained model: all of them rank, so all are scored alike.

Shapes: Q queries, K ranked passages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.collection import Collection
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

    Scores that tie stand in trec_eval's order, by passage id, descending: the metrics are then those of trec_eval,
    and of mteb, for the same scores.

    Args:
        teacher: was opened with the collection's passages.
        depth: passages of each query.
        first_stage: finds the passages, which the teacher then only scores. One that does not search needs it.
        drop_identical_ids: leave out the passage whose id is the query's: in ArguAna the query itself.
    """
    deeper = depth + 1 if drop_identical_ids else depth
    rows, scores = (first_stage or teacher).search(collection.queries, deeper)
    if first_stage is not None:
        scores = teacher.scores(collection.queries, rows)
    rows, scores = in_trec_order(rows, scores, collection)
    found: Ranking = {}
    for q, query_id in enumerate(collection.query_ids):
        # Plain numbers and strings in one go: a passage at a time takes longer than the search.
        ranked = list(zip(collection.passage_ids.take(rows[q]), scores[q].tolist(), strict=True))
        if drop_identical_ids:
            ranked = [(passage, score) for passage, score in ranked if passage != query_id]
        found[query_id] = ranked[:depth]
    return found


def in_trec_order(
    rows: Int64[np.ndarray, "Q K"], scores: Float32[np.ndarray, "Q K"], collection: Collection
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return rows and scores of each query by score, ties by passage id, both descending."""
    found = np.unique(rows)
    names = collection.passage_ids.take(found)
    place_of = np.empty(len(found), np.int64)
    place_of[sorted(range(len(found)), key=names.__getitem__)] = np.arange(len(found))
    places = place_of[np.searchsorted(found, rows)]
    order = np.lexsort((-places, -scores), axis=-1)
    return np.take_along_axis(rows, order, axis=-1), np.take_along_axis(scores, order, axis=-1)
