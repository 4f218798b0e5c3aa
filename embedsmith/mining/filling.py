"""Filling: random passages for queries that are short of negatives, where the settings ask for them.

A random passage passes every exclusion and was no candidate, so what a rule dropped never comes back.

Shapes: R rows, M negatives.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Listed

RANDOM = "random passage"
"""Stands in the place of a teacher where a short query was filled up."""

_SMALL = 4096
"""Passages that are all tried for a short query; of a larger corpus as many are drawn."""


def fill_up(
    rows: Int64[np.ndarray, "R M"],
    row_query: Int64[np.ndarray, " R"],
    candidates: Candidates,
    listed: Listed,
    *,
    seed: int,
) -> Int64[np.ndarray, "R M"]:
    """Return rows whose free places hold random passages, as far as there are any that may stand there."""
    rows = rows.copy()
    texts, answers = candidates.passage_text, _answers(candidates)
    listed_of: dict[int, set[int]] = {}
    queries, passages = listed.pairs
    for query, text in zip(queries.tolist(), texts[passages].tolist(), strict=True):
        listed_of.setdefault(query, set()).add(text)
    everywhere = set(texts[listed.everywhere].tolist())
    for row in np.flatnonzero((rows == NO_PASSAGE).any(axis=1)):
        query = int(row_query[row])
        own = candidates.rows[query][candidates.rows[query] != NO_PASSAGE]
        # Whatever was a candidate was dropped, or is there already; so is each copy of it.
        text = int(candidates.query_text[query])
        banned = {text, *texts[own].tolist(), *answers[text], *listed_of.get(query, ()), *everywhere}
        rng = np.random.default_rng([seed, 1 << 20, int(row)])
        free = np.flatnonzero(rows[row] == NO_PASSAGE)
        draws = rng.permutation(len(texts)) if len(texts) <= _SMALL else rng.integers(len(texts), size=_SMALL)
        for passage in draws.tolist():
            if not len(free):
                break
            if int(texts[passage]) in banned:
                continue
            banned.add(int(texts[passage]))
            rows[row, free[0]] = passage
            free = free[1:]
    return rows


def _answers(candidates: Candidates) -> dict[int, set[int]]:
    """Return the texts that answer each query's text."""
    answers: dict[int, set[int]] = {int(text): set() for text in candidates.query_text}
    texts = candidates.passage_text[candidates.pair_passage]
    for query, text in zip(candidates.query_text[candidates.pair_query].tolist(), texts.tolist(), strict=True):
        answers[query].add(text)
    return answers
