"""The mean and the standard deviation of a query's scores over all passages, without computing a score.

With the passages' mean vector m and covariance C they are q·m and sqrt(q·C·q).

Shapes: Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

_BLOCK = 4096
"""Passages whose vectors are held in float64 at once."""


@dataclass(frozen=True)
class Moments:
    """The mean vector and the covariance of passages."""

    mean: Float64[np.ndarray, " D"]
    covariance: Float64[np.ndarray, "D D"]

    @classmethod
    def of(cls, shards: Iterable[Float32[np.ndarray, "_ D"]]) -> Moments:
        """Return the moments of all passages of some shards, of which there is at least one.

        >>> Moments.of([np.array([[1, 0], [3, 0]], np.float32)]).mean
        array([2., 0.])
        """
        count = 0
        total = second = np.zeros(())
        for shard in shards:
            for start in range(0, len(shard), _BLOCK):
                block = np.asarray(shard[start : start + _BLOCK], np.float64)
                count += len(block)
                total = total + block.sum(axis=0)
                second = second + block.T @ block
        mean = total / count
        return cls(mean, second / count - np.outer(mean, mean))

    def of_scores(
        self, queries: Float32[np.ndarray, "Q D"]
    ) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""
        vectors = queries.astype(np.float64)
        variance = np.einsum("qd,qd->q", vectors @ self.covariance, vectors)
        # Rounding can take a variance of 0 below it.
        return (vectors @ self.mean).astype(np.float32), np.sqrt(np.maximum(variance, 0)).astype(np.float32)
