"""Rows and queries of a selection that are shown or judged: drawn evenly, and read with all that selection knew."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from embedsmith.mining.candidates import Candidates
from embedsmith.mining.ensembles import views
from embedsmith.mining.exclusions import Fate, Listed
from embedsmith.mining.histograms import evenly
from embedsmith.mining.methods import ceiling
from embedsmith.mining.rules import positive_scores
from embedsmith.mining.samplers import NONE
from embedsmith.mining.selection import OUTCOMES, Selection
from embedsmith.mining.settings import SelectionSettings

SAMPLED = 10_000
"""Queries, spread evenly, that a mean over the queries is taken of where each costs much: an error below 0.01."""


@dataclass(frozen=True)
class ReadRow:
    """One row, as a reader goes through it."""

    row: int
    query: int
    teacher: str
    ceiling: float
    """The score that a negative had to stay under; infinite where there was none."""
    pairs: list[int]
    pair_scores: list[float]
    places: list[int]
    """Its candidates, best first."""
    scores: Float32[np.ndarray, " K"]
    """Of all places."""


def sample_rows(selection: Selection, count: int) -> list[int]:
    """Return rows to read: every outcome that occurs has its share, and at least two; spread evenly over the rows."""
    there = [np.flatnonzero(selection.outcome == number) for number in range(len(OUTCOMES))]
    shares = [max(min(2, len(own)), round(count * len(own) / len(selection.outcome))) for own in there]
    picked = [own[evenly(len(own), n)] for own, n in zip(there, shares, strict=True) if n]
    return sorted(np.concatenate(picked).tolist())


def some_queries(
    candidates: Candidates, listed: Listed, near: Bool[np.ndarray, "S K"] | None
) -> tuple[Candidates, Listed, Bool[np.ndarray, "s K"] | None]:
    """Return at most `SAMPLED` of the queries, what is listed for them, and the near-duplicates of their positives."""
    queries = evenly(len(candidates.rows), SAMPLED)
    if len(queries) == len(candidates.rows):
        return candidates, listed, near
    pairs = np.flatnonzero(np.isin(candidates.pair_query, queries))
    few = replace(
        candidates,
        rows=candidates.rows[queries],
        scores=candidates.scores[:, queries],
        mean=candidates.mean[:, queries],
        deviation=candidates.deviation[:, queries],
        pair_query=np.searchsorted(queries, candidates.pair_query[pairs]),
        pair_passage=candidates.pair_passage[pairs],
        pair_scores=candidates.pair_scores[:, pairs],
        query_text=candidates.query_text[queries],
        neighbours={name: cosines[pairs] for name, cosines in candidates.neighbours.items()},
    )
    listed_queries, listed_passages = listed.pairs
    here = np.isin(listed_queries, queries)
    own = np.searchsorted(queries, listed_queries[here])
    few_listed = Listed(own, listed_passages[here], listed.everywhere)
    return few, few_listed, None if near is None else near[pairs]


def read_rows(
    selection: Selection, candidates: Candidates, settings: SelectionSettings, rows: list[int]
) -> list[ReadRow]:
    """Return some rows as they are to be read: by their first negative's teacher, where there are several."""
    opinions = views(candidates, settings)
    found = []
    for row in rows:
        view = opinions[int(selection.teacher[row, 0]) if selection.places[row, 0] != NONE else 0]
        query = int(selection.row_query[row])
        pairs = range(*np.searchsorted(candidates.pair_query, [query, query + 1]).tolist())
        if selection.row_pair is not None:
            pairs = range(row, row + 1)
        positive = positive_scores(view.pair_scores, candidates.pair_query, settings)[row]
        order = np.argsort(-view.scores[query], kind="stable")
        found.append(
            ReadRow(
                row=row,
                query=query,
                teacher=view.teacher,
                ceiling=float(ceiling(positive[None], settings)[0]),
                pairs=list(pairs),
                pair_scores=view.pair_scores[list(pairs)].tolist(),
                places=order[selection.fates[row, order] != Fate.ABSENT].tolist(),
                scores=view.scores[query],
            )
        )
    return found
