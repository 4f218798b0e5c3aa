"""The best of some scores, in one order however they tie.

Shapes: n scores, K of them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int64, UInt64

Draw = Callable[[Int64[np.ndarray, " n"]], UInt64[np.ndarray, " n"]]
"""Places -> a number for each; of those that tie the lowest comes first."""


def drawn_top(scores: Float32[np.ndarray, " n"], k: int, draw: Draw) -> Int64[np.ndarray, " K"]:
    """Return the places of the k highest scores, best first; ties as they are drawn, those for the last place too.

    Args:
        k: at most n.
        draw: is asked about the places that tie, and those that are returned.

    >>> drawn_top(np.array([1, 3, 3, 1, 3], np.float32), 4, lambda places: (10 - places).astype(np.uint64))
    array([4, 2, 1, 3])
    """
    assert 0 <= k <= len(scores), f"the best {k} of {len(scores)}"
    if k == 0:
        return np.empty(0, np.int64)
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > kth)
    # argpartition alone would take any of the passages that tie for the last place.
    tied = np.flatnonzero(scores == kth)
    if len(above) + len(tied) > k:
        tied = tied[np.argsort(draw(tied), kind="stable")[: k - len(above)]]
    places = np.concatenate([above, tied])
    return places[np.lexsort((draw(places), -scores[places]))]
