"""Deeper search for queries whose known positives would fill all the places that candidates have.

Positives of a query, listed pairs, and copies of these or of the query itself are never its negatives. Where they could
fill more than half of a query's K candidates, the teacher retrieves as many more, so that half of the candidates are
others. K stays the same: one query with a thousand positives must not make a thousand columns for all.

Shapes: Q queries, q queries of a block, K candidates, S pairs of a query and its positive, P listed pairs, N passages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.ties import NO_PASSAGE

Found = tuple[Int64[np.ndarray, "q K"], Float32[np.ndarray, "q K"]]
Search = Callable[[Sequence[str], int], Found]

_TOGETHER = 64
"""Queries that are searched deeper at once."""


class Taken:
    """Which passages are no negatives of a query, by their texts, whatever they score."""

    def __init__(
        self,
        *,
        passage_text: Int64[np.ndarray, " N"],
        query_text: Int64[np.ndarray, " Q"],
        pairs: tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]],
        listed: tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]],
    ) -> None:
        """Begin with numbers of texts, and with pairs of a query row and a passage row."""
        self.passage_text = passage_text
        self._query_text = query_text
        self._answers = _distinct(query_text[pairs[0]], passage_text[pairs[1]])
        self._listed = _distinct(listed[0], passage_text[listed[1]])
        count = 1 + max(passage_text.max(initial=-1), query_text.max(initial=-1))
        copies = np.bincount(passage_text, minlength=count)
        answers = np.bincount(self._answers[:, 0], copies[self._answers[:, 1]], minlength=count)
        others = np.bincount(self._listed[:, 0], copies[self._listed[:, 1]], minlength=len(query_text))
        self.counts: Int64[np.ndarray, " Q"] = (answers[query_text] + copies[query_text] + others).astype(np.int64)
        """How many passages at most are no negatives of each query."""

    def texts_of(self, query: int) -> Int64[np.ndarray, " _"]:
        """Return the texts that are no negatives of a query."""
        own = int(self._query_text[query])
        return np.concatenate([[own], _of(self._answers, own), _of(self._listed, query)])


def search_deeper(
    search: Search, queries: Sequence[str], found: Found, taken: Taken, *, first: int, depth: int
) -> Found:
    """Return what a search has found for a block of queries, with half the places for passages that may be negatives.

    Args:
        search: of a teacher.
        queries: of the block.
        found: rows and scores of the best `depth` passages of each, best first.
        taken: what may not.
        first: row of the first query of the block.
        depth: places of each query.
    """
    half = (depth + 1) // 2
    counts = taken.counts[first : first + len(queries)]
    deep = np.flatnonzero(counts > depth - half)
    if not len(deep) or len(taken.passage_text) <= depth:
        return found
    rows, scores = found[0].copy(), found[1].copy()
    deep = deep[np.argsort(counts[deep], kind="stable")]
    for start in range(0, len(deep), _TOGETHER):
        some = deep[start : start + _TOGETHER]
        k = min(len(taken.passage_text), half + int(counts[some].max()))
        deeper = search([queries[query] for query in some.tolist()], k)
        for query, own_rows, own_scores in zip(some.tolist(), *deeper, strict=True):
            is_taken = np.isin(taken.passage_text[own_rows], taken.texts_of(first + query))
            places = _kept(is_taken[own_rows != NO_PASSAGE], width=rows.shape[1], others=half)
            rows[query, : len(places)], scores[query, : len(places)] = own_rows[places], own_scores[places]
            rows[query, len(places) :] = NO_PASSAGE
    return rows, scores


def _kept(is_taken: np.ndarray, *, width: int, others: int) -> Int64[np.ndarray, " _"]:
    """Return the best places, of which so many are not taken if there are as many.

    >>> _kept(np.array([True, True, True, False, True, False, False]), width=3, others=2)
    array([0, 3, 5])
    """
    free, taken = np.flatnonzero(~is_taken), np.flatnonzero(is_taken)
    count = min(len(free), max(others, int((free < width).sum())))
    return np.sort(np.concatenate([free[:count], taken[: width - count]]))


def _distinct(one: Int64[np.ndarray, " P"], other: Int64[np.ndarray, " P"]) -> Int64[np.ndarray, "D 2"]:
    """Return each pair of numbers once, in order."""
    return np.unique(np.stack([one, other], axis=1), axis=0)


def _of(pairs: Int64[np.ndarray, "D 2"], one: int) -> Int64[np.ndarray, " _"]:
    """Return the second numbers of ordered pairs with some first number."""
    return pairs[slice(*np.searchsorted(pairs[:, 0], [one, one + 1])), 1]
