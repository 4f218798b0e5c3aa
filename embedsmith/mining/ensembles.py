"""Ensembles: what do several teachers say of the candidates, together?

A view is one opinion: a score for each candidate and each positive, on one scale. `first` has the first teacher's,
`fuse`, `rrf` and `pca` make one of all teachers, `cross` and `intra` keep one for each teacher.

Source: NV-Retriever, section 4.2 (cross, intra); Cormack et al., SIGIR 2009 (rrf); https://arxiv.org/abs/2411.02404
(pca). `fuse` is ours.
Shapes: T teachers, Q queries, K candidates, S pairs of a query and its positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.errors import SettingsError
from embedsmith.mining.candidates import Candidates
from embedsmith.mining.settings import EnsembleSettings
from embedsmith.topk.fused import CONSTANT

PCA = "pca"
"""Name of the teacher that joins the vectors of the others."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class View:
    """One opinion of all candidates."""

    teacher: str
    scores: Float32[np.ndarray, "Q K"]
    """NaN where there is no candidate."""
    pair_scores: Float32[np.ndarray, " S"]
    ranked: Bool[np.ndarray, "Q K"] | None = None
    """Which candidates the teacher proposed or could have: its best, of those that it finds; None for all."""
    is_sorted: bool = False

    @cached_property
    def order(self) -> Int64[np.ndarray, "Q K"]:
        """Places of the candidates, best first; ties as they stand."""
        if self.is_sorted:
            return np.broadcast_to(np.arange(self.scores.shape[1]), self.scores.shape)
        return np.argsort(-self.scores, axis=1, kind="stable")


def views(candidates: Candidates, settings: EnsembleSettings) -> list[View]:
    """Return the opinions that an ensemble consists of: one, or for `cross` and `intra` one a teacher.

    The views of `intra` are in the order of the teachers' accuracy, the most accurate first.

    Raises:
        SettingsError: the weights do not fit the teachers, or there is no joined teacher.
    """
    teachers = [t for t, name in enumerate(candidates.teachers) if name != PCA]
    match settings.ensemble:
        case "first":
            return [teacher_view(candidates, teachers[0])]
        case "pca":
            if PCA not in candidates.teachers:
                raise SettingsError(
                    "ensemble: pca, but the candidates were mined without it", hint="mine again with --ensemble pca"
                )
            return [teacher_view(candidates, candidates.teachers.index(PCA))]
        case "fuse":
            return [_fused(candidates, teachers, settings.weights)]
        case "rrf":
            return [_rank_fused(candidates, teachers)]
        case "cross":
            return [teacher_view(candidates, t) for t in teachers]
        case _:
            accuracy = [_accuracy(candidates, t) for t in teachers]
            return [teacher_view(candidates, teachers[i]) for i in np.argsort(-np.array(accuracy), kind="stable")]


def teacher_view(candidates: Candidates, teacher: int) -> View:
    """Return one teacher's opinion."""
    scores = candidates.scores[teacher]
    ranked = None
    if candidates.proposes[teacher]:
        missed = candidates.missed(teacher)
        if missed.any() or scores.shape[1] > candidates.depth:
            ranked = (_ranks(scores) <= candidates.depth) & ~missed
    return View(
        candidates.teachers[teacher], scores, candidates.pair_scores[teacher], ranked=ranked, is_sorted=teacher == 0
    )


def _fused(candidates: Candidates, teachers: list[int], weights: list[float]) -> View:
    """Return the weighted mean of the teachers' scores, each standardised over the corpus for each query."""
    if weights and len(weights) != len(teachers):
        raise SettingsError(
            f"weights: {len(weights)} for {len(teachers)} teachers ({', '.join(candidates.teachers)})",
            hint="give one for each teacher, in their order",
        )
    # As shares, whatever scale they are on: the smallest of float64 are 0 in float32.
    given = np.array(weights or [1.0] * len(teachers)) / max(weights or [1.0])
    shares = (given / given.sum()).astype(np.float32)
    scores = np.zeros(candidates.rows.shape, np.float32)
    pair_scores = np.zeros(len(candidates.pair_query), np.float32)
    for share, t in zip(shares, teachers, strict=True):
        # A teacher that scores all passages alike (BM25 without a known word) says nothing.
        deviation = np.where(candidates.deviation[t] > 0, candidates.deviation[t], np.inf)
        mean = candidates.mean[t]
        scores += share * (candidates.scores[t] - mean[:, None]) / deviation[:, None]
        query = candidates.pair_query
        pair_scores += share * (candidates.pair_scores[t] - mean[query]) / deviation[query]
    return View("fuse", scores, pair_scores)


def _rank_fused(candidates: Candidates, teachers: list[int]) -> View:
    """Return the sum of reciprocal ranks, as a share of the sum of one that is first everywhere.

    What a teacher does not find has no rank by it.
    """
    scores = np.zeros(candidates.rows.shape, np.float32)
    pair_scores = np.zeros(len(candidates.pair_query), np.float32)
    for t in teachers:
        limit = candidates.depth if candidates.proposes[t] else candidates.rows.shape[1]
        scores += _reciprocal(_ranks(candidates.scores[t]), limit) * ~candidates.missed(t)
        pair_scores += _reciprocal(_pair_ranks(candidates, t), limit) * ~candidates.pairs_missed(t)
    share = np.float32((CONSTANT + 1) / len(teachers))
    return View("rrf", np.where(candidates.rows < 0, np.float32(np.nan), scores * share), pair_scores * share)


def _reciprocal(ranks: Int64[np.ndarray, "*shape"], limit: int) -> Float32[np.ndarray, "*shape"]:
    """Return 1 / (60 + rank), and 0 beyond a limit."""
    return np.where(ranks <= limit, 1 / (CONSTANT + ranks), 0).astype(np.float32)


def _ranks(scores: Float32[np.ndarray, "Q K"]) -> Int64[np.ndarray, "Q K"]:
    """Return each candidate's rank by its score, from 1; ties as they stand.

    >>> _ranks(np.array([[0.5, 0.9, 0.5, np.nan]], np.float32))
    array([[2, 1, 3, 4]])
    """
    order = np.argsort(-scores, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int64)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(1, order.shape[1] + 1), order.shape), axis=1)
    return ranks


def _pair_ranks(candidates: Candidates, teacher: int) -> Int64[np.ndarray, " S"]:
    """Return each positive's rank among the candidates by a teacher's score, from 1."""
    query, scores = candidates.pair_query, candidates.pair_scores[teacher]
    ranks = np.empty(len(query), np.int64)
    step = max(1, _CHUNK // candidates.rows.shape[1])
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        ranks[some] = 1 + (candidates.scores[teacher][query[some]] > scores[some, None]).sum(axis=1)
    return ranks


def _accuracy(candidates: Candidates, teacher: int) -> float:
    """Return the mean reciprocal rank of the positives among the candidates; 0 for one that is not found."""
    return float((~candidates.pairs_missed(teacher) / _pair_ranks(candidates, teacher)).mean())
