"""Passages found by their chunks: an embedding model reads each chunk, and a passage has a score made of theirs.

max     of its best chunk
mean    of all its chunks: the inner product with the mean of their vectors
first   of its first chunk: what a model reads that cuts texts off, up to where a sentence ends

Source: max and first are MaxP and FirstP of Dai and Callan, https://arxiv.org/abs/1905.09217; there they score a
cross-encoder's passages.

Shapes: Q queries, N passages, C chunks, K found, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.ties import NO_PASSAGE, Ties
from embedsmith.errors import SettingsError
from embedsmith.models.chunks import Chunks, chunks_of
from embedsmith.models.settings import ChunkScore, ChunkSettings
from embedsmith.progress import Progress, silent
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.topk.exact import scores_of, top_k
from embedsmith.topk.tied import drawn_top_k

_WIDER = 4
"""Chunks that are searched for each passage that is wanted, at first."""


class ChunkedTeacher:
    """Ranks the passages whose chunks another teacher was opened with."""

    proposes = True

    def __init__(
        self, of_chunks: DenseTeacher, chunks: Chunks, passages: Sequence[str], *, score: ChunkScore, ties: Ties | None
    ) -> None:
        """Take note of the chunks.

        Args:
            of_chunks: opened with the texts of the chunks.
            chunks: of the passages.
            passages: N texts.
            score: what makes a passage's score of its chunks'.
            ties: the draws among passages that score alike; by default by their texts.
        """
        self.name = of_chunks.name
        self.contract = of_chunks.contract
        self._teacher, self._chunks, self._score = of_chunks, chunks, score
        self._passages = passages
        self._ties = ties or Ties(passages)

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first, ties by draw."""
        _ = self._teacher.store  # passages before queries: they take longer, and an error comes sooner
        vectors = self._teacher.vectors(queries)

        def search(some: Int64[np.ndarray, " q"], k: int) -> tuple[np.ndarray, np.ndarray]:
            if self._score == "max":
                return self._best(vectors[some], k)
            return top_k(vectors[some], self._whole, k=k)

        return drawn_top_k(search, queries, k, total=len(self._passages), ties=self._ties)

    def moments(self, queries: Sequence[str]) -> NoReturn:
        """Raise SettingsError: nothing asks for them where passages are scored."""
        raise SettingsError(f"{self.name}: no moments of passages in chunks", hint="leave chunk out")

    def similarities(self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]) -> None:
        """Return None: a passage has several vectors."""

    def vectors_of(self, queries: Sequence[str]) -> None:
        """Return None: a passage has several vectors."""

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        vectors = self._teacher.vectors(queries)
        if self._score != "max":
            return scores_of(vectors, self._whole, rows)
        firsts = np.append(self._chunks.firsts, len(self._chunks.owners))
        found = np.empty(rows.shape, np.float32)
        shards = self._teacher.store.shards()
        for place in range(rows.shape[1]):
            begins, counts = firsts[rows[:, place]], np.diff(firsts)[rows[:, place]]
            # As many columns as the passage with most chunks has; the last chunk of the others stands there again.
            own = begins[:, None] + np.minimum(np.arange(counts.max(initial=1)), counts[:, None] - 1)
            found[:, place] = scores_of(vectors, shards, own).max(axis=1)
        return found

    @cached_property
    def _whole(self) -> Float32[np.ndarray, "N D"]:
        """One vector for each passage, whose inner product with a query's is its score."""
        matrix = self._teacher.store.matrix()
        firsts = self._chunks.firsts
        counts = np.diff(firsts, append=len(matrix))
        return (np.add.reduceat(matrix, firsts, axis=0) / counts[:, None]).astype(np.float32)

    def _best(self, vectors: Float32[np.ndarray, "q D"], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the k passages with the best chunks of each query, best first, by as many chunks as that takes."""
        total, owners, shards = len(self._chunks.owners), self._chunks.owners, self._teacher.store.shards()
        rows = np.full((len(vectors), k), NO_PASSAGE, np.int64)
        scores = np.full((len(vectors), k), -np.inf, np.float32)
        left, wide = np.arange(len(vectors)), min(total, _WIDER * k)
        while len(left):
            found, of_chunks = top_k(vectors[left], shards, k=wide)
            unsettled = []
            for place, query in enumerate(left.tolist()):
                passages = owners[found[place]]
                _, firsts = np.unique(passages, return_index=True)
                best = np.sort(firsts)[:k]  # where each passage is met first: its best chunk
                if len(best) < k and wide < total:
                    unsettled.append(query)
                    continue
                rows[query, : len(best)] = passages[best]
                scores[query, : len(best)] = of_chunks[place][best]
            left, wide = np.array(unsettled, np.int64), min(total, 2 * wide)
        return rows, scores


def open_chunked(
    name: str,
    encoder: Any,
    passages: Sequence[str],
    *,
    vectors: Path,
    settings: TeacherSettings,
    chunks: ChunkSettings,
    score: ChunkScore = "max",
    ties: Ties | None = None,
    on_progress: Progress = silent,
) -> ChunkedTeacher:
    """Return an embedding model as a teacher of passages that it reads in chunks.

    Args:
        name: how the model is called.
        encoder: the embedding model, on this machine.
        passages: N texts.
        vectors: folder of the vector stores; chunks of several sets of passages share them.
        settings: how the model reads texts; search is exact.
        chunks: how passages are cut.
        score: what makes a passage's score of its chunks'.
        ties: the draws among passages that score alike.
        on_progress: called with the progress of encoding.

    Raises:
        SettingsError: the model is none of this machine's, or a setting does not fit it.
    """
    from embedsmith.models.embedder import EmbeddingModel
    from embedsmith.models.late import LateModel, contexts_of

    if not isinstance(encoder, EmbeddingModel):
        raise SettingsError(
            f"chunk: {name} is no embedding model on this machine", hint="leave chunk out, or name such a model"
        )
    if settings.search != "exact":
        raise SettingsError(f"search: {settings.search}, but chunks are searched exactly", hint="leave one of them out")
    cut = chunks_of(encoder, passages, chunks)
    if score == "first":
        cut = cut.take(cut.firsts)
    texts: Sequence[str] = cut.texts
    model: Any = encoder
    if chunks.late_chunks:
        model, texts = LateModel(encoder), contexts_of(encoder, passages, cut, chunks)
    of_chunks: Any = open_teacher(
        name, texts, vectors=vectors, settings=settings, encoder=model, on_progress=on_progress
    )
    return ChunkedTeacher(of_chunks, cut, passages, score=score, ties=ties)
