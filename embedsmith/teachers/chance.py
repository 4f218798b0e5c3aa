"""The teacher `random`: the baseline that finds negatives by chance.

Shapes: Q queries, N passages, K candidates, P positives, S passages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt64

from embedsmith.data.ties import mixed
from embedsmith.errors import InputError
from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.teachers.ranking import drawn_top


def contract_of_chance(seed: int) -> dict[str, Any]:
    """Return everything besides the queries and the number of passages that determines the scores."""
    return {"seed": seed, "arithmetic": ARITHMETIC}


class Chance:
    """Scores every (query, passage) pair uniformly in [0, 1).

    A score is a hash of the seed, the query's text and the passage's row, so it does not depend on what else is asked,
    and search, scores and moments agree.

    >>> teacher = Chance(1000, seed=0)
    >>> rows, scores = teacher.search(["a", "b"], 2)
    >>> bool((teacher.scores(["a", "b"], rows) == scores).all())
    True
    """

    name = "random"
    proposes = True

    def __init__(self, passages: int, *, seed: int) -> None:
        """Take note of how many passages there are.

        Raises:
            InputError: there is none.
        """
        if passages < 1:
            raise InputError("no passages to choose from", hint="give at least one")
        self._seed = seed
        self.contract = contract_of_chance(seed)
        """Everything besides the texts that determines the scores, as plain values."""
        self._rows = np.arange(passages)

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first; ties by draw."""
        k = min(k, len(self._rows))
        rows = np.empty((len(queries), k), np.int64)
        scores = np.empty((len(queries), k), np.float32)
        for i, query in enumerate(queries):
            drawn = self._drawn(query, self._rows)
            all_scores = _in_unit(drawn)
            # Two that are one as a float32 still differ in their other bits.
            rows[i] = drawn_top(all_scores, k, (~drawn).__getitem__)
            scores[i] = all_scores[rows[i]]
        return rows, scores

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        scores = np.empty(rows.shape, np.float32)
        for i, query in enumerate(queries):
            scores[i] = self._of(query, rows[i])
        return scores

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""
        mean, deviation = np.empty((2, len(queries)), np.float32)
        for i, query in enumerate(queries):
            all_scores = self._of(query, self._rows).astype(np.float64)
            mean[i], deviation[i] = all_scores.mean(), all_scores.std()
        return mean, deviation

    def similarities(self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]) -> None:
        """Return None: there are no vectors."""

    def vectors_of(self, queries: Sequence[str]) -> None:
        """Return None: there are no vectors."""

    def _of(self, query: str, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
        """Return the scores of a query with passages."""
        return _in_unit(self._drawn(query, rows))

    def _drawn(self, query: str, rows: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
        """Return 64 random bits for each passage."""
        text = f"{self._seed} {query}".encode("utf-8", "surrogatepass")
        key = np.frombuffer(hashlib.sha256(text).digest()[:8], "<u8")
        return mixed(key + rows.astype(np.uint64))


def _in_unit(drawn: UInt64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """Return 64 bits as numbers in [0, 1): of their first 24, as many as a float32 keeps."""
    return (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
