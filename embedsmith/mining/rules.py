"""Rules: what drops a candidate that no exclusion has dropped, and how the others rank.

Shapes: Q queries, K candidates, S pairs of a query and its positive; R rows: the queries, or with `positive: each` the
pairs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import Candidates
from embedsmith.mining.ensembles import PCA, View, teacher_view
from embedsmith.mining.exclusions import Fate
from embedsmith.mining.methods import ceiling, first_rank
from embedsmith.mining.settings import SelectionSettings


def of_rows(table: np.ndarray, row_query: Int64[np.ndarray, " R"], *, copy: bool = False) -> np.ndarray:
    """Return a table of queries as one of rows."""
    if len(row_query) == len(table):  # pairs are ascending by query, so as many rows as queries are the queries
        return table.copy() if copy else table
    return table[row_query]


def positive_scores(
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


def neighbour_cosines(candidates: Candidates, name: str, settings: SelectionSettings) -> Float32[np.ndarray, "R K"]:
    """Return each candidate's cosine with the row's positive, the nearest where there are several."""
    cosines = candidates.neighbours[name]
    if settings.positive == "each" or len(cosines) == len(candidates.rows):
        return cosines
    return np.maximum.reduceat(cosines, np.flatnonzero(np.diff(candidates.pair_query, prepend=-1)), axis=0)


def drop_neighbours(fates: UInt8[np.ndarray, "R K"], candidates: Candidates, settings: SelectionSettings) -> None:
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


def vetoed_by(
    candidates: Candidates, settings: SelectionSettings, row_query: Int64[np.ndarray, " R"]
) -> Bool[np.ndarray, "R K"]:
    """Return which candidates some teacher puts at or above its own ceiling, or far above its mean, or both.

    Raises:
        SettingsError: deviations are asked of other teachers than the first, and there is none.
    """
    if settings.veto_deviations is not None and not [name for name in candidates.teachers[1:] if name != PCA]:
        raise SettingsError(
            f"veto_deviations: asks another teacher than the first, and there is only {candidates.teachers[0]}",
            hint="mine again with a second --teacher, such as bm25",
        )
    vetoed = np.zeros((len(row_query), candidates.rows.shape[1]), bool)
    first = 0 if settings.veto_deviations is None else 1
    for t, name in enumerate(candidates.teachers):
        if name == PCA or t < first:
            continue
        view = teacher_view(candidates, t)
        scores = of_rows(view.scores, row_query)
        limits = np.full(len(row_query), -np.inf, np.float32)
        if settings.veto:
            limits = ceiling(positive_scores(view.pair_scores, candidates.pair_query, settings), settings)
        if settings.veto_deviations is not None:
            # A teacher that scores all passages alike (BM25 without a known word) says nothing.
            far = candidates.mean[t] + np.float32(settings.veto_deviations) * candidates.deviation[t]
            far = np.where(candidates.deviation[t] > 0, far, np.float32(np.inf))
            limits = np.maximum(limits, far[row_query])
        # What a teacher does not find (BM25 without a shared word), it says nothing about.
        vetoed |= (scores >= limits[:, None]) & ~of_rows(candidates.missed(t), row_query)
    return vetoed


def verdict_of(
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
        fates[~of_rows(view.ranked, row_query) & (fates == Fate.LEFT)] = Fate.UNRANKED
    scores = of_rows(view.scores, row_query)
    positive = positive_scores(view.pair_scores, candidates.pair_query, settings)
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
    between = (scores > positive[:, None]) & (scores > neighbour_cosines(candidates, PCA, settings))
    fates[~between & (fates == Fate.LEFT)] = Fate.DISTANCES


def _ranks_left(
    left: Bool[np.ndarray, "R K"], view: View, row_query: Int64[np.ndarray, " R"]
) -> Int64[np.ndarray, "R K"]:
    """Return each candidate's rank by a view's score among those that are left."""
    if view.is_sorted:
        return np.cumsum(left, axis=1)
    order = of_rows(view.order, row_query)
    ranks = np.empty(left.shape, np.int64)
    np.put_along_axis(ranks, order, np.cumsum(np.take_along_axis(left, order, axis=1), axis=1), axis=1)
    return ranks
