"""The corpus of a server: its vectors are kept in the store, memory-mapped, and searched exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.serving.search import Corpus
from embedsmith.teachers.dense import DenseTeacher


class SearchedCorpus:
    """Passages that one model has encoded.

    Args:
        model: the name of the model.
        corpus: the passages.
        index: their vectors.
    """

    def __init__(self, model: str, corpus: Corpus, index: DenseTeacher) -> None:
        self.model, self._corpus, self._index = model, corpus, index

    def find(self, vectors: Float32[np.ndarray, "1 D"], query: str, k: int) -> list[dict[str, Any]]:
        """Return the k passages nearest to a query, best first, with their scores."""
        rows, scores = self._index.search_vectors(vectors, [query], min(k, len(self._corpus.texts)))
        metadata = self._corpus.metadata
        return [
            {
                "object": "passage",
                "id": self._corpus.ids[row],
                "score": round(score, 6),
                "text": self._corpus.texts[row],
                "metadata": metadata[row] if metadata else {},
            }
            for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
        ]
