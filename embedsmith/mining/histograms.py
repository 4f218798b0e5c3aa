"""Histograms with round edges, and ranks in groups."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float64, Int64

BINS = 30
_FIRST_RANKS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Histogram:
    """How often values fall into each of some bins."""

    edges: list[float]
    counts: list[int]
    """One fewer than the edges."""
    median: float | None
    """None of no values."""


def histogram(values: np.ndarray, edges: Float64[np.ndarray, " _"]) -> Histogram:
    """Return how many values fall between the edges; the outermost bins hold what lies beyond.

    >>> histogram(np.array([0.1, 0.2, 0.9, 7.0]), np.array([0.0, 0.5, 1.0])).counts
    [2, 2]
    """
    values = values[np.isfinite(values)]
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return Histogram(edges.tolist(), counts.tolist(), float(np.median(values)) if len(values) else None)


def round_edges(*values: np.ndarray, through: tuple[float, ...] = (), bins: int = BINS) -> Float64[np.ndarray, " _"]:
    """Return edges at round numbers that span the values, at most `bins` bins or two more.

    One value in a thousand may lie beyond each end, so that one far off does not press the others into one bin.

    Args:
        through: values that are spanned whatever the others are.

    >>> round_edges(np.array([0.12, 0.48, 0.3]), bins=4).tolist()
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """
    joined = np.concatenate([value[np.isfinite(value)] for value in values]).astype(np.float64)
    low, high = np.quantile(joined, [0.001, 0.999]) if len(joined) else (0.0, 1.0)
    low, high = min(low, *through, high), max(high, *through, low)
    rough = max(float(high - low), 1e-3) / bins
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * 0.999)
    first, last = int(np.floor(low / step + 1e-9)), int(np.ceil(high / step - 1e-9))
    return np.round(np.arange(first, max(last, first + 1) + 1) * step, 12)


def rank_groups(ranks: Int64[np.ndarray, " n"]) -> dict[str, int]:
    """Return how many ranks fall into groups that grow as ranks do, up to the last that occurs.

    >>> rank_groups(np.array([1, 1, 2, 4, 11]))
    {'1': 2, '2': 1, '3-4': 1, '5-9': 0, '10-19': 1}
    """
    highest = int(ranks.max(initial=0))
    groups = {
        str(first) if after == first + 1 else f"{first}-{after - 1}": int(((ranks >= first) & (ranks < after)).sum())
        for first, after in pairwise(_FIRST_RANKS)
        if first <= highest
    }
    if highest >= _FIRST_RANKS[-1]:
        groups[f"{_FIRST_RANKS[-1]} and more"] = int((ranks >= _FIRST_RANKS[-1]).sum())
    return groups


def evenly(total: int, count: int) -> Int64[np.ndarray, " _"]:
    """Return `count` numbers below `total` at even distances, or all of them.

    >>> evenly(10, 4), evenly(2, 4)
    (array([0, 2, 5, 7]), array([0, 1]))
    """
    count = min(total, count)
    return np.arange(count) * total // max(count, 1)
