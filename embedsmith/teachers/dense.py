"""The dense teacher: an embedding model that scores a passage by its cosine with the query.

Shapes: Q queries, N passages, K candidates, P positives, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.models.embedder import EmbeddingModel, Role
from embedsmith.progress import Progress, silent
from embedsmith.search.exact import scores_of, top_k
from embedsmith.vectors.store import VectorStore

_SHARD = 1024
"""Texts between two files: seconds of work to lose, and enough to sort by length."""


class DenseTeacher:
    """Passages and queries encoded once, into stores below a folder, and searched exactly."""

    def __init__(
        self, model: EmbeddingModel, passages: Sequence[str], *, name: str, folder: Path, on_progress: Progress = silent
    ) -> None:
        """Index passages.

        Args:
            model: gives vectors of length 1.
            name: how the teacher is called in what it mines.
            folder: where the stores lie, one for each fingerprint.
            on_progress: told of encoding and search.
        """
        self.name = name
        self._model = model
        self._folder = folder
        self._on_progress = on_progress
        # Every store of one teacher has the same weights: hash them once.
        self._contracts = {role: model.contract(role) for role in ("query", "passage")}
        self.store = self._encode(passages, "passage")

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first; ties in passage order."""
        return top_k(self.vectors(queries), self.store.shards(), k=k)

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        return scores_of(self.vectors(queries), self.store.shards(), rows)

    def vectors(self, queries: Sequence[str]) -> Float32[np.ndarray, "Q D"]:
        """Return the queries' vectors."""
        return self._encode(queries, "query").matrix()

    def _encode(self, texts: Sequence[str], role: Role) -> VectorStore:
        """Return the store of some texts, filled."""
        store = VectorStore.open_or_create(self._folder, contract=self._contracts[role], texts=texts, shard_size=_SHARD)
        if store.is_complete:
            return store
        what = f"encode {'queries' if role == 'query' else 'passages'} with {self.name}"
        return store.fill(
            lambda some: self._model.embed(some, role),
            on_progress=lambda done, total: self._on_progress(what, done, total),
        )
