"""Rows: a selection and the texts of its collection, made training examples.

Shapes: R rows, n passages of some rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.filling import RANDOM
from embedsmith.mining.selection import OUTCOMES, Selection

_BATCH = 4096
"""Rows whose texts are fetched at once."""


def examples(selection: Selection, candidates: Candidates, collection: Collection) -> Iterator[Example]:
    """Yield the training examples of a selection, one a row; dropped rows are left out."""
    first_pair = np.searchsorted(candidates.pair_query, np.arange(len(candidates.rows) + 1))
    names = [*selection.teachers, RANDOM]
    for start in range(0, len(selection.row_query), _BATCH):
        some = np.arange(start, min(start + _BATCH, len(selection.row_query)))
        query = selection.row_query[some]
        query_ids, queries = collection.query_ids.take(query), collection.queries.take(query)
        # The pairs of neighbouring rows are neighbours.
        if selection.row_pair is None:
            own = np.diff(first_pair)[query]
            pairs = slice(first_pair[query[0]], first_pair[query[-1] + 1])
        else:
            own = np.ones_like(query)
            pairs = slice(some[0], some[-1] + 1)
        positives = _passages(collection, candidates.pair_passage[pairs], selection.pair_scores[pairs])
        has = selection.rows[some] != NO_PASSAGE
        negatives = _passages(
            collection,
            selection.rows[some][has],
            selection.scores[some][has],
            teachers=[names[number] for number in selection.teacher[some][has].tolist()],
            ranks=[rank or None for rank in selection.ranks[some][has].tolist()],
        )
        upto_positive, upto_negative = iter(np.cumsum(own).tolist()), iter(np.cumsum(has.sum(axis=1)).tolist())
        first_positive = first_negative = 0
        for query_id, query_text, outcome in zip(query_ids, queries, selection.outcome[some].tolist(), strict=True):
            last_positive, last_negative = next(upto_positive), next(upto_negative)
            if OUTCOMES[outcome] != "dropped":
                yield Example(
                    query_id=query_id,
                    query=query_text,
                    positives=positives[first_positive:last_positive],
                    negatives=negatives[first_negative:last_negative],
                    outcome=OUTCOMES[outcome],
                )
            first_positive, first_negative = last_positive, last_negative


def _passages(
    collection: Collection,
    rows: Int64[np.ndarray, " n"],
    scores: Float32[np.ndarray, " n"],
    *,
    teachers: Iterable[str | None] = repeat(None),
    ranks: Iterable[int | None] = repeat(None),
) -> list[Passage]:
    """Return passages with their scores; None where no teacher gave one."""
    ids, texts = collection.passage_ids.take(rows), collection.passages.take(rows)
    written = np.round(scores.astype(np.float64), 6).astype(object)
    written[np.isnan(scores)] = None
    return list(map(Passage, ids, texts, written, teachers, ranks))
