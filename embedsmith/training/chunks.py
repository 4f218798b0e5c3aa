"""Chunks: a batch's texts, tokenised once, in pieces of about as many tokens as go through the model at a time.

Shapes: n texts of a chunk, D dimensions.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.packing import batches
from embedsmith.training.batches import Batch
from embedsmith.training.settings import MemorySettings

_CPU_TOKENS = 2048
_GPU_TOKENS = 4096
_CPU_OVERHEAD = 64
"""Tokens in whose time a CPU calls a chunk's operations, forward and back: 70 of MiniLM in bfloat16, 35 in float32.

A GPU's was not measured: there it is a whole budget, so that a batch has hardly more chunks than it must."""


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


def chunk_tokens(settings: MemorySettings, device: torch.device) -> int:
    """Return how many tokens go through the model at a time: what a stage says, or what suits the device.

    >>> chunk_tokens(MemorySettings(), torch.device("cpu")), chunk_tokens(MemorySettings(), torch.device("cuda"))
    (2048, 4096)
    """
    return settings.chunk_tokens or (_CPU_TOKENS if device.type == "cpu" else _GPU_TOKENS)


def encode(model: Any, chunk: Chunk, *, device: torch.device, bfloat16: bool) -> Float[Tensor, "n D"]:
    """Return the vectors of a chunk, not yet of length 1.

    Args:
        bfloat16: compute products in it.
    """
    features = {key: v.to(device) if isinstance(v, Tensor) else v for key, v in chunk.features.items()}
    # A context for each chunk: within one, the gradients of all chunks would be added up in bfloat16.
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        return model(features)["sentence_embedding"]


def fast_attention(device: str) -> AbstractContextManager[Any]:
    """Return the context in which attention trains fastest on a device, forward and back."""
    # On a CPU, flash attention's backward pass was a third of a bfloat16 step; plain products took a quarter off it.
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else nullcontext()


def chunks_of(model: EmbeddingModel, batch: Batch, budget: int) -> list[Chunk]:
    """Return the texts of a batch in chunks of at most `budget` tokens, or of one text; widest chunks first.

    Where a chunk ends is where padding, and what a chunk costs beside its tokens, are least.
    """
    sides = (
        ("query", batch.queries, batch.prompt_chars, 0),
        ("document", batch.passages, batch.passage_prompt_chars, len(batch.queries)),
    )
    overhead = _CPU_OVERHEAD if model.device.type == "cpu" else budget
    chunks = []
    for task, texts, prompt_chars, first in sides:
        masked = any(prompt_chars) and isinstance(model[0], InstructedTransformer)
        features = model.preprocess(texts, task=task, **({"prompt_chars": prompt_chars} if masked else {}))
        for rows, some in batches(features, budget, overhead=overhead):
            texts_here, width = some["attention_mask"].shape
            chunks.append(Chunk([first + row for row in rows.tolist()], dict(some), texts_here, width))
    return sorted(chunks, key=lambda chunk: -chunk.width)
