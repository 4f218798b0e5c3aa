"""The hold-out audit: how many mined negatives answer their query after all? Measured without any judge.

Of the known positives of a query one is kept and the others are hidden, from every exclusion too. What is then mined
and hidden is a false negative for certain. Queries with a single positive tell nothing and are left out.

Shapes: S pairs of a query and its positive.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean, pstdev

import numpy as np
from jaxtyping import Bool, Int64

from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.samplers import NONE
from embedsmith.mining.selection import Selection, select
from embedsmith.mining.settings import METHODS, SelectionSettings

DRAWS = 5
"""Draws of the kept positives that a figure is the mean of: one draw moves the rate by up to 0.05."""


@dataclass(frozen=True)
class Audit:
    """What one way of selecting is worth on the queries that have several positives."""

    false_negative_rate: float
    """Share of the mined negatives that are hidden positives."""
    spread: float
    """Standard deviation of the rate over the draws."""
    hardness: float
    """Mean score of the mined negatives by one fixed teacher, the first."""
    full_rows: float
    """Share of the queries that got as many negatives as were asked for."""
    negatives: float
    """Mined negatives of a draw."""
    queries: int


def audit(
    candidates: Candidates,
    ways: Mapping[str, SelectionSettings],
    *,
    listed: Listed | None = None,
    near: Bool[np.ndarray, "Q K"] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> dict[str, Audit]:
    """Return the audit of each way of selecting, all of them on the same draws.

    Args:
        ways: name -> settings.
        listed: what is excluded beside the known positives.
        near: which candidates are near-duplicates of a positive.

    Raises:
        InputError: no query has two positives of different texts.
    """
    found: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in ways}
    queries = 0
    for draw in range(draws):
        kept = kept_pairs(candidates, seed=seed + draw)
        queries = len(kept)
        few = candidates.of_pairs(kept)
        query = candidates.pair_query[kept]
        hidden = _hidden_keys(candidates, kept)
        few_listed = _listed_of(listed, query)
        for name, settings in ways.items():
            selection = select(few, settings, listed=few_listed, near=None if near is None else near[query])
            found[name].append(_measured(selection, few, hidden))
    return {
        name: Audit(
            false_negative_rate=round(mean(rate for rate, *_ in rows), 4),
            spread=round(pstdev([rate for rate, *_ in rows]), 4),
            hardness=round(mean(hardness for _, hardness, *_ in rows), 4),
            full_rows=round(mean(full for _, _, full, _ in rows), 4),
            negatives=float(mean(count for *_, count in rows)),
            queries=queries,
        )
        for name, rows in found.items()
    }


def side_by_side(settings: SelectionSettings) -> dict[str, SelectionSettings]:
    """Return every method of the paper with its own best setting, and the settings as they are.

    The methods stand alone: one teacher, no other rule, the best candidates taken.
    """
    plain = {name: SelectionSettings(method=name, negatives=settings.negatives) for name in METHODS[:5]}
    return {**plain, "this run": settings}


def calibrate(
    candidates: Candidates, settings: SelectionSettings, target: float, *, listed: Listed | None = None, seed: int = 0
) -> tuple[SelectionSettings, Audit]:
    """Return settings whose ceiling is the highest with a false-negative rate of at most `target`, and their audit.

    It is `ratio` that is moved where the method is percpos, `margin` for marginpos, `threshold` for abs. The rate is
    taken to rise with the ceiling.

    Raises:
        SettingsError: the method has no such number, or none of its values reaches the target.
        InputError: no query has two positives of different texts.
    """
    ladders = {
        "percpos": ("ratio", np.arange(0.05, 1.1001, 0.01)),
        "marginpos": ("margin", np.arange(0.8, -0.0001, -0.01)),
        "abs": ("threshold", np.arange(-0.5, 1.0001, 0.01)),
    }
    ladder = next((ladders[name] for name in settings.methods if name in ladders), None)
    if ladder is None:
        raise SettingsError(
            f"target_false_negatives: method {settings.method} has no ceiling to move",
            hint=f"choose {', '.join(ladders)}",
        )
    field, values = ladder
    steps = [settings.model_copy(update={field: round(float(value), 3)}) for value in values]
    audits: dict[int, Audit] = {}

    def rate(step: int) -> float:
        audits[step] = audit(candidates, {"": steps[step]}, listed=listed, seed=seed)[""]
        return audits[step].false_negative_rate

    best = bisect_right(range(len(steps)), target, key=rate) - 1
    if best < 0:
        raise SettingsError(
            f"target_false_negatives: {target} is not reached: {settings.method} at {field} "
            f"{getattr(steps[0], field)} still has {audits[0].false_negative_rate}",
            hint="ask for more, or add --neighbour, --veto or another teacher",
        )
    rate(best)
    return steps[best], audits[best]


def kept_pairs(candidates: Candidates, *, seed: int) -> Int64[np.ndarray, " _"]:
    """Return one pair, at random, of every query that has positives of different texts.

    Raises:
        InputError: there is no such query.
    """
    query, text = candidates.pair_query, candidates.passage_text[candidates.pair_passage]
    first = np.flatnonzero(np.diff(query, prepend=-1))
    several = np.maximum.reduceat(text, first) != np.minimum.reduceat(text, first)
    if not several.any():
        raise InputError(
            "no query has two positives of different texts, and the audit hides all but one",
            hint="audit data with several positives a query, for example all splits together: --split all",
        )
    counts = np.diff(first, append=len(query))
    drawn = first + (np.random.default_rng(seed).random(len(first)) * counts).astype(np.int64)
    return drawn[several]


def _hidden_keys(candidates: Candidates, kept: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " _"]:
    """Return a sorted key (row, text) of every hidden positive, rows numbered as the kept pairs."""
    row_of = np.full(len(candidates.rows), -1)
    row_of[candidates.pair_query[kept]] = np.arange(len(kept))
    hidden = np.setdiff1d(np.flatnonzero(row_of[candidates.pair_query] >= 0), kept)
    texts = candidates.passage_text[candidates.pair_passage[hidden]]
    return np.unique(row_of[candidates.pair_query[hidden]] * len(candidates.passage_text) + texts)


def _measured(
    selection: Selection, candidates: Candidates, hidden: Int64[np.ndarray, " _"]
) -> tuple[float, float, float, int]:
    """Return rate, hardness, share of full rows and number of negatives of one draw."""
    row, column = np.nonzero((selection.rows != NO_PASSAGE) & (selection.outcome != 4)[:, None])
    query = selection.row_query[row]
    keys = query * len(candidates.passage_text) + candidates.passage_text[selection.rows[row, column]]
    place = selection.places[row, column]
    scored = place != NONE
    scores = candidates.scores[0, query[scored], place[scored]]
    return (
        float(np.isin(keys, hidden).mean()) if len(row) else 0.0,
        float(scores.mean()) if len(scores) else float("nan"),
        float((selection.outcome == 0).mean()),
        len(row),
    )


def _listed_of(listed: Listed | None, query: Int64[np.ndarray, " _"]) -> Listed | None:
    """Return what is listed for some queries, which are numbered anew."""
    if listed is None:
        return None
    place = np.searchsorted(query, listed.queries)
    here = (place < len(query)) & (query[np.minimum(place, len(query) - 1)] == listed.queries)
    return Listed(place[here], listed.passages[here], listed.everywhere)
