"""The round trip: which queries find a passage again that they are paired with, by a teacher's search.

Source: Dai et al., Promptagator, https://arxiv.org/abs/2209.11755, section 3.2, with k = 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.data.ties import NO_PASSAGE
from embedsmith.errors import InputError
from embedsmith.teachers.named import Teacher


def found_texts(teacher: Teacher, passages: Sequence[str], queries: Sequence[str], *, within: int) -> list[set[str]]:
    """Return the normalised texts of the first passages that a teacher finds for each query.

    They are texts, not rows: which of two copies of a passage stands first says nothing.

    Args:
        teacher: with the passages indexed.
        passages: in that order.
        queries: to search with.
        within: passages that count, at most. One that ties with the first one behind them does not count.

    Raises:
        InputError: the teacher rescores passages and finds none.
    """
    if not teacher.proposes:
        raise InputError(f"{teacher.name} scores passages and finds none", hint="name a teacher that searches")
    rows, scores = teacher.search(queries, min(within + 1, len(passages)))
    above = scores[:, :within] > scores[:, within:] if len(passages) > within else rows != NO_PASSAGE
    return [
        {normalised(passages[row]) for row in own[:within][ahead].tolist()}
        for own, ahead in zip(rows, above, strict=True)
    ]


def not_found(side: Collection, teacher: Teacher, *, within: int) -> list[str]:
    """Return the ids of the queries that find none of their passages among the first."""
    found = found_texts(teacher, side.passages, side.queries, within=within)
    return [
        query_id
        for query_id, own in zip(side.query_ids, found, strict=True)
        if not any(normalised(side.passages[side.passage_index[one]]) in own for one in side.positives(query_id))
    ]


def without_queries(side: Collection, left_out: Sequence[str]) -> Collection:
    """Return a collection without some of its queries; all passages stay."""
    gone, judged = set(left_out), side.qrels
    kept = [query for query in side.query_ids if query not in gone]
    return Collection.of(
        name=side.name,
        passage_ids=side.passage_ids,
        passages=side.passages,
        query_ids=kept,
        queries=[side.queries[side.query_index[query]] for query in kept],
        qrels={query: judged[query] for query in kept},
        metadata=side.metadata or (),
    )
