"""Several rankings made one by the ranks in them: what is high in each of them is high in it.

Source: Cormack, Clarke and Buettcher, Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods, SIGIR 2009, whose constant is 60.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

CONSTANT = 60
"""Added to ranks from 1: how little the first ranks differ from one another."""

T = TypeVar("T", bound=Hashable)


def fused(rankings: Sequence[Sequence[T]], k: int) -> list[tuple[T, float]]:
    """Return the k items with the largest sums of reciprocal ranks, best first, with these sums.

    What a ranking does not have adds nothing. Of equal sums the one that comes first in the first ranking stands first.

    Args:
        rankings: items, best first, without repeats.
        k: how many are wanted; fewer are returned where there are fewer.

    >>> [item for item, _ in fused([["a", "b", "c"], ["c", "b"]], 2)]
    ['c', 'b']
    >>> fused([["a"], []], 5) == [("a", 1 / 61)]
    True
    """
    sums: dict[T, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            sums[item] = sums.get(item, 0.0) + 1 / (CONSTANT + rank)
    return sorted(sums.items(), key=lambda one: -one[1])[:k]
