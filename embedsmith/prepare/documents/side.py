"""One side of a folder of documents: which passages and queries it has, by their numbers; the texts stay on disk.

Shapes: N passages of the folder, n of them on this side, Q queries, J judgements.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.data.beir import write_corpus, write_rows
from embedsmith.data.collection import Collection
from embedsmith.data.normalised import normalised
from embedsmith.data.texts import Objects, Texts, TextsBuilder, as_json
from embedsmith.prepare.documents.harvest import DocumentHarvest
from embedsmith.prepare.documents.pairs import TRAINED_ONLY
from embedsmith.prepare.documents.passages import Passage, in_front


class Grouped:
    """Numbers by the group that they are of, in their order.

    >>> Grouped(np.array([4, 2, 4]), np.array([7, 8, 9])).of(4)
    array([7, 9])
    """

    def __init__(self, groups: Int64[np.ndarray, " N"], numbers: Int64[np.ndarray, " N"]) -> None:
        order = np.argsort(groups, kind="stable")
        self._groups, self._numbers = groups[order], numbers[order]

    def of(self, group: int) -> Int64[np.ndarray, " n"]:
        """Return the numbers of a group."""
        start, end = np.searchsorted(self._groups, [group, group + 1])
        return self._numbers[start:end]


class Asked:
    """Which pairs ask for a passage, of those whose queries are not taken out of it."""

    def __init__(self, harvest: DocumentHarvest) -> None:
        passages, rows = array("i"), array("i")
        # By all pairs, also of the other side: where a heading is left out shows nothing of what is asked.
        for row, pair in enumerate(harvest.pairs):
            if pair.source not in TRAINED_ONLY:
                passages.extend(pair.passages)
                rows.extend([row] * len(pair.passages))
        self._passages, self._rows = np.array(passages, np.int32), np.array(rows, np.int32)

    def by(self, stands_for: Int64[np.ndarray, " N"]) -> Grouped:
        """Return the pairs by what stands for their passages."""
        return Grouped(stands_for[self._passages], self._rows)


@dataclass(frozen=True)
class Side:
    """Passages, queries and which answers which."""

    name: str
    harvest: DocumentHarvest
    passages: Int64[np.ndarray, " n"]
    """Numbers, ascending."""
    queries: Int64[np.ndarray, " Q"]
    """Of each query, the first of its pairs."""
    judged_queries: Int64[np.ndarray, " J"]
    """Rows of queries, ascending."""
    judged_passages: Int64[np.ndarray, " J"]
    """Numbers of the passages that answer them."""
    taken: Mapping[int, Sequence[str]]
    """Number of a passage -> what is taken out of it."""
    asked: Grouped
    """Which pairs ask for a passage, on either side."""

    @classmethod
    def of(
        cls,
        name: str,
        harvest: DocumentHarvest,
        passages: Int64[np.ndarray, " n"],
        answers: Iterable[tuple[int, Iterable[int]]],
        *,
        taken: Mapping[int, Sequence[str]],
        asked: Grouped,
    ) -> Side:
        """Return the side of some passages; equal queries are one, and one without an answer is none.

        Args:
            name: of the collection.
            harvest: that passages and pairs are of.
            passages: numbers, ascending.
            answers: row of each pair of this side, and the numbers of the passages that answer it.
            taken: see `taken`; it is filled when the answers have been asked for.
            asked: see `asked`.
        """
        rows: dict[int, int] = {}
        queries, judged_queries, judged_passages = (array("q") for _ in range(3))
        for row, numbers in answers:
            own = list(numbers)
            if own:
                query = rows.setdefault(int(harvest.pairs.queries[row]), len(rows))
                if query == len(queries):
                    queries.append(row)
                judged_queries.extend([query] * len(own))
                judged_passages.extend(own)
        of, by = np.array(judged_queries, np.int64), np.array(judged_passages, np.int64)
        # Each once, in the order in which they were found.
        once = np.sort(np.unique(of * max(1, len(harvest.passages)) + by, return_index=True)[1])
        once = once[np.argsort(of[once], kind="stable")]
        return cls(name, harvest, passages, np.array(queries, np.int64), of[once], by[once], taken, asked)

    def query_ids(self) -> Iterator[str]:
        """Yield the id of each query, which begins with its source."""
        pairs = self.harvest.pairs
        return (f"{pairs[row].source}-{number}" for number, row in enumerate(self.queries.tolist(), start=1))

    def several_positives(self) -> int:
        """Return how many queries have more than one answer."""
        return int((np.bincount(self.judged_queries) > 1).sum())

    def write(self, folder: Path, split: str) -> None:
        """Write it as a BEIR folder, passage by passage."""
        write_rows(
            folder,
            split,
            corpus=self._corpus(),
            queries=zip(self.query_ids(), self._queries(), strict=True),
            judgements=self._qrels(),
        )

    def write_corpus(self, folder: Path) -> None:
        """Write its passages alone, passage by passage."""
        write_corpus(folder, self._corpus())

    def collection(self) -> Collection:
        """Return it in memory."""
        ids, texts, metadata = TextsBuilder(), TextsBuilder(), TextsBuilder()
        for passage_id, text, about in self._corpus():
            ids.add(passage_id)
            texts.add(text)
            metadata.add(as_json(about))
        return Collection(
            name=self.name,
            passage_ids=ids.texts(),
            passages=texts.texts(),
            query_ids=Texts.of(list(self.query_ids())),
            queries=Texts.of(list(self._queries())),
            judged_queries=self.judged_queries,
            judged_passages=np.searchsorted(self.passages, self.judged_passages),
            grades=np.ones(len(self.judged_queries), np.int64),
            metadata=Objects(metadata.texts()),
        )

    def _corpus(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield id, text and metadata of each passage."""
        for number in self.passages.tolist():
            passage = self.harvest.passages[number]
            text = without(passage.text, self.taken.get(number, []))
            if number in self.taken:
                text = " ".join(text.split("  ")).strip()
            pairs = (self.harvest.pairs[row] for row in self.asked.of(number).tolist())
            yield self._id(number), _shown(passage, text, {normalised(pair.query) for pair in pairs}), _about(passage)

    def _queries(self) -> Iterator[str]:
        return (self.harvest.pairs[row].query for row in self.queries.tolist())

    def _qrels(self) -> Iterator[tuple[str, str, int]]:
        ids = list(self.query_ids())
        for query, passage in zip(self.judged_queries.tolist(), self.judged_passages.tolist(), strict=True):
            yield ids[query], self._id(passage), 1

    def _id(self, number: int) -> str:
        """Return `file:start-end`, without what a line of a file of judgements cannot hold."""
        file, start, end = self.harvest.passages.place(number)
        return " ".join(f"{file}:{start}-{end}".split())


def without(text: str, taken: Iterable[str]) -> str:
    """Return a text without others, each taken out where it stands first."""
    for one in taken:
        text = text.replace(one, "", 1)
    return text


def _shown(passage: Passage, text: str, asked: set[str]) -> str:
    """Return a passage's text under its headings, without those that are its queries, nor one at its beginning."""
    # The longest, where one begins as another does.
    begins = max(
        (query for query in asked if normalised(text).startswith(f"{query} ") and text.isascii()), key=len, default=""
    )
    if begins and normalised(text[: len(begins)]) == begins:
        text = text[len(begins) :].lstrip(" :.,;—–-\n") or text
    # Also not one that a query quotes, as the text of a link may.
    kept = [one for one in passage.front if not any(normalised(one) in query for query in asked)]
    return in_front(kept) + text


def _about(passage: Passage) -> dict[str, Any]:
    page = {} if passage.page is None else {"page": passage.page}
    # For the prompt of a model that writes queries: what has a row or code and no prose.
    kind = {"kind": passage.kind} if passage.kind else {}
    own = {"file": passage.file, "headings": list(passage.path), "start": passage.start, "end": passage.end}
    return {**own, **page, **kind}
