"""Samplers: which of the candidates that may be negatives are taken? Seeded, and never one twice.

Shapes: R rows, K candidates in the order of their scores, M negatives.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.mining.settings import SamplerSettings

NONE = -1
"""Fills the places of negatives that a row does not have."""


def pick(
    allowed: Bool[np.ndarray, "R K"],
    scores: Float32[np.ndarray, "R K"],
    ranks: Int64[np.ndarray, "R K"],
    settings: SamplerSettings,
    *,
    negatives: int,
    stream: int = 0,
) -> Int64[np.ndarray, "R M"]:
    """Return the places of the candidates that are taken, best first, `NONE` where there are too few.

    Args:
        allowed: which candidates may be taken.
        scores: best first.
        ranks: from 1, among the candidates that passed every exclusion.
        negatives: M.
        stream: another number draws differently with the same seed.

    >>> allowed = np.array([[True, False, True, True]])
    >>> scores = np.array([[0.9, 0.8, 0.7, 0.6]], np.float32)
    >>> pick(allowed, scores, np.array([[1, 2, 3, 4]]), SamplerSettings(), negatives=2)
    array([[0, 2]])
    """
    if settings.sampler == "top":
        return _first(allowed, negatives)
    if settings.sampler == "window":
        pool = allowed & (ranks >= settings.window_first) & (ranks <= settings.window_last)
    else:
        pool = allowed & (np.cumsum(allowed, axis=1) <= settings.sample_from)
    # The largest of log-weights plus Gumbel noise are a draw without replacement by those weights.
    noise = -np.log(-np.log(_uniform(pool.shape, settings.mining_seed, stream)))
    keys = noise if settings.sampler in ("uniform", "window") else noise + scores / settings.sampler_temperature
    if settings.sampler == "top1":
        keys[np.arange(len(keys)), np.argmax(pool, axis=1)] = np.inf
    keys[~pool] = -np.inf
    width = min(negatives, keys.shape[1])
    drawn = np.argpartition(-keys, width - 1, axis=1)[:, :width]
    taken = np.zeros_like(pool)
    np.put_along_axis(taken, drawn, True, axis=1)
    return _first(taken & pool, negatives)


def _first(allowed: Bool[np.ndarray, "R K"], count: int) -> Int64[np.ndarray, "R M"]:
    """Return the places of the first ones that are allowed.

    >>> _first(np.array([[False, True, True], [False, False, True]]), 2)
    array([[ 1,  2],
           [ 2, -1]])
    """
    picked = np.full((len(allowed), count), NONE, np.int64)
    # In turns: a few passes over bytes are faster than one over the places of all that are allowed.
    left, row = allowed.copy(), np.arange(len(allowed))
    for turn in range(min(count, allowed.shape[1])):
        place = left.argmax(axis=1)
        found = left[row, place]
        if not found.any():
            break
        picked[found, turn] = place[found]
        left[row, place] = False
    return picked


def _uniform(shape: tuple[int, ...], seed: int, stream: int) -> np.ndarray:
    """Return random numbers in (0, 1)."""
    return np.random.default_rng([seed, stream]).random(shape) * (1 - 2e-12) + 1e-12
