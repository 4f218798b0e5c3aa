"""Chunks: a batch's texts, tokenised once, in pieces of about as many tokens as go through the model at a time.

Shapes: n texts of a chunk, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.packed import can_pack, on_device, pack
from embedsmith.models.packing import batches
from embedsmith.models.tokens import tokens_of
from embedsmith.training.batches import Batch
from embedsmith.training.settings import MemorySettings

_CPU_TOKENS = 2048
_CPU_OVERHEAD = 64
"""Tokens in whose time a CPU calls a chunk's operations, forward and back: 70 of MiniLM in bfloat16, 35 in float32."""

_GPU_TOKENS = 32_768
_GPU_SHARE = 1 / 3
"""Of a GPU's whole memory, for one chunk's activations."""
_GPU_OVERHEAD = 3e9
"""The same for a GPU that pads, over the square of a layer's width: calls take as long for a small layer as for a large
one. Reckoned, not measured."""
_BYTES = 75
"""Of activations, for each token, layer and number of its state: in bfloat16, one operation after the other."""


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
        """Tokens, padding included where there is some."""
        return self.features["packed"].tokens if self.is_packed else self.texts * self.width

    @property
    def is_packed(self) -> bool:
        """Whether the tokens lie in one row."""
        return "packed" in self.features


def chunk_tokens(settings: MemorySettings, model: EmbeddingModel) -> int:
    """Return how many tokens go through the model at a time: what a stage says, or what suits the device.

    On a GPU what a third of its memory holds, and no more than keeps it busy. It is the whole memory that counts, not
    what is free: a run that is resumed beside another job is cut as before.
    """
    if settings.chunk_tokens:
        return settings.chunk_tokens
    if model.device.type != "cuda":
        return _CPU_TOKENS
    layers, width = _size(model)
    memory = torch.cuda.get_device_properties(model.device).total_memory
    return gpu_tokens(float(memory), layers, width, checkpointed=settings.gradient_checkpointing)


def gpu_tokens(memory: float, layers: int, width: int, *, checkpointed: bool) -> int:
    """Return how many tokens go through a model at a time on a GPU.

    Args:
        memory: of the GPU, in bytes.
        width: numbers of a token's state.
        checkpointed: between the layers only is kept what they read.

    >>> gpu_tokens(80e9, 6, 384, checkpointed=False), gpu_tokens(80e9, 32, 4096, checkpointed=False)
    (32768, 2712)
    >>> gpu_tokens(24e9, 32, 4096, checkpointed=True)
    14051
    """
    a_token = width * (2 * layers + _BYTES if checkpointed else _BYTES * layers)
    return max(256, min(_GPU_TOKENS, int(memory * _GPU_SHARE / a_token)))


def _size(model: EmbeddingModel) -> tuple[int, int]:
    """Return the layers of a model's backbone, and how wide they are."""
    config = model.backbone.config.get_text_config()
    return config.num_hidden_layers, config.hidden_size


def encode(model: Any, chunk: Chunk, *, device: torch.device, bfloat16: bool) -> Float[Tensor, "n D"]:
    """Return the vectors of a chunk, not yet of length 1.

    Args:
        bfloat16: compute products in it.
    """
    features = on_device(chunk.features, device)
    # A context for each chunk: within one, the gradients of all chunks would be added up in bfloat16.
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        return model(features)["sentence_embedding"]


def chunks_of(model: EmbeddingModel, batch: Batch, budget: int, *, packed: bool = False) -> list[Chunk]:
    """Return the texts of a batch in chunks of at most `budget` tokens, or of one text; widest chunks first.

    Where a chunk ends is where padding, and what a chunk costs beside its tokens, are least.

    Args:
        packed: the model reads a chunk's texts in one row.
    """
    sides = (
        ("query", batch.queries, batch.prompt_chars, 0),
        ("document", batch.passages, batch.passage_prompt_chars, len(batch.queries)),
    )
    overhead = _CPU_OVERHEAD if model.device.type == "cpu" else int(_GPU_OVERHEAD / _size(model)[1] ** 2)
    features_of = []
    for task, texts, prompt_chars, first in sides:
        masked = any(prompt_chars) and isinstance(model[0], InstructedTransformer)
        features = (
            model.preprocess(texts, task=task, prompt_chars=prompt_chars)
            if masked
            else tokens_of(model, texts, task=task)
        )
        features_of.append((features, first))
    packed = packed and all(can_pack(features) for features, _ in features_of)
    chunks = []
    for features, first in features_of:
        for rows, some in batches(features, budget, overhead=overhead, padded=not packed):
            texts_here, width = some["attention_mask"].shape
            read = pack(some) if packed else dict(some)
            chunks.append(Chunk([first + row for row in rows.tolist()], read, texts_here, width))
    return sorted(chunks, key=lambda chunk: -chunk.width)
