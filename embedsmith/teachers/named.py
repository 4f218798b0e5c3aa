"""Teachers by name: anything that can rank passages for queries, a trained model as well as BM25.

Shapes: Q queries, K candidates, P positives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.models.settings import Dtype
from embedsmith.progress import Progress, silent


class Teacher(Protocol):
    """Ranks the passages that it was opened with."""

    name: str

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first."""

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""


def open_teacher(
    name: str,
    passages: Sequence[str],
    *,
    vectors: Path,
    dtype: Dtype = "auto",
    max_tokens: int | None = None,
    device: str | None = None,
    on_progress: Progress = silent,
) -> Teacher:
    """Return the teacher of a name with the passages indexed.

    Args:
        name: `bm25`, or an embedding model as in `embedsmith.models.names`.
        vectors: folder of the vector stores; nothing is written for BM25.
        dtype: precision of an embedding model.
        max_tokens: tokens of a text that an embedding model reads; its own limits when None.

    Raises:
        ModelError: there is no such model.
    """
    if name == "bm25":
        return _BM25Teacher(passages)
    from embedsmith.models.embedder import load
    from embedsmith.teachers.dense import DenseTeacher

    model = load(name, dtype=dtype, device=device)
    if max_tokens:
        model.set_max_tokens(query=max_tokens, passage=max_tokens)
    return DenseTeacher(model, passages, name=name, folder=vectors, on_progress=on_progress)


class _BM25Teacher:
    """BM25 with the same questions as any other teacher."""

    name = "bm25"

    def __init__(self, passages: Sequence[str]) -> None:
        from embedsmith.teachers.bm25 import BM25, BM25Settings

        self._index = BM25(passages, BM25Settings())

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        return self._index.search(queries, k)

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        return np.stack([self._index.scores(query, some) for query, some in zip(queries, rows, strict=True)])
