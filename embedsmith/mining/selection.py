"""Selection: candidates in, negatives out. Arrays only; no model, no search, no text.

A candidate is excluded when it answers the query or is it; then a method drops what scores too well to be safe; then a
sampler takes some of those that are left. A candidate that was dropped never comes back.

Shapes: Q queries, K candidates, S pairs of a query and its positive, M negatives; R rows: the queries, or with
`positive: each` the pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, repeat
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from embedsmith.data.collection import Collection
from embedsmith.data.examples import Example, Passage
from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates
from embedsmith.mining.ensembles import PCA, View, teacher_view, views
from embedsmith.mining.exclusions import Fate, Listed, exclusions
from embedsmith.mining.methods import ceiling, first_rank
from embedsmith.mining.samplers import NONE, pick
from embedsmith.mining.settings import SelectionSettings

OUTCOMES = ("full", "short", "none", "filled", "dropped")
RANDOM = "random passage"
"""Stands in the place of a teacher where a short query was filled up."""

_BATCH = 4096
"""Rows whose texts are fetched at once."""

_SMALL = 4096
"""Passages that are all tried for a short query; of a larger corpus as many are drawn."""

_DROPPED_BY = {
    "excluded_as_positive": (Fate.POSITIVE, Fate.SAME_TEXT),
    "excluded_as_query": (Fate.OWN_TEXT,),
    "excluded_by_list": (Fate.LISTED,),
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
    fates = _of_rows(exclusions(candidates, listed or Listed.nothing(), near), row_query, copy=True)
    _drop_neighbours(fates, candidates, settings)
    asked = settings.veto or settings.veto_deviations is not None
    vetoed = _vetoed(candidates, settings, row_query) if asked else None
    verdicts = [_verdict(view, fates, candidates, settings, row_query, vetoed) for view in opinions]
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
    selection = Selection(
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
        outcome=_outcomes(rows, settings),
    )
    if settings.short == "random":
        return _filled(selection, candidates, listed or Listed.nothing(), settings)
    return selection


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


def _of_rows(table: np.ndarray, row_query: Int64[np.ndarray, " R"], *, copy: bool = False) -> np.ndarray:
    """Return a table of queries as one of rows."""
    if len(row_query) == len(table):  # pairs are ascending by query, so as many rows as queries are the queries
        return table.copy() if copy else table
    return table[row_query]


def _positive_scores(
    pair_scores: Float32[np.ndarray, " S"], pair_query: Int64[np.ndarray, " S"], settings: SelectionSettings
) -> Float32[np.ndarray, " R"]:
    """Return the score that stands for a row's positives."""
    if settings.positive == "each":
        return pair_scores
    first = np.flatnonzero(np.diff(pair_query, prepend=-1))
    match settings.positive:
        case "min":
            return np.minimum.reduceat(pair_scores, first)
        case "max":
            return np.maximum.reduceat(pair_scores, first)
        case _:
            return np.add.reduceat(pair_scores, first) / np.diff(first, append=len(pair_scores)).astype(np.float32)


def _neighbours(candidates: Candidates, name: str, settings: SelectionSettings) -> Float32[np.ndarray, "R K"]:
    """Return each candidate's cosine with the row's positive, the nearest where there are several."""
    cosines = candidates.neighbours[name]
    if settings.positive == "each" or len(cosines) == len(candidates.rows):
        return cosines
    return np.maximum.reduceat(cosines, np.flatnonzero(np.diff(candidates.pair_query, prepend=-1)), axis=0)


def _drop_neighbours(fates: UInt8[np.ndarray, "R K"], candidates: Candidates, settings: SelectionSettings) -> None:
    """Drop the candidates that are too close to a positive, in place."""
    if settings.neighbour is None and settings.neighbour_ratio is None:
        return
    name = next((name for name in candidates.neighbours if name != PCA), None)
    if name is None:
        raise SettingsError(
            f"neighbour: none of the teachers has vectors ({', '.join(candidates.teachers)})",
            hint="name an embedding model among the teachers",
        )
    limits = np.full(len(candidates.pair_query), -np.inf, np.float32)
    if settings.neighbour is not None:
        limits[:] = settings.neighbour
    if settings.neighbour_ratio is not None:
        own = candidates.pair_scores[candidates.teachers.index(name)]
        limits = np.maximum(limits, np.float32(settings.neighbour_ratio) * own)
    near = candidates.neighbours[name] >= limits[:, None]
    if settings.positive != "each":
        near = np.logical_or.reduceat(near, np.flatnonzero(np.diff(candidates.pair_query, prepend=-1)), axis=0)
    fates[near & (fates == Fate.LEFT)] = Fate.NEIGHBOUR


def _vetoed(
    candidates: Candidates, settings: SelectionSettings, row_query: Int64[np.ndarray, " R"]
) -> Bool[np.ndarray, "R K"]:
    """Return which candidates some teacher puts at or above its own ceiling, or far above its mean, or both."""
    vetoed = np.zeros((len(row_query), candidates.rows.shape[1]), bool)
    first = 0 if settings.veto_deviations is None else 1
    for t, name in enumerate(candidates.teachers):
        if name == PCA or t < first:
            continue
        view = teacher_view(candidates, t)
        scores = _of_rows(view.scores, row_query)
        limits = np.full(len(row_query), -np.inf, np.float32)
        if settings.veto:
            limits = ceiling(_positive_scores(view.pair_scores, candidates.pair_query, settings), settings)
        if settings.veto_deviations is not None:
            # A teacher that scores all passages alike (BM25 without a known word) says nothing.
            far = candidates.mean[t] + np.float32(settings.veto_deviations) * candidates.deviation[t]
            far = np.where(candidates.deviation[t] > 0, far, np.float32(np.inf))
            limits = np.maximum(limits, far[row_query])
        vetoed |= scores >= limits[:, None]
    return vetoed


def _verdict(
    view: View,
    excluded: UInt8[np.ndarray, "R K"],
    candidates: Candidates,
    settings: SelectionSettings,
    row_query: Int64[np.ndarray, " R"],
    vetoed: Bool[np.ndarray, "R K"] | None,
) -> tuple[UInt8[np.ndarray, "R K"], Int64[np.ndarray, "R K"]]:
    """Return what one view makes of the candidates: their fates, and their ranks after exclusion, as they stand."""
    fates = excluded.copy()
    if view.ranked is not None:
        fates[~_of_rows(view.ranked, row_query) & (fates == Fate.LEFT)] = Fate.UNRANKED
    scores = _of_rows(view.scores, row_query)
    positive = _positive_scores(view.pair_scores, candidates.pair_query, settings)
    if "twodistances" in settings.methods:
        _drop_by_distances(fates, scores, positive, candidates, settings)
    ranks = _ranks_left(fates == Fate.LEFT, view, row_query)
    free = fates == Fate.LEFT
    if shift := first_rank(settings):
        fates[free & (ranks <= shift)] = Fate.SHIFTED
        free = fates == Fate.LEFT
    # Strict: a candidate as good as the ceiling is too good.
    fates[free & (scores >= ceiling(positive, settings)[:, None])] = Fate.CEILING
    if settings.floor is not None:
        fates[(fates == Fate.LEFT) & (scores < settings.floor)] = Fate.FLOOR
    if vetoed is not None:
        fates[(fates == Fate.LEFT) & vetoed] = Fate.VETO
    return fates, ranks


def _drop_by_distances(
    fates: UInt8[np.ndarray, "R K"],
    scores: Float32[np.ndarray, "R K"],
    positive: Float32[np.ndarray, " R"],
    candidates: Candidates,
    settings: SelectionSettings,
) -> None:
    """Drop what is not nearer to the query than the positive is, or not nearer to it than to the positive, in place."""
    if settings.ensemble != PCA:
        raise SettingsError("method: twodistances compares distances in the joined vectors", hint="set ensemble: pca")
    # Of vectors of length 1 the distance falls as the cosine grows.
    between = (scores > positive[:, None]) & (scores > _neighbours(candidates, PCA, settings))
    fates[~between & (fates == Fate.LEFT)] = Fate.DISTANCES


def _ranks_left(
    left: Bool[np.ndarray, "R K"], view: View, row_query: Int64[np.ndarray, " R"]
) -> Int64[np.ndarray, "R K"]:
    """Return each candidate's rank by a view's score among those that are left."""
    if view.is_sorted:
        return np.cumsum(left, axis=1)
    order = _of_rows(view.order, row_query)
    ranks = np.empty(left.shape, np.int64)
    np.put_along_axis(ranks, order, np.cumsum(np.take_along_axis(left, order, axis=1), axis=1), axis=1)
    return ranks


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
    allowed, scores = fates == Fate.LEFT, _of_rows(view.scores, row_query)
    if view.is_sorted:
        return pick(allowed, scores, ranks, settings, negatives=negatives, stream=stream)
    order = _of_rows(view.order, row_query)
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


def _outcomes(rows: Int64[np.ndarray, "R M"], settings: SelectionSettings) -> UInt8[np.ndarray, " R"]:
    """Return each row's outcome."""
    found = (rows != NO_PASSAGE).sum(axis=1)
    outcome = np.where(found == rows.shape[1], 0, np.where(found > 0, 1, 2))
    if settings.short == "drop":
        outcome[found < rows.shape[1]] = OUTCOMES.index("dropped")
    return outcome.astype(np.uint8)


def _filled(selection: Selection, candidates: Candidates, listed: Listed, settings: SelectionSettings) -> Selection:
    """Return a selection whose short rows are filled up with random passages, in place."""
    texts, answers = candidates.passage_text, _answers(candidates)
    listed_of: dict[int, set[int]] = {}
    for query, text in zip(listed.queries.tolist(), texts[listed.passages].tolist(), strict=True):
        listed_of.setdefault(query, set()).add(text)
    everywhere = set(texts[listed.everywhere].tolist())
    for row in np.flatnonzero(selection.outcome != 0):
        query = int(selection.row_query[row])
        own = candidates.rows[query][candidates.rows[query] != NO_PASSAGE]
        # Whatever was a candidate was dropped, or is there already; so is each copy of it.
        text = int(candidates.query_text[query])
        banned = {text, *texts[own].tolist(), *answers[text], *listed_of.get(query, ()), *everywhere}
        rng = np.random.default_rng([settings.mining_seed, 1 << 20, int(row)])
        free = np.flatnonzero(selection.rows[row] == NO_PASSAGE)
        draws = rng.permutation(len(texts)) if len(texts) <= _SMALL else rng.integers(len(texts), size=_SMALL)
        for passage in draws.tolist():
            if not len(free):
                break
            if int(texts[passage]) in banned:
                continue
            banned.add(int(texts[passage]))
            selection.rows[row, free[0]] = passage
            selection.teacher[row, free[0]] = len(selection.teachers)
            free = free[1:]
        if not len(free):
            selection.outcome[row] = OUTCOMES.index("filled")
    return selection


def _answers(candidates: Candidates) -> dict[int, set[int]]:
    """Return the texts that answer each query's text."""
    answers: dict[int, set[int]] = {int(text): set() for text in candidates.query_text}
    texts = candidates.passage_text[candidates.pair_passage]
    for query, text in zip(candidates.query_text[candidates.pair_query].tolist(), texts.tolist(), strict=True):
        answers[query].add(text)
    return answers
