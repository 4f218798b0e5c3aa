"""Is a difference real? Paired tests on the scores of single queries, and on those of several seeds.

Two questions, two answers. *Would it hold for other queries?* `compare_paired`: bootstrap interval and randomisation
test over queries. *Would it hold for other queries and another training run?* `compare_seeds`: an interval from both
sources of chance, which is wider.

Source: Smucker, Allan and Carterette, A comparison of statistical significance tests for information retrieval
evaluation, CIKM 2007 (randomisation, bootstrap); Satterthwaite, Biometrics 2 (1946) (degrees of freedom of a sum).
Shapes: Q queries, S seeds, B samples, C comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from embedsmith.errors import InputError

SAMPLES = 10_000
CONFIDENCE = 0.95
POWER = 0.8
"""How often a difference of `detectable` is found where there is one."""

_TIE = 1e-9
"""Scores of one query that differ by no more are the same: what is left of sums in another order."""

_BLOCK = 256
"""Samples drawn at once: their signs fit into a few megabytes."""

_CELLS = 1 << 15
"""Values drawn at once for a bootstrap."""


@dataclass(frozen=True)
class Interval:
    """A mean and where it might as well have been."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How far B is above A, over the same queries."""

    queries: int
    a: float
    """Mean of A."""
    b: float
    """Mean of B."""
    mean: float
    """B minus A."""
    low: float
    high: float
    """Of the bootstrap's interval."""
    p: float
    """Of the randomisation test: how often chance alone makes a difference this large."""
    wins: int
    """Queries on which B is better."""
    losses: int
    ties: int


@dataclass(frozen=True)
class SeededDifference:
    """How far B is above A, over the same queries and the same seeds."""

    mean: float
    """B minus A, over queries and seeds."""
    deviation: float
    """Standard deviation of the difference between seeds; 0 for one seed, which says nothing about others."""
    low: float
    high: float
    p: float
    detectable: float
    """The smallest true difference that this many queries and seeds find four times in five."""


def mean_interval(
    values: Float64[np.ndarray, " Q"], *, samples: int = SAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Return the mean with its bootstrap interval (percentiles).

    >>> found = mean_interval(np.array([0.0, 1.0, 1.0, 0.0]))
    >>> found.mean, found.low, found.high
    (0.5, 0.0, 1.0)
    """
    tail = (1 - confidence) / 2
    low, high = np.quantile(bootstrap_means(values, samples=samples, seed=seed), [tail, 1 - tail])
    return Interval(float(np.mean(values)), float(low), float(high))


def bootstrap_means(values: Float64[np.ndarray, " Q"], *, samples: int, seed: int) -> Float64[np.ndarray, " B"]:
    """Return the mean of each of many samples of the values, drawn with replacement."""
    draw, count = np.random.Generator(np.random.SFC64(seed)), len(values)
    means = np.empty(samples)
    # Small blocks stay in the cache; of few queries a sample at a time would be a hundred times slower.
    rows = max(1, _CELLS // count)
    for start in range(0, samples, rows):
        block = means[start : start + rows]
        values.take(draw.integers(0, count, (len(block), count), dtype=np.int32)).mean(axis=1, out=block)
    return means


def randomisation_p(differences: Float64[np.ndarray, " Q"], *, samples: int = SAMPLES, seed: int = 0) -> float:
    """Return how often swapping A and B at random, query by query, makes a mean difference as large; two-sided.

    The observed labelling is one of the samples, so the value is never 0.

    >>> randomisation_p(np.zeros(5)), randomisation_p(np.ones(50)) < 0.001
    (1.0, True)
    """
    # A query without a difference is the same under both signs.
    differences = differences[np.abs(differences) > _TIE]
    if not len(differences):
        return 1.0
    draw, count = np.random.Generator(np.random.SFC64(seed)), len(differences)
    total = differences.sum()
    as_large = 0
    for start in range(0, samples, _BLOCK):
        rows = min(_BLOCK, samples - start)
        signs = np.unpackbits(np.frombuffer(draw.bytes(rows * (count // 8 + 1)), np.uint8)).reshape(rows, -1)
        sums = 2 * (signs[:, :count].astype(np.float64) @ differences) - total
        # Labellings that are as large by the arithmetic of fractions must not be lost to that of floats.
        as_large += int((np.abs(sums) >= abs(total) - _TIE * count).sum())
    return (as_large + 1) / (samples + 1)


def compare_paired(
    a: Float64[np.ndarray, " Q"],
    b: Float64[np.ndarray, " Q"],
    *,
    samples: int = SAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Return how far B is above A on the same queries.

    >>> found = compare_paired(np.array([0.1, 0.5, 0.5]), np.array([0.4, 0.5, 0.4]))
    >>> round(found.mean, 3), found.wins, found.losses, found.ties
    (0.067, 1, 1, 1)
    """
    differences = b - a
    interval = mean_interval(differences, samples=samples, confidence=confidence, seed=seed)
    return Difference(
        queries=len(a),
        a=float(a.mean()),
        b=float(b.mean()),
        mean=interval.mean,
        low=interval.low,
        high=interval.high,
        p=randomisation_p(differences, samples=samples, seed=seed),
        wins=int((differences > _TIE).sum()),
        losses=int((differences < -_TIE).sum()),
        ties=int((np.abs(differences) <= _TIE).sum()),
    )


def compare_seeds(
    differences: Sequence[Float64[np.ndarray, "S _"]], *, comparisons: int = 1, confidence: float = CONFIDENCE
) -> SeededDifference:
    """Return how far B is above A for other queries and other seeds than those at hand.

    The variance of the mean is that of the queries, `var_q(mean_s d) / Q`, plus that of the seeds,
    `var_s(mean_q d) / S`; Student's t with Satterthwaite's degrees of freedom. What seed and query do together is in
    both, so the interval errs on the wide side. Several data sets count the same, however many queries they have.

    Args:
        differences: B minus A, for each data set a row for each seed and a column for each query.
        comparisons: how many are made at once; the detectable difference is that of Bonferroni's level.

    Raises:
        InputError: a data set has one query, which says nothing of others.

    >>> found = compare_seeds([np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.2]])])
    >>> round(found.mean, 3), found.deviation
    (0.2, 0.0)
    """
    from scipy.stats import t as student

    if any(table.shape[1] < 2 for table in differences):
        raise InputError(
            "one query says nothing about others: there is no interval", hint="score at least two queries a data set"
        )
    seeds = len(differences[0])
    means = np.mean([table.mean(axis=1) for table in differences], axis=0)
    parts = [(float(table.mean(axis=0).var(ddof=1)) / table.shape[1], table.shape[1] - 1) for table in differences]
    parts = [(variance / len(differences) ** 2, freedom) for variance, freedom in parts]
    deviation = float(means.std(ddof=1)) if seeds > 1 else 0.0
    if seeds > 1:
        parts.append((deviation**2 / seeds, seeds - 1))
    variance, mean = sum(part for part, _ in parts), float(means.mean())
    if variance <= _TIE**2:
        certain = 1.0 if abs(mean) <= _TIE else 0.0
        return SeededDifference(mean, deviation, mean, mean, certain, 0.0)
    freedom = variance**2 / sum(part**2 / own for part, own in parts)
    error = math.sqrt(variance)
    half = float(student.ppf((1 + confidence) / 2, freedom)) * error
    level = (1 - confidence) / comparisons
    detectable = float(student.ppf(1 - level / 2, freedom) + student.ppf(POWER, freedom)) * error
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return SeededDifference(mean, deviation, mean - half, mean + half, p, detectable)


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for being many (Holm): compare each with the level as if it were the only one.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected, worst = [0.0] * len(p), 0.0
    for done, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        worst = max(worst, min(1.0, p[place] * (len(p) - done)))
        corrected[place] = worst
    return corrected
