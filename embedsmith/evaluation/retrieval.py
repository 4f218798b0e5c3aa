"""Retrieval scores of a teacher, a baseline or a trained model: all of them rank, so all are scored alike."""

from __future__ import annotations

from embedsmith.data.collection import Collection
from embedsmith.evaluation.metrics import Scores, score_run
from embedsmith.teachers.named import Teacher

DEPTH = 100
"""Passages ranked for each query; no default metric looks further."""


def evaluate_retrieval(teacher: Teacher, collection: Collection, *, depth: int = DEPTH) -> Scores:
    """Return the scores of a teacher that was opened with the collection's passages."""
    return score_run(rank(teacher, collection, depth=depth), collection.qrels)


def rank(teacher: Teacher, collection: Collection, *, depth: int = DEPTH) -> dict[str, list[tuple[str, float]]]:
    """Return the passages that a teacher ranks highest for each query of a collection, best first."""
    rows, scores = teacher.search(collection.queries, depth)
    return {
        query_id: [(collection.passage_ids[row], float(score)) for row, score in zip(rows[q], scores[q], strict=True)]
        for q, query_id in enumerate(collection.query_ids)
    }
