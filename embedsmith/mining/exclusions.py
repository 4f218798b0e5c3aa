"""Exclusions: candidates that are positives, copies of positives or of the query, listed or judged; at any score.

Shapes: Q queries, K candidates, S pairs of a query and its positive, P listed pairs, J judged ones, A all of these.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from embedsmith.mining.candidates import NO_PASSAGE, Candidates

_CHUNK = 1 << 22
"""Comparisons at once."""


class Fate(IntEnum):
    """What became of a candidate: the first rule that dropped it."""

    LEFT = 0
    """Might be a negative; others were taken."""
    TAKEN = 1
    ABSENT = 2
    """No candidate: another query has more."""
    POSITIVE = 3
    """A known positive, by id."""
    SAME_TEXT = 4
    """The text of a known positive under another id, or of a positive of the same query under another id."""
    OWN_TEXT = 5
    """The query's own text."""
    LISTED = 6
    """Excluded by the caller, or the text of what is: extra qrels, or a list of ids."""
    COPY = 7
    """The text of a better candidate under another id."""
    NEAR_DUPLICATE = 8
    """Almost the words of a known positive."""
    NEIGHBOUR = 9
    """Too close to a positive passage."""
    DISTANCES = 10
    """Farther from the query than the positive is, or than from the positive."""
    SHIFTED = 11
    """Among the first ones, which `shifted` leaves out."""
    CEILING = 12
    """At or above the method's ceiling."""
    FLOOR = 13
    """Below the floor."""
    VETO = 14
    """At or above some teacher's own ceiling, or far above another teacher's mean."""
    UNRANKED = 15
    """Not among the candidates of the teacher that decides."""
    JUDGED = 16
    """Answers the query after all, as a judge has said; or has the text of what does."""


def _no_rows() -> Int64[np.ndarray, " 0"]:
    return np.zeros(0, np.int64)


@dataclass(frozen=True)
class Listed:
    """What the caller excludes, beside the known positives."""

    queries: Int64[np.ndarray, " P"]
    """With `passages`: pairs that are no negatives, such as the judgements of another split."""
    passages: Int64[np.ndarray, " P"]
    everywhere: Int64[np.ndarray, " _"]
    """Passages that are never negatives, of any query."""
    judged_queries: Int64[np.ndarray, " J"] = field(default_factory=_no_rows)
    """With `judged_passages`: pairs of which a judge has said that the passage answers the query."""
    judged_passages: Int64[np.ndarray, " J"] = field(default_factory=_no_rows)

    @property
    def pairs(self) -> tuple[Int64[np.ndarray, " A"], Int64[np.ndarray, " A"]]:
        """All pairs that are no negatives, listed or judged."""
        return (
            np.concatenate([self.queries, self.judged_queries]),
            np.concatenate([self.passages, self.judged_passages]),
        )

    @classmethod
    def nothing(cls) -> Listed:
        """Return the empty list."""
        return cls(_no_rows(), _no_rows(), _no_rows())


def exclusions(
    candidates: Candidates, listed: Listed, near: Bool[np.ndarray, "S K"] | None = None
) -> UInt8[np.ndarray, "Q K"]:
    """Return the fate of the candidates that no method may choose, `LEFT` for the others.

    Args:
        near: which candidates are near-duplicates of each pair's positive.
    """
    rows = candidates.rows
    texts = np.where(rows == NO_PASSAGE, NO_PASSAGE, candidates.passage_text[rows])
    fates = np.full(rows.shape, Fate.LEFT, np.uint8)
    fates[rows == NO_PASSAGE] = Fate.ABSENT
    pair_query, pair_passage = candidates.pair_query, candidates.pair_passage
    _mark(fates, Fate.POSITIVE, rows, pair_query, pair_passage)
    # By text: an id of its own makes no negative of a copy of the positive, and no other query of the same words.
    query, pair = _pairs_of_same_text(candidates.query_text, pair_query)
    _mark(fates, Fate.SAME_TEXT, texts, query, candidates.passage_text[pair_passage[pair]])
    _set(fates, Fate.OWN_TEXT, texts == candidates.query_text[:, None])
    _mark(fates, Fate.LISTED, texts, listed.queries, candidates.passage_text[listed.passages])
    if len(listed.everywhere):
        everywhere = np.zeros(int(candidates.passage_text.max()) + 1, bool)
        everywhere[candidates.passage_text[listed.everywhere]] = True
        _set(fates, Fate.LISTED, everywhere[texts])
    _mark(fates, Fate.JUDGED, texts, listed.judged_queries, candidates.passage_text[listed.judged_passages])
    if int(candidates.passage_text.max()) + 1 < len(candidates.passage_text):
        _set(fates, Fate.COPY, _copies(texts))
    if near is not None:
        # Every query has a positive, and pairs are ascending by query.
        first = np.flatnonzero(np.diff(pair_query, prepend=-1))
        _set(fates, Fate.NEAR_DUPLICATE, np.logical_or.reduceat(near, first, axis=0))
    return fates


def _set(fates: UInt8[np.ndarray, "Q K"], fate: Fate, where: Bool[np.ndarray, "Q K"]) -> None:
    """Give a fate to the candidates that have none yet, in place."""
    fates[where & (fates == Fate.LEFT)] = fate


def _mark(
    fates: UInt8[np.ndarray, "Q K"],
    fate: Fate,
    table: Int64[np.ndarray, "Q K"],
    query: Int64[np.ndarray, " P"],
    value: Int64[np.ndarray, " P"],
) -> None:
    """Give a fate to the candidates of each query that have a value in a table, in place."""
    step = max(1, _CHUNK // table.shape[1])
    for start in range(0, len(query), step):
        some = slice(start, start + step)
        hit, place = np.nonzero(table[query[some]] == value[some, None])
        found = query[some][hit]
        free = fates[found, place] == Fate.LEFT
        fates[found[free], place[free]] = fate


def _pairs_of_same_text(
    query_text: Int64[np.ndarray, " Q"], pair_query: Int64[np.ndarray, " S"]
) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Return (query, pair) for every pair of a query of the same text, its own included.

    >>> _pairs_of_same_text(np.array([7, 8, 7]), np.array([0, 1, 2]))
    (array([0, 0, 1, 2, 2]), array([0, 2, 1, 0, 2]))
    """
    group = np.unique(query_text, return_inverse=True)[1]
    of_pair = group[pair_query]
    order = np.argsort(of_pair, kind="stable")
    counts = np.bincount(of_pair, minlength=int(group.max()) + 1)
    first = (np.cumsum(counts) - counts)[group]
    own = counts[group]
    number = np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own)
    return np.repeat(np.arange(len(query_text)), own), order[np.repeat(first, own) + number]


def _copies(texts: Int64[np.ndarray, "Q K"]) -> Bool[np.ndarray, "Q K"]:
    """Return which candidates have the text of one before them.

    >>> _copies(np.array([[5, 3, 5, 5]]))
    array([[False, False,  True,  True]])
    """
    order = np.argsort(texts, axis=1, kind="stable")
    ordered = np.take_along_axis(texts, order, axis=1)
    again = np.zeros(texts.shape, bool)
    again[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    copies = np.empty_like(again)
    np.put_along_axis(copies, order, again, axis=1)
    return copies
