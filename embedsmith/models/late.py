"""Late chunking: chunks of a text are read together, and their token states are pooled apart.

Each token has seen the whole context; a chunk's vector says what its pronouns stand for. A context is a run of chunks
of one text, as many as the model has positions for. A context with the place of a chunk in it is one text of a vector
store: `contexts_of` writes it, `LateModel` reads it.

Source: Günther et al., Late Chunking, https://arxiv.org/abs/2409.04701, section 3. There a text that is longer than the
context is cut into overlapping contexts; here contexts do not overlap.

Shapes: T tokens of the longest context, c chunks of some contexts, D dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import truncate_embeddings
from torch import Tensor

from embedsmith.data.sentences import Tokens
from embedsmith.errors import SettingsError
from embedsmith.models.attention import steady_attention
from embedsmith.models.chunks import Chunks, tokens_and_limit
from embedsmith.models.cpu.matmul import fast_matmul
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.known_tokens import positions_of
from embedsmith.models.packed import alone
from embedsmith.models.settings import ChunkSettings, Role
from embedsmith.models.threads import turn

_BATCH = {"cpu": 2048, "mps": 8192}
_GPU_BATCH = 32_768
"""Tokens that are read at once, padding included."""


def contexts_of(model: EmbeddingModel, passages: Sequence[str], chunks: Chunks, settings: ChunkSettings) -> list[str]:
    """Return, for each chunk, its context with its place in it.

    Raises:
        SettingsError: the model reads no more than a chunk at once, or does not pool tokens.
    """
    tokens, context, added = _tokens_context_added(model, settings)
    found: list[str] = []
    for row, own in groupby(range(len(chunks.owners)), key=lambda chunk: int(chunks.owners[chunk])):
        text = passages[row]
        run: list[tuple[int, int]] = []
        for start, end in (chunks.spans[chunk].tolist() for chunk in own):
            if run and tokens(text[run[0][0] : end]) + added > context:
                found += _written(text, run)
                run = []
            run.append((start, end))
        found += _written(text, run)
    return found


def check_chunks(model: EmbeddingModel, settings: ChunkSettings) -> None:
    """Refuse a model that cannot read passages in chunks as the settings say.

    Raises:
        SettingsError: see `contexts_of` and `embedsmith.models.chunks.chunks_of`.
    """
    if settings.late_chunks:
        _tokens_context_added(model, settings)
    else:
        tokens_and_limit(model, settings)


def _tokens_context_added(model: EmbeddingModel, settings: ChunkSettings) -> tuple[Tokens, int, int]:
    """Return how a model counts tokens, how many it reads at once, and how many it adds to a text."""
    _check(model)
    tokens, limit = tokens_and_limit(model, settings)
    context = _context(model)
    added = (settings.chunk_tokens or model.contract_length("passage") or 0) - limit
    if context < 2 * limit + added:
        raise SettingsError(
            f"late_chunks: the model reads {context:,} tokens at once, two chunks have {2 * limit + added:,}",
            hint="set chunk_tokens to less, or leave late_chunks out",
        )
    return tokens, context, added


def _written(text: str, run: Sequence[tuple[int, int]]) -> list[str]:
    """Return the chunks of one context, each as it is written."""
    first, last = run[0][0], run[-1][1]
    return [json.dumps([start - first, end - first, text[first:last]], ensure_ascii=False) for start, end in run]


def _context(model: EmbeddingModel) -> int:
    """Return how many tokens a model reads at once."""
    config = model.backbone.config.get_text_config()
    positions = positions_of(model.backbone) or getattr(config, "max_position_embeddings", None)
    return int(positions or model.max_seq_length or 0)


def _check(model: EmbeddingModel) -> None:
    """Refuse a model that does not make a vector of the states of tokens, wherever they stand."""
    if model.backbone is None:
        raise SettingsError("late_chunks: static embeddings have no context", hint="leave it out")
    if not getattr(model.tokenizer, "is_fast", False):
        raise SettingsError("late_chunks: the tokenizer does not say where tokens stand", hint="leave it out")
    pooling = [module for module in model if isinstance(module, Pooling)]
    if any("cls" in module.pooling_mode for module in pooling):
        raise SettingsError(
            "late_chunks: the model takes the state of its first token, and a chunk has none", hint="leave it out"
        )


class LateModel:
    """A model that reads chunks with their context; queries as ever."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    def contracts(self) -> dict[Role, dict[str, Any]]:
        """Return everything besides the texts that determines the vectors of each role."""
        found = self._model.contracts()
        return {**found, "passage": {**found["passage"], "late chunks": _context(self._model)}}

    def spread(self, devices: Sequence[str]) -> AbstractContextManager[None]:
        """Use the model's own device: chunks with context are read on one."""
        return nullcontext()

    def embed(self, texts: Sequence[str], role: Role, **how: Any) -> Float32[np.ndarray, "N D"]:
        """Return one vector of length 1 for each text."""
        (found,) = self.embed_each(iter([texts]), role, **how)
        return found

    def embed_each(
        self,
        lists: Iterator[Sequence[str]],
        role: Role,
        *,
        tokens: int | None = None,
        on_done: Callable[[int], None] | None = None,
        normalize: bool = True,
    ) -> Generator[Float32[np.ndarray, "_ D"], None, None]:
        """Yield the vectors of lists of queries, or of chunks as `contexts_of` writes them."""
        if role == "query":
            yield from self._model.embed_each(lists, role, tokens=tokens, on_done=on_done, normalize=normalize)
            return
        self._model.eval()
        done = 0
        for chunks in lists:
            yield self._vectors(chunks, tokens)
            done += len(chunks)
            if on_done:
                on_done(done)

    def _vectors(self, chunks: Sequence[str], budget: int | None) -> Float32[np.ndarray, "c D"]:
        """Return the vectors of chunks, each context read once for all that stand next to each other."""
        model = self._model
        read = [json.loads(chunk) for chunk in chunks]
        contexts = [(text, [(start, end) for start, end, _ in own]) for text, own in groupby(read, key=lambda c: c[2])]
        own = {number: (text, spans) for number, (text, spans) in enumerate(contexts)}
        budget = budget or _BATCH.get(model.device.type, _GPU_BATCH)
        found: dict[int, Tensor] = {}
        batch: list[int] = []
        for number in sorted(own, key=lambda number: len(own[number][0])):
            longest = len(own[number][0])
            if batch and (len(batch) + 1) * longest > 4 * budget:  # a token has about four characters
                found.update(self._read({one: own[one] for one in batch}))
                batch = []
            batch.append(number)
        if batch:
            found.update(self._read({one: own[one] for one in batch}))
        if not found:
            return np.empty((0, model.get_embedding_dimension() or 0), np.float32)
        vectors = truncate_embeddings(torch.cat([found[number] for number in sorted(found)]), model.truncate_dim)
        result: np.ndarray = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return result

    @torch.inference_mode()
    def _read(self, contexts: dict[int, tuple[str, list[tuple[int, int]]]]) -> dict[int, Float32[Tensor, "_ D"]]:
        """Return the vectors of the chunks of each of some contexts."""
        model, prompt = self._model, self._model.prompt_of("passage")
        with turn(model[0]):
            features = model.tokenizer(
                [prompt + text for text, _ in contexts.values()],
                padding=True,
                truncation=True,
                max_length=_context(model),
                return_offsets_mapping=True,
                return_special_tokens_mask=True,
                return_tensors="pt",
            )
        offsets, special = features.pop("offset_mapping"), features.pop("special_tokens_mask").bool()
        rows, masks = [], []
        for row, (_, spans) in enumerate(contexts.values()):
            for start, end in spans:
                begins, ends = start + len(prompt), end + len(prompt)
                inside = (offsets[row, :, 0] < ends) & (offsets[row, :, 1] > begins) & ~special[row]
                rows.append(row)
                masks.append(inside.long())
        on_device = {key: value.to(model.device) for key, value in features.items()}
        with alone(model), fast_matmul(model.device, mixed=model.is_mixed), steady_attention(model.device.type):
            states = model[0]({**on_device, "modality": "text"})["token_embeddings"]
            pooled: dict[str, Any] = {
                "token_embeddings": states[torch.tensor(rows, device=states.device)],
                "attention_mask": torch.stack(masks).to(states.device),
            }
            for module in list(model)[1:]:
                pooled = module(pooled)
        counts = [len(spans) for _, spans in contexts.values()]
        parts = pooled["sentence_embedding"].float().split(counts)
        return dict(zip(contexts, parts, strict=True))
