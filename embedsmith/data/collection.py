"""A collection: passages, queries and which passage answers which query.

Shapes: N passages, Q queries, J judgements, S pairs of a query and a passage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.data.normalised import normalised
from embedsmith.data.texts import Objects, Rows, Texts, digests, numbered
from embedsmith.data.ties import Ties


def _no_rows() -> Int64[np.ndarray, " 0"]:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Collection:
    """Passages, queries and judgements (qrels) of one split: texts in Arrow, judgements in arrays of rows.

    >>> c = Collection.of(name="toy", passage_ids=["d1"], passages=["a cat"], query_ids=["q1"], queries=["cat?"],
    ...                   qrels={"q1": {"d1": 1}})
    >>> c.positives("q1"), c.passage_index["d1"], c.qrels
    (['d1'], 0, {'q1': {'d1': 1}})
    """

    name: str
    passage_ids: Texts
    """N ids."""
    passages: Texts
    """N texts, title and text joined by `join_title`."""
    query_ids: Texts
    """Q ids: the queries that have at least one judgement above 0 in the split."""
    queries: Texts
    """Q texts."""
    judged_queries: Int64[np.ndarray, " J"]
    """Rows of queries, ascending; within a query judgements stand as in their file."""
    judged_passages: Int64[np.ndarray, " J"]
    """Rows of passages."""
    grades: Int64[np.ndarray, " J"]
    """0 is judged and not relevant."""
    metadata: Objects = field(default_factory=lambda: Objects.of([]))
    """N objects that the corpus carried beside its texts (where a function stands, say), or none at all."""
    negative_queries: Int64[np.ndarray, " S"] = field(default_factory=_no_rows)
    """Rows of queries, ascending, of the negatives that the data brought along."""
    negative_passages: Int64[np.ndarray, " S"] = field(default_factory=_no_rows)
    """Rows of passages."""

    @classmethod
    def of(
        cls,
        *,
        name: str,
        passage_ids: Iterable[str],
        passages: Iterable[str],
        query_ids: Iterable[str],
        queries: Iterable[str],
        qrels: Mapping[str, Mapping[str, int]],
        metadata: Iterable[Mapping[str, Any]] = (),
    ) -> Collection:
        """Return a collection of plain Python values; `qrels` maps query id to passage id to grade."""
        passage_ids, query_ids = Texts.of(passage_ids), Texts.of(query_ids)
        rows = {query_id: row for row, query_id in enumerate(query_ids)}
        judged = [
            (rows[query_id], passage_id, grade)
            for query_id, grades in qrels.items()
            for passage_id, grade in grades.items()
        ]
        judged.sort(key=lambda judgement: judgement[0])
        judged_passages = Rows(passage_ids).of([passage_id for _, passage_id, _ in judged])
        assert (judged_passages >= 0).all(), "the qrels judge a passage that is not there"
        return cls(
            name=name,
            passage_ids=passage_ids,
            passages=Texts.of(passages),
            query_ids=query_ids,
            queries=Texts.of(queries),
            judged_queries=np.array([row for row, _, _ in judged], np.int64),
            judged_passages=judged_passages,
            grades=np.array([grade for _, _, grade in judged], np.int64),
            metadata=Objects.of(metadata),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Collection):
            return NotImplemented
        pairs = [(getattr(self, item.name), getattr(other, item.name)) for item in fields(self)]
        return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b for a, b in pairs)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def passage_index(self) -> Rows:
        """Passage id -> row."""
        return Rows(self.passage_ids)

    @cached_property
    def query_index(self) -> Rows:
        """Query id -> row."""
        return Rows(self.query_ids)

    @cached_property
    def qrels(self) -> dict[str, dict[str, int]]:
        """Query id -> passage id -> grade: Python objects, for evaluation."""
        qrels: dict[str, dict[str, int]] = {query_id: {} for query_id in self.query_ids}
        query_ids = list(qrels)
        passage_ids = self.passage_ids.take(self.judged_passages)
        for row, passage_id, grade in zip(self.judged_queries.tolist(), passage_ids, self.grades.tolist(), strict=True):
            qrels[query_ids[row]][passage_id] = grade
        return qrels

    @cached_property
    def ties(self) -> Ties:
        """The draws among passages that score alike for a query."""
        return Ties(self.passages, self.passage_ids)

    def content_hash(self) -> str:
        """Return a hash of every id, text, judgement and negative.

        >>> def toy(text):
        ...     return Collection.of(name="toy", passage_ids=["d1"], passages=[text], query_ids=["q1"],
        ...                          queries=["cat?"], qrels={"q1": {"d1": 1}})
        >>> toy("a cat").content_hash() == toy("a cat").content_hash() != toy("a dog").content_hash()
        True
        """
        digest = hashlib.sha256()
        for texts in (self.passage_ids, self.passages, self.query_ids, self.queries):
            texts.update(digest)
        for rows in (
            self.judged_queries,
            self.judged_passages,
            self.grades,
            self.negative_queries,
            self.negative_passages,
        ):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(rows, "<i8").data)
        return digest.hexdigest()[:16]

    def positives(self, query_id: str) -> list[str]:
        """Return the ids of the passages that answer a query, in corpus order."""
        query = self.query_index.get(query_id)
        if query is None:
            return []
        start, end = np.searchsorted(self.judged_queries, [query, query + 1])
        relevant = self.judged_passages[start:end][self.grades[start:end] > 0]
        return self.passage_ids.take(np.sort(relevant))

    def positive_pairs(self) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
        """Return the query row and the passage row of every judgement above 0, by query row."""
        positive = self.grades > 0
        return self.judged_queries[positive], self.judged_passages[positive]

    def existing_negatives(self) -> tuple[Int64[np.ndarray, " S"], Int64[np.ndarray, " S"]]:
        """Return the query row and the passage row of every negative that the data brought along, by query row."""
        return self.negative_queries, self.negative_passages

    def text_groups(self) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " Q"]]:
        """Return a number for the `normalised` text of each passage and of each query: the same text, the same number.

        Numbers count up from 0 in the order of the corpus, then of the queries whose text is no passage's.

        >>> Collection.of(name="toy", passage_ids=["1", "2", "3"], passages=["a cat", "ls", "A  cat"],
        ...               query_ids=["q1", "q2"], queries=["A CAT", "cat?"], qrels={}).text_groups()
        (array([0, 1, 0]), array([0, 2]))
        """
        count = len(self.passages)
        found = [digests(map(normalised, texts)) for texts in (self.passages, self.queries)]
        numbers, _ = numbered(np.concatenate(found))
        return numbers[:count], numbers[count:]


def join_title(title: str, text: str) -> str:
    """Return the string that stands for a passage everywhere: mining, training, evaluation and search.

    >>> join_title("Cats", "They purr.")
    'Cats They purr.'
    >>> join_title("", "They purr.")
    'They purr.'
    """
    return f"{title} {text}".strip() if title else text
