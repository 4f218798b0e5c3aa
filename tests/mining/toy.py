"""Candidates made at random: small, full of ties, of copies under other ids, and of scores below 0."""

from __future__ import annotations

import numpy as np

from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.ensembles import PCA


def toy_candidates(
    seed: int = 0, *, queries: int = 12, passages: int = 30, depth: int = 14, teachers: int = 3, texts: int = 22
) -> Candidates:
    """Return candidates of some teachers, the last of them `pca`; scores are binary fractions, so sums are exact."""
    rng = np.random.default_rng(seed)
    passage_text = np.unique(rng.integers(texts, size=passages), return_inverse=True)[1]
    # Some queries are the text of a passage, some the text of another query.
    query_text = np.where(
        rng.random(queries) < 0.3,
        passage_text[rng.integers(passages, size=queries)],
        rng.integers(100, 100 + queries, size=queries),
    )
    counts = rng.integers(1, 4, size=queries)
    pair_query = np.repeat(np.arange(queries), counts)
    pair_passage = np.concatenate([rng.choice(passages, size=n, replace=False) for n in counts])
    table = (rng.integers(-8, 9, size=(teachers, queries, passages)) / 8).astype(np.float32)
    top = np.argsort(-table, axis=2, kind="stable")[:, :, :depth]
    unions = [np.unique(top[:, q]) for q in range(queries)]
    rows = np.full((queries, max(map(len, unions))), NO_PASSAGE, np.int64)
    for q, union in enumerate(unions):
        rows[q, : len(union)] = union[np.argsort(-table[0, q, union], kind="stable")]
    scores = np.take_along_axis(table, np.maximum(rows, 0)[None], axis=2)
    scores[:, rows == NO_PASSAGE] = np.nan
    names = [f"teacher-{t}" for t in range(teachers - 1)] + [PCA]
    cosines = (rng.integers(-8, 9, size=(teachers, len(pair_query), rows.shape[1])) / 8).astype(np.float32)
    return Candidates(
        teachers=names,
        depth=depth,
        proposes=[True] * teachers,
        rows=rows,
        scores=scores,
        mean=table.mean(axis=2),
        deviation=table.std(axis=2),
        pair_query=pair_query,
        pair_passage=pair_passage,
        pair_scores=table[:, pair_query, pair_passage],
        passage_text=passage_text,
        query_text=query_text,
        neighbours={names[0]: cosines[0], PCA: cosines[-1]},
    )
