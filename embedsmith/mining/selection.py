"""Selection: candidates in, negatives out. Arrays only; no model, no search, no text.

A candidate is excluded when it answers the query or is it; then a method drops what scores too well to be safe; then a
sampler takes some of those that are left. A candidate that was dropped never comes back.

Shapes: Q queries, K candidates, S pairs of a query and its positive, M negatives; R rows: the queries, or with
`positive: each` the pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.ensembles import View, views
from embedsmith.mining.exclusions import Fate, Listed, exclusions
from embedsmith.mining.filling import fill_up
from embedsmith.mining.rules import drop_neighbours, of_rows, verdict_of, vetoed_by
from embedsmith.mining.samplers import NONE, pick
from embedsmith.mining.settings import SelectionSettings

OUTCOMES = ("full", "short", "none", "filled", "dropped")

_DROPPED_BY = {
    "excluded_as_positive": (Fate.POSITIVE, Fate.SAME_TEXT),
    "excluded_as_query": (Fate.OWN_TEXT,),
    "excluded_by_list": (Fate.LISTED,),
    "excluded_by_judge": (Fate.JUDGED,),
    "excluded_as_copy": (Fate.COPY,),
    "excluded_as_near_duplicate": (Fate.NEAR_DUPLICATE,),
    "dropped_by_neighbour": (Fate.NEIGHBOUR,),
    "dropped_by_distances": (Fate.DISTANCES,),
    "dropped_by_shift": (Fate.SHIFTED,),
    "dropped_by_ceiling": (Fate.CEILING,),
    "dropped_by_floor": (Fate.FLOOR,),
    "dropped_by_veto": (Fate.VETO,),
}


@dataclass(frozen=True)
class Selection:
    """Which candidates became negatives, and what happened to the others."""

    teachers: list[str]
    row_query: Int64[np.ndarray, " R"]
    row_pair: Int64[np.ndarray, " R"] | None
    """The pair of each row, with `positive: each`."""
    places: Int64[np.ndarray, "R M"]
    """Places among the query's candidates; `NONE` where there is no negative, or a random one."""
    rows: Int64[np.ndarray, "R M"]
    """Rows of the corpus."""
    scores: Float32[np.ndarray, "R M"]
    teacher: Int64[np.ndarray, "R M"]
    """Number in `teachers`."""
    ranks: Int64[np.ndarray, "R M"]
    """Rank by the teacher's score before any rule dropped a candidate, from 1."""
    pair_scores: Float32[np.ndarray, " S"]
    """The positives' scores, on the scale of the negatives' (of the first view, where there are several)."""
    fates: UInt8[np.ndarray, "R K"]
    """See `exclusions.Fate`."""
    outcome: UInt8[np.ndarray, " R"]
    """Number in `OUTCOMES`."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows by outcome, and candidates by the rule that dropped them."""
        fates = np.bincount(self.fates.ravel(), minlength=len(Fate))
        outcomes = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {
            "queries": len(self.outcome),
            **{name: int(number) for name, number in zip(OUTCOMES, outcomes, strict=True)},
            "negatives": int((self.rows[self.outcome != OUTCOMES.index("dropped")] != NO_PASSAGE).sum()),
            "candidates": int(self.fates.size - fates[Fate.ABSENT]),
            **{name: int(sum(fates[fate] for fate in those)) for name, those in _DROPPED_BY.items()},
        }


def select(
    candidates: Candidates,
    settings: SelectionSettings,
    *,
    listed: Listed | None = None,
    near: Bool[np.ndarray, "S K"] | None = None,
) -> Selection:
    """Return each row's negatives.

    Args:
        listed: what is excluded beside the known positives.
        near: which candidates are near-duplicates of each pair's positive, where the settings exclude them.

    Raises:
        SettingsError: the settings ask for what the candidates do not hold.
    """
    if settings.near_duplicates is None:
        near = None
    elif near is None:
        raise SettingsError(
            "near_duplicates: the candidates' texts are needed", hint="give `near`; it is made by near_duplicates()"
        )
    each = settings.positive == "each"
    row_query = candidates.pair_query if each else np.arange(len(candidates.rows))
    opinions = views(candidates, settings)
    fates = of_rows(exclusions(candidates, listed or Listed.nothing(), near), row_query, copy=True)
    drop_neighbours(fates, candidates, settings)
    asked = settings.veto or settings.veto_deviations is not None
    vetoed = vetoed_by(candidates, settings, row_query) if asked else None
    verdicts = [verdict_of(view, fates, candidates, settings, row_query, vetoed) for view in opinions]
    places, view_of = _chosen(opinions, verdicts, row_query, settings)
    taken = places != NONE
    row, column = np.nonzero(taken)
    fates = _together(verdicts)
    fates[row, places[taken]] = Fate.TAKEN
    query = row_query[row]
    rows = np.full(places.shape, NO_PASSAGE, np.int64)
    rows[taken] = candidates.rows[query, places[taken]]
    scores = np.full(places.shape, np.nan, np.float32)
    ranks = np.zeros(places.shape, np.int64)
    for number, view in enumerate(opinions):
        own = view_of[taken] == number
        scores[row[own], column[own]] = view.scores[query[own], places[taken][own]]
        ranks[row[own], column[own]] = _ranks_of(view, query[own], places[taken][own])
    if settings.short == "random":
        rows = fill_up(rows, row_query, candidates, listed or Listed.nothing(), seed=settings.mining_seed)
        view_of = np.where((rows != NO_PASSAGE) & ~taken, len(opinions), view_of)
    return Selection(
        teachers=[view.teacher for view in opinions],
        row_query=row_query,
        row_pair=np.arange(len(row_query)) if each else None,
        places=places,
        rows=rows,
        scores=scores,
        teacher=view_of,
        ranks=ranks,
        pair_scores=opinions[0].pair_scores,
        fates=fates,
        outcome=_outcomes(taken, rows, settings),
    )


def _picked(
    view: View,
    verdict: tuple[UInt8[np.ndarray, "R K"], Int64[np.ndarray, "R K"]],
    row_query: Int64[np.ndarray, " R"],
    settings: SelectionSettings,
    *,
    negatives: int,
    stream: int,
) -> Int64[np.ndarray, "R M"]:
    """Return the places that a sampler takes by one view, best first."""
    fates, ranks = verdict
    allowed, scores = fates == Fate.LEFT, of_rows(view.scores, row_query)
    if view.is_sorted:
        return pick(allowed, scores, ranks, settings, negatives=negatives, stream=stream)
    order = of_rows(view.order, row_query)
    allowed, scores, ranks = (np.take_along_axis(table, order, axis=1) for table in (allowed, scores, ranks))
    picked = pick(allowed, scores, ranks, settings, negatives=negatives, stream=stream)
    return np.where(picked == NONE, NONE, np.take_along_axis(order, np.maximum(picked, 0), axis=1))


def _chosen(
    opinions: list[View],
    verdicts: list[tuple[UInt8[np.ndarray, "R K"], Int64[np.ndarray, "R K"]]],
    row_query: Int64[np.ndarray, " R"],
    settings: SelectionSettings,
) -> tuple[Int64[np.ndarray, "R M"], Int64[np.ndarray, "R M"]]:
    """Return the places of the negatives, and the number of the view that each is from."""
    wanted, stream = settings.negatives, count()
    picks = [
        _picked(view, verdict, row_query, settings, negatives=wanted, stream=next(stream))
        for view, verdict in zip(opinions, verdicts, strict=True)
    ]
    if len(picks) == 1:
        return picks[0], np.zeros_like(picks[0])
    if settings.ensemble == "cross":
        # A query has one teacher, in all the rows of its positives.
        rng = np.random.default_rng([settings.mining_seed, next(stream)])
        drawn = rng.integers(len(opinions), size=int(row_query.max()) + 1)[row_query]
        return np.stack(picks)[drawn, np.arange(len(drawn))], np.repeat(drawn[:, None], wanted, axis=1)
    turns = [turn % len(opinions) for turn in range(wanted)]
    view_of = np.repeat(np.array(turns)[None], len(row_query), axis=0)
    if settings.ensemble == "intra":
        return np.stack([picks[view][:, turn // len(opinions)] for turn, view in enumerate(turns)], axis=1), view_of
    places = np.full((len(row_query), wanted), NONE, np.int64)
    for turn, view in enumerate(turns):
        # A teacher's M picks hold at least one that the M - 1 others do not, if it has M.
        known = (picks[view][:, :, None] == places[:, None, :turn]).any(axis=2)
        fresh = ~known & (picks[view] != NONE)
        best = np.take_along_axis(picks[view], fresh.argmax(axis=1)[:, None], axis=1)[:, 0]
        places[:, turn] = np.where(fresh.any(axis=1), best, NONE)
    return places, view_of


def _together(verdicts: list[tuple[UInt8[np.ndarray, "R K"], Any]]) -> UInt8[np.ndarray, "R K"]:
    """Return the candidates' fates by all views: what one of them leaves is left, else the first one's word counts."""
    fates = verdicts[0][0]
    for other, _ in verdicts[1:]:
        fates[(other == Fate.LEFT) | ((fates == Fate.UNRANKED) & (other != Fate.UNRANKED))] = Fate.LEFT
    return fates


def _ranks_of(view: View, query: Int64[np.ndarray, " n"], place: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the ranks of some candidates by a view's score, from 1."""
    if view.is_sorted:
        return place + 1
    return np.argmax(view.order[query] == place[:, None], axis=1) + 1


def _outcomes(
    taken: Bool[np.ndarray, "R M"], rows: Int64[np.ndarray, "R M"], settings: SelectionSettings
) -> UInt8[np.ndarray, " R"]:
    """Return each row's outcome, a number in `OUTCOMES`."""
    found, wanted = taken.sum(axis=1), taken.shape[1]
    outcome = np.where(found == wanted, 0, np.where(found > 0, 1, 2))
    outcome[(found < wanted) & (rows != NO_PASSAGE).all(axis=1)] = OUTCOMES.index("filled")
    if settings.short == "drop":
        outcome[found < wanted] = OUTCOMES.index("dropped")
    return outcome.astype(np.uint8)
