"""The best of a search by score, where passages tie for the last place as well.

Shapes: Q queries, q some of them, N passages, K found.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.ties import Ties

Found = tuple[Int64[np.ndarray, "q K"], Float32[np.ndarray, "q K"]]

_WIDEST = 65_536
"""Passages of one query that are looked at, at most, to settle who of them gets the last place."""
_AT_ONCE = 1 << 22
"""Places of several queries that are looked at together."""


def drawn_top_k(
    search: Callable[[Int64[np.ndarray, " q"], int], Found], queries: Sequence[str], k: int, *, total: int, ties: Ties
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return what a search finds for each query, best first, ties by draw: those for the last place too.

    Where more than 65,536 passages have the score of the last place or a better one, the first of them are drawn from.

    Args:
        search: (numbers of the queries, k) -> rows and scores of exactly the k best, best first.
        queries: their texts.
        k: with k > N, K is N.
        total: N.
        ties: the draws.
    """
    k = min(k, total)
    wide = min(k + 1, total)
    rows, scores = search(np.arange(len(queries)), wide)
    order = ties.order(queries, rows, scores)
    best = [np.take_along_axis(table, order, axis=1)[:, :k] for table in (rows, scores)]
    left = np.flatnonzero(scores[:, k - 1] == scores[:, k]) if wide > k else np.empty(0, np.int64)
    while len(left):
        wide = min(2 * wide, total, max(_WIDEST, k + 1))
        step, unsettled = max(1, _AT_ONCE // wide), []
        for start in range(0, len(left), step):
            some = left[start : start + step]
            rows, scores = search(some, wide)
            order = ties.order([queries[q] for q in some.tolist()], rows, scores)[:, :k]
            for table, found in zip(best, (rows, scores), strict=True):
                table[some] = np.take_along_axis(found, order, axis=1)
            unsettled.append(some[scores[:, -1] == scores[:, k - 1]])
        left = np.concatenate(unsettled)
        if wide >= min(total, max(_WIDEST, k + 1)):
            break
    return best[0], best[1]
