"""The best of some scores, in one order however they tie.

Shapes: n scores, K of them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int64


def stable_top(
    scores: Float32[np.ndarray, " n"], k: int, rows: Int64[np.ndarray, " n"] | None = None
) -> Int64[np.ndarray, " K"]:
    """Return the places of the k highest scores, best first; ties go to the lower row.

    Args:
        k: at most n.
        rows: distinct passages that the scores belong to, in any order; by default their places.

    >>> stable_top(np.array([1, 3, 3, 1, 3], np.float32), 4)
    array([1, 2, 4, 0])
    >>> stable_top(np.array([1, 3, 3], np.float32), 2, np.array([4, 9, 7]))
    array([2, 1])
    """
    assert 0 <= k <= len(scores), f"the best {k} of {len(scores)}"
    if k == 0:
        return np.empty(0, np.int64)
    rows = np.arange(len(scores)) if rows is None else rows
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > kth)
    # argpartition alone would take any of the passages that tie for the last place.
    tied = np.flatnonzero(scores == kth)
    places = np.concatenate([above, tied[np.argsort(rows[tied])[: k - len(above)]]])
    return places[np.lexsort((rows[places], -scores[places]))]
