"""The figures of a selection: are its negatives hard, are they safe, and what became of the rest?

Arrays in, plain numbers out; texts and drawings are the caller's. Where several teachers take turns (`cross`, `intra`)
each negative is held against the positive's score by its own teacher, and each teacher has its own histograms: their
scores share no scale.

Source: NV-Retriever, figure 4 (scores, differences, loss) and table 6 (agreement of teachers).
Shapes: Q queries, K candidates, S pairs of a query and its positive, R rows, M negatives, n some negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from embedsmith.mining.candidates import Candidates
from embedsmith.mining.ensembles import PCA, View, views
from embedsmith.mining.exclusions import Fate
from embedsmith.mining.histograms import Histogram, evenly, histogram, rank_groups, round_edges
from embedsmith.mining.rules import neighbour_cosines, positive_scores
from embedsmith.mining.samplers import NONE
from embedsmith.mining.samples import SAMPLED
from embedsmith.mining.selection import OUTCOMES, Selection
from embedsmith.mining.settings import SelectionSettings

SUSPECTS = 10
"""Suspected false negatives in each list."""
TOP = (4, 10)
"""How many of the teachers' best are compared; 4 is the paper's."""
_KNOWN = (
    Fate.ABSENT,
    Fate.POSITIVE,
    Fate.SAME_TEXT,
    Fate.OWN_TEXT,
    Fate.LISTED,
    Fate.JUDGED,
    Fate.COPY,
    Fate.NEAR_DUPLICATE,
)
"""Fates that say what a candidate is, whatever the method."""


@dataclass(frozen=True)
class Judged:
    """What one teacher, or one mixture of teachers, says of the negatives that it took."""

    teacher: str
    rows: int
    """Rows with a negative by this teacher."""
    most: int
    """The most that it gave one row: where all scores are equal the loss is log(1 + most)."""
    positives: Histogram
    """Scores of all positives, in the same bins as `negatives`."""
    negatives: Histogram
    differences: Histogram
    """The row's positive minus its first negative."""
    above: int
    """Rows whose first negative scores no lower than the positive."""
    loss: Histogram
    """Cross-entropy of each row: its positive against its negatives."""
    temperature: float


@dataclass(frozen=True)
class Agreement:
    """How alike two teachers' best candidates are."""

    teachers: tuple[str, str]
    jaccard: dict[str, float]
    """`top 4` -> mean over the queries of the number in both lists over the number in either."""


@dataclass(frozen=True)
class Suspect:
    """A negative that may answer its query after all."""

    row: int
    place: int
    """Among the query's candidates."""
    score: float
    positive_score: float
    ratio: float
    """See `score_ratios`."""
    cosine: float | None
    """With the nearest positive passage; None where no teacher has vectors."""


@dataclass(frozen=True)
class Figures:
    """The figures of one selection."""

    queries: int
    counts: dict[str, int]
    """See `Selection.counts`."""
    fates: dict[str, int]
    """Name of each `Fate`, in lower case -> candidates."""
    outcomes: dict[str, int]
    """Outcome -> rows."""
    sizes: list[int]
    """Rows with 0, 1, 2 … mined negatives."""
    judged: list[Judged]
    ranks: dict[str, int]
    """`5-9` -> negatives of those ranks, by their teacher's score before any rule."""
    median_rank: float | None
    agreement: list[Agreement]
    by_ratio: list[Suspect]
    """The negatives that score most like their positives, to a per cent, one a query."""
    by_cosine: list[Suspect]
    """The negatives that are nearest to a positive passage, one a query."""


def figures(
    selection: Selection, candidates: Candidates, settings: SelectionSettings, *, temperature: float
) -> Figures:
    """Return the figures of a selection.

    Args:
        settings: those that the selection was made by.
        temperature: of the loss, for scores that are cosines; others are not divided.
    """
    opinions = views(candidates, settings)
    kept = (selection.places != NONE) & (selection.outcome != OUTCOMES.index("dropped"))[:, None]
    row, column = np.nonzero(kept)
    ranks = selection.ranks[row, column]
    by_ratio, by_cosine = _suspects(selection, candidates, settings, opinions, row, column)
    counts = np.bincount(selection.fates.ravel(), minlength=len(Fate))
    return Figures(
        queries=len(candidates.rows),
        counts=selection.counts,
        fates={fate.name.lower(): int(counts[fate]) for fate in Fate if fate != Fate.ABSENT},
        outcomes=dict(
            zip(OUTCOMES, np.bincount(selection.outcome, minlength=len(OUTCOMES)).tolist(), strict=True),
        ),
        sizes=np.bincount(kept.sum(axis=1), minlength=selection.places.shape[1] + 1).tolist(),
        judged=[
            _judged(number, view, selection, candidates, settings, row, column, temperature)
            for number, view in enumerate(opinions)
        ],
        ranks=rank_groups(ranks),
        median_rank=float(np.median(ranks)) if len(ranks) else None,
        agreement=_agreement(selection, candidates),
        by_ratio=by_ratio,
        by_cosine=by_cosine,
    )


def score_ratios(negative: Float32[np.ndarray, " n"], positive: Float32[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return negative / positive, as percpos reads it: 1 + (negative - positive) / |positive|.

    A plain quotient turns round below 0. Kept within -10 and 10, for positives that score next to nothing.

    >>> score_ratios(np.float32([0.5, -2, 3]), np.float32([1, -1, 0])).tolist()
    [0.5, 0.0, 10.0]
    """
    distance = negative.astype(np.float64) - positive
    return np.clip(1 + distance / np.maximum(np.abs(positive), 1e-6), -10, 10)


def row_losses(
    positive: Float32[np.ndarray, " n"], negatives: Float32[np.ndarray, "n M"], temperature: float
) -> Float64[np.ndarray, " n"]:
    """Return log(1 + sum of exp((negative - positive) / temperature)) of each row; NaN is no negative.

    >>> row_losses(np.float32([1.0]), np.float32([[1.0, 1.0, np.nan]]), 0.05).round(4).tolist()
    [1.0986]
    """
    logits = (negatives.astype(np.float64) - positive[:, None]) / temperature
    logits = np.where(np.isnan(logits), -np.inf, logits)
    return np.logaddexp.reduce(np.concatenate([np.zeros((len(logits), 1)), logits], axis=1), axis=1)


def jaccard(
    scores: Float32[np.ndarray, "q K"], others: Float32[np.ndarray, "q K"], top: int
) -> Float64[np.ndarray, " q"]:
    """Return the Jaccard similarity of the best `top` by two teachers; NaN is no candidate, ties as they stand.

    >>> jaccard(np.float32([[3, 2, 1, np.nan]]), np.float32([[1, 3, 2, np.nan]]), 2).round(3).tolist()
    [0.333]
    """
    one, other = _best(scores, top), _best(others, top)
    return (one & other).sum(axis=1) / np.maximum((one | other).sum(axis=1), 1)


def _best(scores: Float32[np.ndarray, "q K"], top: int) -> Bool[np.ndarray, "q K"]:
    """Return which candidates are among the best."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    best = np.zeros(scores.shape, bool)
    np.put_along_axis(best, order, True, axis=1)
    return best & ~np.isnan(scores)


def _judged(
    number: int,
    view: View,
    selection: Selection,
    candidates: Candidates,
    settings: SelectionSettings,
    row: Int64[np.ndarray, " n"],
    column: Int64[np.ndarray, " n"],
    temperature: float,
) -> Judged:
    """Return what a view says of its own negatives, which stand in some rows and columns."""
    own = selection.teacher[row, column] == number
    scores = np.full(selection.scores.shape, np.nan, np.float32)
    scores[row[own], column[own]] = selection.scores[row[own], column[own]]
    there = np.unique(row[own])
    scores = scores[there]
    most = int((~np.isnan(scores)).sum(axis=1).max(initial=0))
    positive = positive_scores(view.pair_scores, candidates.pair_query, settings)[there]
    negatives = scores[~np.isnan(scores)]
    first = np.fmax.reduce(scores, axis=1, initial=-np.inf)
    differences = positive - first
    # A cosine lies within 1 of 0; BM25 and sums of standardised scores are spread wide enough as they are.
    highest = max(np.abs(view.pair_scores).max(initial=0), np.abs(negatives).max(initial=0))
    divisor = temperature if highest <= 1.001 else 1.0
    losses = row_losses(positive, scores, divisor)
    edges = round_edges(view.pair_scores, negatives)
    return Judged(
        teacher=view.teacher,
        rows=len(there),
        most=most,
        positives=histogram(view.pair_scores, edges),
        negatives=histogram(negatives, edges),
        differences=histogram(differences, round_edges(differences, through=(0.0,))),
        above=int((differences <= 0).sum()),
        loss=histogram(losses, round_edges(losses, through=(0.0, float(np.log1p(most))))),
        temperature=divisor,
    )


def _agreement(selection: Selection, candidates: Candidates) -> list[Agreement]:
    """Return the mean agreement of each two teachers on what might be a negative: nothing that is known to answer."""
    first = np.flatnonzero(np.diff(selection.row_query, prepend=-1))  # with `positive: each` the first row of a query
    rows = first[evenly(len(first), SAMPLED)]
    known = np.isin(selection.fates[rows], _KNOWN)
    own = {
        name: np.where(
            known | candidates.missed(t)[selection.row_query[rows]],
            np.float32(np.nan),
            candidates.scores[t, selection.row_query[rows]],
        )
        for t, name in enumerate(candidates.teachers)
        if name != PCA
    }
    return [
        Agreement((one, other), {f"top {top}": float(jaccard(own[one], own[other], top).mean()) for top in TOP})
        for one, other in combinations(own, 2)
    ]


def _suspects(
    selection: Selection,
    candidates: Candidates,
    settings: SelectionSettings,
    opinions: list[View],
    row: Int64[np.ndarray, " n"],
    column: Int64[np.ndarray, " n"],
) -> tuple[list[Suspect], list[Suspect]]:
    """Return the negatives with the highest score ratios, and those nearest to a positive passage; the worst first."""
    made, ratio, cosine = _suspected(selection, candidates, settings, opinions, row, column)
    # Under percpos hundreds lie just below the ceiling: of those that are alike to a per cent, the nearest come first.
    alike = np.lexsort((-ratio, -np.nan_to_num(cosine, nan=-2), -np.round(ratio, 2)))
    near = np.argsort(-cosine, kind="stable")  # NaN goes last
    near = near[~np.isnan(cosine[near])]
    by_ratio, by_cosine = (_one_a_query(selection.row_query[row], order) for order in (alike, near))
    return [made(n) for n in by_ratio], [made(n) for n in by_cosine]


def suspects_of(
    selection: Selection,
    candidates: Candidates,
    settings: SelectionSettings,
    where: Bool[np.ndarray, "R M"],
) -> list[Suspect]:
    """Return what there is to say of some negatives, those with the highest score ratios first, one a query.

    Args:
        where: which of the negatives; random ones, which have no scores, are left out.
    """
    row, column = np.nonzero(where & (selection.places != NONE))
    made, ratio, _ = _suspected(selection, candidates, settings, views(candidates, settings), row, column)
    return [made(n) for n in _one_a_query(selection.row_query[row], np.argsort(-ratio, kind="stable"))]


def _one_a_query(query: Int64[np.ndarray, " n"], order: Int64[np.ndarray, " _"]) -> list[int]:
    """Return the first few of some negatives in an order, of each query the first."""
    _, first = np.unique(query[order], return_index=True)
    return order[np.sort(first)[:SUSPECTS]].tolist()


def _suspected(
    selection: Selection,
    candidates: Candidates,
    settings: SelectionSettings,
    opinions: list[View],
    row: Int64[np.ndarray, " n"],
    column: Int64[np.ndarray, " n"],
) -> tuple[Callable[[int], Suspect], Float64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """Return what makes a suspect of the negative of a number, and the score ratios and cosines of all of them."""
    positive = np.stack([positive_scores(view.pair_scores, candidates.pair_query, settings) for view in opinions])
    positive = positive[selection.teacher[row, column], row]
    score, place = selection.scores[row, column], selection.places[row, column]
    ratio = score_ratios(score, positive)
    name = next((name for name in candidates.neighbours if name != PCA), None)
    cosine = np.full(len(row), np.nan, np.float32)
    if name is not None:
        cosine = neighbour_cosines(candidates, name, settings)[row, place]

    def made(n: int) -> Suspect:
        return Suspect(
            row=int(row[n]),
            place=int(place[n]),
            score=float(score[n]),
            positive_score=float(positive[n]),
            ratio=float(ratio[n]),
            cosine=None if np.isnan(cosine[n]) else float(cosine[n]),
        )

    return made, ratio, cosine
