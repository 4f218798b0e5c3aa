"""Chunks: a batch's texts, tokenised once and split by a token budget; a chunk is one forward pass.

Shapes: n texts of a chunk, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int64
from sentence_transformers.util import truncate_embeddings
from torch import Tensor
from torch.nn import functional

from embedsmith.models import transfer
from embedsmith.models.budget import Rounding, of_tokens, token_batches
from embedsmith.models.devices import total_bytes
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.measured import multiplies_wide
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.packed import is_packable, on_device, pack, pinned
from embedsmith.models.tokens import padding_values, tokens_of
from embedsmith.training.batches import Batch
from embedsmith.training.settings import MemorySettings

_CPU_TOKENS = 2048
_CPU_OVERHEAD = 64
"""Launch overhead of one chunk's forward and backward pass, in tokens: 70 of MiniLM in bfloat16, 35 in float32."""

_CPU_GRAIN = 64
"""Chunks are padded to a multiple of this many tokens, so that oneDNN sees few shapes: 32 of them up to the budget.
MiniLM in bfloat16 on two cores with AMX took 2.8 s a step with 64 and with 128, 3.15 with 32, 3.6 without."""

_GPU_NUMBERS = 2**25
"""Hidden state elements of one chunk on a GPU: enough that its kernels take longer than their launches."""
_GPU_SHARE = 1 / 3
"""Share of a GPU's total memory for the activations of one chunk."""
_GPU_OVERHEAD = 3e9
"""Launch overhead of one chunk on a GPU without packing, in tokens times the square of the hidden size: a launch takes
as long for a small layer as for a large one. An estimate, not measured."""
_APPLES_PART = 4
"""Apple's GPU gets this part of a chunk: its memory is the system's too, and it is busy with less. An estimate."""
_APPLES_OVERHEAD = 4e7
"""The same on Apple's GPU: a launch takes about as long, a token 50 to 100 times as long. An estimate, not measured."""
_BYTES = 75
"""Bytes of activations per token, layer and element of the hidden state: in bfloat16, not compiled. A Mistral with
adapters took 63 on an H200, 54 with compiled layers."""


@dataclass(frozen=True)
class Chunk:
    """Texts of about one length: one forward pass."""

    rows: Int64[Tensor, " n"]
    """Which texts of the step they are: queries first, then passages."""
    features: dict[str, Any]
    """What the model reads; per-token features are [texts, width]."""
    texts: int
    width: int
    """Tokens of the longest text."""

    @property
    def tokens(self) -> int:
        """Tokens, padding included."""
        return self.features["packed"].tokens if self.is_packed else self.texts * self.width

    @property
    def is_packed(self) -> bool:
        """Whether the texts are packed into one row, without padding."""
        return "packed" in self.features

    def pinned(self) -> Chunk:
        """Return the same in pinned memory, from which copies to a GPU are asynchronous."""
        return replace(self, rows=transfer.pinned(self.rows), features=pinned(self.features))


def chunk_tokens(settings: MemorySettings, model: EmbeddingModel) -> int:
    """Return the token budget of a chunk: what a stage says, or what suits the device.

    On a GPU: as many tokens as fit in a third of its memory, up to what keeps it busy; on Apple's a quarter of that.
    Total memory counts, not free memory, so a run that is resumed beside another job has the same chunks.
    """
    if settings.chunk_tokens:
        return settings.chunk_tokens
    if model.device.type == "cpu":
        return _CPU_TOKENS
    layers, width = _size(model)
    memory, checkpointed = float(total_bytes(model.device)), settings.gradient_checkpointing
    if model.device.type == "mps":
        return max(256, gpu_tokens(memory, layers, width, checkpointed=checkpointed) // _APPLES_PART)
    return gpu_tokens(memory, layers, width, checkpointed=checkpointed)


def gpu_tokens(memory: float, layers: int, width: int, *, checkpointed: bool) -> int:
    """Return the token budget of a chunk on a GPU.

    Args:
        memory: of the GPU, in bytes.
        width: the hidden size.
        checkpointed: gradient checkpointing keeps only the input of each layer.

    >>> gpu_tokens(80e9, 6, 384, checkpointed=False), gpu_tokens(80e9, 32, 4096, checkpointed=False)
    (87381, 2712)
    >>> gpu_tokens(24e9, 32, 4096, checkpointed=True)
    8192
    """
    a_token = width * (2 * layers + _BYTES if checkpointed else _BYTES * layers)
    return max(256, min(_GPU_NUMBERS // width, int(memory * _GPU_SHARE / a_token)))


def _overhead(model: EmbeddingModel) -> int:
    """Return the launch overhead of one chunk, in tokens."""
    if model.device.type == "cpu":
        return _CPU_OVERHEAD
    numbers = _APPLES_OVERHEAD if model.device.type == "mps" else _GPU_OVERHEAD
    return int(numbers / _size(model)[1] ** 2)


def _size(model: EmbeddingModel) -> tuple[int, int]:
    """Return the number of a backbone's layers, and their hidden size."""
    config = model.backbone.config.get_text_config()
    return config.num_hidden_layers, config.hidden_size


def encode(model: Any, chunk: Chunk, *, device: torch.device, bfloat16: bool) -> Float[Tensor, "n D"]:
    """Return the vectors of a chunk, not yet of length 1.

    Args:
        bfloat16: autocast matmuls to it. On a CPU autocast keeps no copies of weights: they would be those of one
            thread, and carry no gradient where they were made without one.
    """
    features = on_device(chunk.features, device)
    keeps = device.type != "cpu"
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=keeps):
        return truncate_embeddings(model(features)["sentence_embedding"], model.truncate_dim).float()


def copied_bytes(model: torch.nn.Module, device: torch.device, *, bfloat16: bool) -> float:
    """Return the bytes of the bfloat16 copies of the weights that all chunks share; see `cpu.trained_matmul`."""
    if device.type != "cpu" or not bfloat16:
        return 0.0
    weights = (module.weight for module in model.modules() if isinstance(module, torch.nn.Linear))
    return float(sum(2 * w.numel() for w in weights if w.requires_grad and w.dtype == torch.float32))


def are_rounded(device: torch.device, *, bfloat16: bool) -> bool:
    """Return whether chunks are padded to round numbers of tokens: where oneDNN does the matmuls on a CPU.

    It JIT-compiles per shape in a millisecond or two, longer than the matmul itself.
    """
    return device.type == "cpu" and (bfloat16 or multiplies_wide(device))


def chunks_of(
    model: EmbeddingModel, batch: Batch, budget: int, *, packed: bool = False, rounded: bool = False
) -> list[Chunk]:
    """Return the texts of a batch in chunks of at most `budget` tokens, or of one text; widest chunks first.

    The cuts minimise padding plus launch overhead.

    Args:
        packed: pack a chunk's texts into one row.
        rounded: chunks have round numbers of tokens; see `are_rounded`.
    """
    overhead = _overhead(model)
    texts = [
        *_tokenised(model, batch.queries, batch.prompt_chars, task="query", first=0),
        *_tokenised(model, batch.passages, batch.passage_prompt_chars, task="document", first=len(batch.queries)),
    ]
    packed = packed and all(is_packable(features) for _, features in texts)
    if packed and len(texts) == 2 and (joined := _joined(*(features for _, features in texts))):
        texts = [(torch.cat([places for places, _ in texts]), joined)]
    chunks = []
    for places, features in texts:
        rounding = _rounding(model, features) if rounded and not packed else None
        for rows, some in token_batches(features, budget, overhead=overhead, padded=not packed, rounding=rounding):
            texts_here, width = some["attention_mask"].shape
            chunks.append(Chunk(places[rows], pack(some) if packed else dict(some), texts_here, width))
    return sorted(chunks, key=lambda chunk: -chunk.width)


def _tokenised(
    model: EmbeddingModel, texts: Sequence[str], prompt_chars: Sequence[int], *, task: str, first: int
) -> Iterator[tuple[Int64[Tensor, " n"], dict[str, Any]]]:
    """Yield the features of a side's texts, tokenised as for `encode`, with their places in the step.

    All at once, unless the instruction's tokens are masked out of pooling: a pooling module takes one prompt length for
    all its texts, so then those of each instruction come separately.

    Args:
        texts: each with its instruction.
        first: place of the first one.
    """
    places = torch.arange(first, first + len(texts))
    if isinstance(model[0], InstructedTransformer) and any(prompt_chars):
        yield places, dict(model.preprocess(list(texts), task=task, prompt_chars=prompt_chars))
        return
    if all(getattr(module, "include_prompt", True) for module in model):
        yield places, tokens_of(model, texts, task=task)
        return
    by_prompt: dict[str, list[int]] = {}
    for row, (text, chars) in enumerate(zip(texts, prompt_chars, strict=True)):
        by_prompt.setdefault(text[:chars], []).append(row)
    for prompt, rows in by_prompt.items():
        bare = [texts[row][len(prompt) :] for row in rows]
        yield places[rows], tokens_of(model, bare, prompt=prompt, task=task)


def _rounding(model: EmbeddingModel, features: Mapping[str, Any]) -> Rounding | None:
    """Return how to round numbers of tokens; None where a feature has a padding that is not known."""
    values = padding_values(model.tokenizer)
    if not of_tokens(features) <= values.keys():
        return None
    positions = getattr(model.backbone.config.get_text_config(), "max_position_embeddings", None)
    return Rounding(
        grain=_CPU_GRAIN,
        longest=positions or model.max_seq_length or features["attention_mask"].shape[1],
        values=values,
        on_left=model.tokenizer.padding_side == "left",
    )


def _joined(queries: Mapping[str, Any], passages: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return queries and passages as the features of one side, to be packed; None where they differ in kind.

    A chunk of a few queries needs as many kernel launches as one of all passages: on its own it is bound by them.
    """
    sides = [dict(queries), dict(passages)]
    if any("pooling_mask" in side for side in sides):
        sides = [{"pooling_mask": side["attention_mask"], **side} for side in sides]
    width = max(side["attention_mask"].shape[1] for side in sides)
    joined: dict[str, Any] = {}
    for key in sides[0].keys() | sides[1].keys():
        first, second = (side.get(key) for side in sides)
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            wide = [functional.pad(value, (0, width - value.shape[1])) for value in (first, second)]
            joined[key] = torch.cat(wide)
        elif isinstance(first, Tensor) or isinstance(second, Tensor) or first != second:
            return None
        else:
            joined[key] = first
    return joined
