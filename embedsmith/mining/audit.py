"""The hold-out audit: how many mined negatives answer their query after all? Measured without any judge.

Of the known positives of a query one is kept and the others are hidden, from every exclusion too. What is then mined
and hidden is a false negative for certain. Queries with a single positive cannot be measured and are left out;
queries of the same text are one.

Shapes: S pairs of a query and its positive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from statistics import mean, pstdev

import numpy as np
from jaxtyping import Bool, Int64

from embedsmith.errors import InputError, SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.exclusions import Listed
from embedsmith.mining.samplers import NONE
from embedsmith.mining.selection import OUTCOMES, Selection, select
from embedsmith.mining.settings import METHODS, SelectionSettings
from embedsmith.pages.tables import Figures, Tabular
from embedsmith.progress import Progress, silent

DRAWS = 5
"""Draws of the kept positives that a figure is the mean of: one draw moves the rate by up to 0.05."""


@dataclass(frozen=True)
class Audit:
    """What one way of selecting is worth on the queries that have several positives."""

    false_negative_rate: float
    """Share of the mined negatives that are hidden positives."""
    spread: float
    """Standard deviation of the rate over the draws."""
    hardness: float | None
    """Mean score of the mined negatives by one fixed teacher, the first; None where nothing was mined."""
    full_rows: float
    """Share of the queries that got as many negatives as were asked for."""
    negatives: float
    """Mined negatives of a draw."""
    queries: int


class Audits(dict[str, Audit], Tabular):
    """The audit of each way of selecting, by its name; it prints as a table.

    >>> Audits(naive=Audit(0.25, 0.05, None, 1.0, 40.0, 20))
    Hold-out audit, 20 queries with several positives
           false-negative rate  hardness  full rows
    naive        0.250 ± 0.050         –       1.00
    """

    def figures(self) -> Figures:
        """Return the audits as a table."""
        queries = max((row.queries for row in self.values()), default=0)
        rows = [
            [
                name,
                f"{row.false_negative_rate:.3f} ± {row.spread:.3f}",
                "–" if row.hardness is None else f"{row.hardness:.3f}",
                f"{row.full_rows:.2f}",
            ]
            for name, row in self.items()
        ]
        title = f"Hold-out audit, {queries:,} queries with several positives"
        return Figures(title, ["", "false-negative rate", "hardness", "full rows"], rows)

    def __repr__(self) -> str:
        return str(self)


def audit(
    candidates: Candidates,
    ways: Mapping[str, SelectionSettings],
    *,
    listed: Listed | None = None,
    near: Bool[np.ndarray, "S K"] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    on_progress: Progress = silent,
) -> Audits:
    """Return the audit of each way of selecting, all of them on the same draws.

    Args:
        ways: name -> settings.
        listed: what is excluded beside the known positives.
        near: which candidates are near-duplicates of each pair's positive, for the ways that exclude them.

    Raises:
        InputError: no query has two positives of different texts.
    """
    found: dict[str, list[tuple[float, float, float, int]]] = {name: [] for name in ways}
    queries = 0
    for draw in range(draws):
        kept = kept_pairs(candidates, seed=seed + draw)
        queries = len(kept)
        few = candidates.of_pairs(kept)
        hidden = _hidden_keys(candidates, kept)
        few_listed = _listed_of(listed or Listed.nothing(), candidates, kept, hidden)
        few_near = None if near is None else near[kept]
        for number, (name, settings) in enumerate(ways.items(), start=1):
            selection = select(few, settings, listed=few_listed, near=few_near)
            found[name].append(_measured(selection, few, hidden))
            on_progress("audit", draw * len(ways) + number, draws * len(ways))
    return Audits({name: _over_draws(rows, queries) for name, rows in found.items()})


def _over_draws(rows: list[tuple[float, float, float, int]], queries: int) -> Audit:
    """Return the audit whose draws were measured so."""
    rates, hardness, full, counts = zip(*rows, strict=True)
    scored = [value for value in hardness if not isnan(value)]
    return Audit(
        false_negative_rate=round(mean(rates), 4),
        spread=round(pstdev(rates), 4),
        hardness=round(mean(scored), 4) if scored else None,
        full_rows=round(mean(full), 4),
        negatives=float(mean(counts)),
        queries=queries,
    )


def side_by_side(settings: SelectionSettings) -> dict[str, SelectionSettings]:
    """Return every method of the paper with its own best setting, and the settings as they are.

    The methods stand alone: one teacher, no other rule, the best candidates taken.
    """
    plain = {name: SelectionSettings(method=name, negatives=settings.negatives) for name in METHODS[:5]}
    return {**plain, "this run": settings}


def calibrate(
    candidates: Candidates,
    settings: SelectionSettings,
    target: float,
    *,
    listed: Listed | None = None,
    near: Bool[np.ndarray, "S K"] | None = None,
    seed: int = 0,
    on_progress: Progress = silent,
) -> tuple[SelectionSettings, Audit]:
    """Return settings with the highest ceiling whose false-negative rate is at most `target`, and their audit.

    It is `ratio` that is moved where the method is percpos, `margin` for marginpos, `threshold` for abs, from the top
    down in steps of 0.01. Each step is audited: the rate need not fall with the ceiling.

    Raises:
        SettingsError: the method has no such number, or no value mines negatives at so low a rate.
        InputError: no query has two positives of different texts.
    """
    ladders = {
        "percpos": ("ratio", np.arange(1.1, 0.0499, -0.01)),
        "marginpos": ("margin", np.arange(0, 0.8001, 0.01)),
        "abs": ("threshold", np.arange(1, -0.5001, -0.01)),
    }
    ladder = next((ladders[name] for name in settings.methods if name in ladders), None)
    if ladder is None:
        raise SettingsError(
            f"target_false_negatives: method {settings.method} has no ceiling to move",
            hint=f"choose {', '.join(ladders)}",
        )
    field, values = ladder
    lowest: tuple[SelectionSettings, Audit] | None = None
    for number, value in enumerate(values, start=1):
        step = settings.model_copy(update={field: round(float(value), 2)})
        found = audit(candidates, {"": step}, listed=listed, near=near, seed=seed)[""]
        on_progress("calibrate", number, len(values))
        if not found.negatives:
            continue  # no rate is low where nothing is mined
        if found.false_negative_rate <= target:
            on_progress("calibrate", len(values), len(values))
            return step, found
        if lowest is None or found.false_negative_rate < lowest[1].false_negative_rate:
            lowest = step, found
    reached = "no value mines anything"
    if lowest:
        reached = f"the lowest rate is {lowest[1].false_negative_rate}, at {field} {getattr(lowest[0], field)}"
    raise SettingsError(
        f"target_false_negatives: {target} is not reached by {settings.method}: {reached}",
        hint="ask for more, or add --neighbour-ratio 1, --veto or another teacher",
    )


def kept_pairs(candidates: Candidates, *, seed: int) -> Int64[np.ndarray, " _"]:
    """Return one pair, at random, of every query that has positives of different texts.

    Raises:
        InputError: there is no such query.
    """
    group, text = _groups(candidates), candidates.passage_text[candidates.pair_passage]
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.diff(group[order], prepend=-1))
    several = np.maximum.reduceat(text[order], first) != np.minimum.reduceat(text[order], first)
    if not several.any():
        raise InputError(
            "no query has two positives of different texts, and the audit hides all but one",
            hint="audit data with several positives a query, for example all splits together: --split all",
        )
    counts = np.diff(first, append=len(order))
    drawn = first + (np.random.default_rng(seed).random(len(first)) * counts).astype(np.int64)
    return np.sort(order[drawn[several]])


def _groups(candidates: Candidates) -> Int64[np.ndarray, " S"]:
    """Return the number of each pair's query, counting queries of one text once, in the order they first come in."""
    _, first, group = np.unique(candidates.query_text, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group][candidates.pair_query]


def _hidden_keys(candidates: Candidates, kept: Int64[np.ndarray, " _"]) -> Int64[np.ndarray, " _"]:
    """Return a sorted key (row, text) of every hidden positive, rows numbered as the kept pairs."""
    group, text = _groups(candidates), candidates.passage_text[candidates.pair_passage]
    row_of = np.full(int(group.max()) + 1, -1)
    row_of[group[kept]] = np.arange(len(kept))
    row = row_of[group]
    hidden = (row >= 0) & (text != text[kept][row])  # row -1 is some row, and hides nothing
    return np.unique(_keys(row[hidden], text[hidden], candidates))


def _keys(
    row: Int64[np.ndarray, " n"], text: Int64[np.ndarray, " n"], candidates: Candidates
) -> Int64[np.ndarray, " n"]:
    """Return one number for each (row, text of a passage)."""
    return row * len(candidates.passage_text) + text


def _measured(
    selection: Selection, candidates: Candidates, hidden: Int64[np.ndarray, " _"]
) -> tuple[float, float, float, int]:
    """Return rate, hardness, share of full rows and number of negatives of one draw."""
    row, column = np.nonzero((selection.rows != NO_PASSAGE) & (selection.outcome != OUTCOMES.index("dropped"))[:, None])
    query = selection.row_query[row]
    keys = _keys(query, candidates.passage_text[selection.rows[row, column]], candidates)
    place = selection.places[row, column]
    scored = place != NONE
    scores = candidates.scores[0, query[scored], place[scored]]
    return (
        float(np.isin(keys, hidden).mean()) if len(row) else 0.0,
        float(scores.mean()) if len(scores) else float("nan"),
        float((selection.outcome == OUTCOMES.index("full")).mean()),
        len(row),
    )


def _listed_of(
    listed: Listed, candidates: Candidates, kept: Int64[np.ndarray, " _"], hidden: Int64[np.ndarray, " _"]
) -> Listed:
    """Return what is listed for the queries of the kept pairs, which are numbered anew; nothing that is hidden."""
    query, text = candidates.pair_query[kept], candidates.passage_text
    queries, passages = listed.pairs
    row = np.minimum(np.searchsorted(query, queries), len(query) - 1)
    here = query[row] == queries
    here &= ~np.isin(_keys(row, text[passages], candidates), hidden)
    # A passage that nobody's negative may be, and that is hidden from one query, stays excluded from the others.
    known = np.isin(text[listed.everywhere], hidden % len(text))
    rows = candidates.rows[query]
    its_row, place = np.nonzero((rows != NO_PASSAGE) & np.isin(text[rows], text[listed.everywhere[known]]))
    its_passage = rows[its_row, place]
    free = ~np.isin(_keys(its_row, text[its_passage], candidates), hidden)
    return Listed(
        np.append(row[here], its_row[free]),
        np.append(passages[here], its_passage[free]),
        listed.everywhere[~known],
    )
