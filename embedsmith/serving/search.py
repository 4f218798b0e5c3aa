"""Search over the corpus of a run: a query in, the best passages out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.corpus import is_corpus, load_corpus
from embedsmith.data.files import visible
from embedsmith.data.load import known_splits, load_collection
from embedsmith.data.ties import NO_PASSAGE, Ties
from embedsmith.errors import InputError, RunError
from embedsmith.models.opening import load
from embedsmith.models.settings import Dtype
from embedsmith.pages.bars import draws_bars
from embedsmith.progress import Progress, silent
from embedsmith.runs.named import ELSEWHERE
from embedsmith.runs.run import finished
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.topk.fused import fused

_FUSED = 100
"""Passages of the model and of BM25 that a hybrid search looks at, as in evaluation."""


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    score: float
    """Cosine of query and passage; of a hybrid search the sum of reciprocal ranks."""
    id: str
    text: str
    metadata: dict[str, Any]
    """What the corpus says of the passage: file, line and name of a function."""


@dataclass(frozen=True)
class Corpus:
    """What is searched."""

    ids: Sequence[str]
    texts: Sequence[str]
    metadata: Sequence[dict[str, Any]] | None
    ties: Ties | None


class Finder:
    """A run's model and its corpus, opened once for any number of queries.

    Args:
        run: a finished run with a model.
        data: the corpus: a file of passages or of pairs, or a BEIR folder; by default what the run harvested.
        dtype: precision; the same as in evaluation finds the vectors that are stored already.
        hybrid: fuse what the model finds with what BM25 finds, by reciprocal ranks.
        on_progress: called with the progress of the work.

    Raises:
        RunError: the run is missing, not finished, or has no corpus of its own.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        data: str | Path | None = None,
        dtype: Dtype = "auto",
        hybrid: bool = False,
        on_progress: Progress = silent,
    ) -> None:
        finished(run)
        self._corpus = corpus_of_run(Path(run), data)
        self._model = load(str(run), dtype=dtype)
        self._index = DenseTeacher(
            self._model,
            self._corpus.texts,
            name=str(run),
            folder=Path(run) / "vectors",
            ties=self._corpus.ties,
            on_progress=on_progress,
        )
        self._words = None
        if hybrid:
            self._words = BM25(self._corpus.texts, BM25Settings(), ties=self._corpus.ties, on_progress=on_progress)

    def find(self, query: str, k: int = 5) -> list[Hit]:
        """Return the k passages that the model finds for a query, best first.

        Raises:
            InputError: the query is empty.
        """
        refuse_empty(query)
        depth = k if self._words is None else max(k, _FUSED)
        rows, scores = self._index.search_vectors(self._model.embed([query], "query"), [query], depth)
        found = list(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
        if self._words is not None:
            words = self._words.search([query], depth)[0][0]
            found = fused([[row for row, _ in found], words[words != NO_PASSAGE].tolist()], k)
        return [self.hit(row, score) for row, score in found]

    def hit(self, row: int, score: float) -> Hit:
        """Return the passage in a row of the corpus as one that was found."""
        return Hit(
            score=round(score, 4),
            id=self._corpus.ids[row],
            text=self._corpus.texts[row],
            metadata=self._corpus.metadata[row] if self._corpus.metadata else {},
        )


def refuse_empty(query: str) -> None:
    """Refuse a query without a word.

    Raises:
        InputError: it is empty.
    """
    if not query.strip():
        raise InputError("the query is empty", hint='say what to look for: embedsmith search RUN "open a zip file"')


@draws_bars
def search(
    run: str | Path,
    query: str,
    *,
    k: int = 5,
    data: str | Path | None = None,
    dtype: Dtype = "auto",
    hybrid: bool = False,
    on_progress: Progress = silent,
    progress: bool = True,
) -> list[Hit]:
    """Return the k passages that a run's model finds for one query; for several, open a `Finder` once.

    Raises:
        InputError, RunError: see `Finder`.
    """
    refuse_empty(query)
    return Finder(run, data=data, dtype=dtype, hybrid=hybrid, on_progress=on_progress).find(query, k)


def corpus_of_run(run: Path, data: str | Path | None) -> Corpus:
    """Return the passages to search: what the run harvested, or a corpus that is named.

    Raises:
        RunError: the run has no corpus of its own, or several.
    """
    if data and is_corpus(Path(data)):
        pooled = load_corpus(Path(data))
        return Corpus(pooled.ids, pooled.texts, pooled.metadata, None)
    if data:
        return _corpus_of(load_collection(data, split="all" if known_splits(data) else None))
    harvested = visible(run, "data/*/test")
    if len(harvested) > 1:  # what only shows what training has cost is nobody's corpus
        harvested = [folder for folder in harvested if folder.parent.name != ELSEWHERE]
    if not harvested:
        raise RunError(f"{run}: the run has no corpus of its own", hint="name one with --data")
    if len(harvested) > 1:
        names = ", ".join(str(folder) for folder in harvested)
        raise RunError(f"{run}: the run has several corpora", hint=f"name one of them with --data: {names}")
    if is_corpus(everything := harvested[0].parent / "all"):
        return corpus_of_run(run, everything)
    return _corpus_of(load_collection(harvested[0], split="test"))


def _corpus_of(collection: Collection) -> Corpus:
    return Corpus(collection.passage_ids, collection.passages, collection.metadata, collection.ties)
