"""Selection: candidates in, negatives out. Pure arrays and texts; no model, no search.

A candidate is excluded when it answers the query (by id, or by normalised text under another id) or another query of
the same text, or is the query's own text; then a method's ceiling drops those that score too well to be safe; then
the best that are left are taken.

Shapes: Q queries, K candidates, M negatives.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from embedsmith.data.collection import Collection, normalised
from embedsmith.data.examples import Example, Passage
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.methods import ceiling, first_rank
from embedsmith.mining.settings import SelectionSettings


@dataclass(frozen=True)
class Selection:
    """The examples, and what happened to the candidates."""

    examples: list[Example]
    counts: dict[str, int]
    """Queries by outcome, and candidates by the rule that dropped them."""


def select(candidates: Candidates, collection: Collection, settings: SelectionSettings) -> Selection:
    """Return one example a query, its negatives in the order of their scores."""
    excluded = _excluded(candidates, collection)
    limits = ceiling(candidates.lowest_positive, settings)
    # Strict: a candidate as good as the ceiling is too good. NaN never passes.
    under = candidates.scores < limits[:, None]
    rank_left = np.cumsum(~excluded, axis=1)  # 1 for the best candidate that is not excluded
    late = rank_left > first_rank(settings)
    kept = ~excluded & under & late
    taken = kept & (np.cumsum(kept, axis=1) <= settings.negatives)
    examples = [_example(q, candidates, collection, taken[q], settings.negatives) for q in range(len(taken))]
    counts = Counter(example.outcome for example in examples)
    return Selection(
        examples=examples,
        counts={
            "queries": len(examples),
            **{outcome: counts[outcome] for outcome in ("full", "short", "none")},
            "negatives": int(taken.sum()),
            "candidates": int(excluded.size),
            "excluded_as_positive": int(excluded.sum()),
            "dropped_by_ceiling": int((~excluded & ~under).sum()),
            "dropped_by_shift": int((~excluded & under & ~late).sum()),
        },
    )


def _excluded(candidates: Candidates, collection: Collection) -> Bool[np.ndarray, "Q K"]:
    """Return which candidates answer the query, or are it."""
    text_number: dict[str, int] = {}
    passage_text = np.array([text_number.setdefault(normalised(t), len(text_number)) for t in collection.passages])
    query_text = np.array([text_number.get(normalised(t), NO_PASSAGE) for t in collection.queries])
    found = passage_text[candidates.rows]
    excluded = found == query_text[:, None]
    # By text: an id of its own makes no negative of a copy of the positive, and no other query of the same words.
    queries = [normalised(text) for text in collection.queries]
    answers: dict[str, set[int]] = {query: set() for query in queries}
    for query, positives in zip(queries, candidates.positive_rows, strict=True):
        answers[query].update(passage_text[positives[positives != NO_PASSAGE]].tolist())
    for q, query in enumerate(queries):
        excluded[q] |= np.isin(found[q], list(answers[query]))
    return excluded


def _example(
    q: int, candidates: Candidates, collection: Collection, taken: Bool[np.ndarray, " K"], wanted: int
) -> Example:
    """Return the example of one query."""
    negatives = [
        Passage(
            id=collection.passage_ids[row],
            text=collection.passages[row],
            score=round(float(candidates.scores[q, place]), 6),
            teacher=candidates.teacher,
            rank=int(place) + 1,
        )
        for place in np.flatnonzero(taken)
        for row in [candidates.rows[q, place]]
    ]
    positives = [
        Passage(id=collection.passage_ids[row], text=collection.passages[row], score=round(float(score), 6))
        for row, score in zip(candidates.positive_rows[q], candidates.positive_scores[q], strict=True)
        if row != NO_PASSAGE
    ]
    return Example(
        query_id=collection.query_ids[q],
        query=collection.queries[q],
        positives=positives,
        negatives=negatives,
        outcome="full" if len(negatives) == wanted else "short" if negatives else "none",
    )
