"""Chunks: a batch's texts, tokenised once, in pieces of about as many tokens as go through the model at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.packing import batches
from embedsmith.training.batches import Batch


@dataclass(frozen=True)
class Chunk:
    """Texts of about one length that go through the model together."""

    rows: list[int]
    """Which texts of the step they are: queries first, then passages."""
    features: dict[str, Any]
    """What the model reads; per-token features are [texts, width]."""
    texts: int
    width: int
    """Tokens of the longest text."""

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return self.texts * self.width


def chunks_of(model: EmbeddingModel, batch: Batch, budget: int) -> list[Chunk]:
    """Return the texts of a batch in chunks of at most `budget` tokens, or of one text; widest chunks first."""
    sides = (
        ("query", batch.queries, batch.prompt_chars, 0),
        ("document", batch.passages, batch.passage_prompt_chars, len(batch.queries)),
    )
    chunks = []
    for task, texts, prompt_chars, first in sides:
        masked = any(prompt_chars) and isinstance(model[0], InstructedTransformer)
        features = model.preprocess(texts, task=task, **({"prompt_chars": prompt_chars} if masked else {}))
        for rows, some in batches(features, budget):
            texts_here, width = some["attention_mask"].shape
            chunks.append(Chunk([first + row for row in rows.tolist()], dict(some), texts_here, width))
    return sorted(chunks, key=lambda chunk: -chunk.width)
