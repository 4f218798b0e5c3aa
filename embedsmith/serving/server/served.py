"""A model that a server computes with: texts to tokens, tokens to vectors.

Shapes: T tokens of a text, n texts of a batch, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from sentence_transformers.util import truncate_embeddings
from torch import Tensor

from embedsmith.errors import EmbedsmithError, SettingsError
from embedsmith.models.budget import of_tokens
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.encoding import task_of_role, vectors_of_batch
from embedsmith.models.instructions import task_of, template_of
from embedsmith.models.precision import SHORT_TEXT
from embedsmith.models.settings import Role
from embedsmith.models.threads import turn
from embedsmith.models.tokens import padding_values, tokens_of
from embedsmith.serving.server.batching import GRAIN

_TOKENS = {"cpu": 1024, "mps": 8192}
"""Tokens of a batch, as in encoding."""
_GPU_TOKENS = 32_768
_CHARACTERS = 20_000
"""Of a text that is tokenised whole."""
_CHARACTERS_A_TOKEN = 100
"""A text of more characters for each token that the model reads is cut before it is tokenised."""


@dataclass(frozen=True)
class Read:
    """One text as a model reads it."""

    features: Mapping[str, Tensor]
    """With a value for each token, [T]; empty for a model without a transformer."""
    shared: Mapping[str, Any]
    """Features that all texts of a batch have in common."""
    text: str
    role: Role
    prompt: str
    tokens: int
    """That the model reads: with the prompt and special tokens, after truncation."""
    all_tokens: int
    """What they would be without truncation; of very long texts at least so many."""
    is_long: bool
    """Whether its matmuls are in bfloat16, where those of short texts are not."""

    @property
    def is_cut(self) -> bool:
        """Whether the model does not read all of the text."""
        return self.all_tokens > self.tokens

    @property
    def kind(self) -> tuple[Any, ...]:
        """Texts of different kinds share no batch."""
        prompt = "" if self.features else self.prompt
        return self.role, prompt, self.is_long, tuple(self.features), tuple(map(str, self.shared.items()))


class ServedModel:
    """An embedding model whose texts are tokenised one request at a time, and computed in mixed batches.

    Args:
        name: how clients call it.
        model: opened, on its device.
        batch_tokens: tokens of a batch, padding included; by default what suits the device.
    """

    def __init__(self, name: str, model: EmbeddingModel, *, batch_tokens: int | None = None) -> None:
        self.name = name
        self.model = model.eval()
        self.dimensions = int(model.get_embedding_dimension())
        self.batch_tokens = batch_tokens or _TOKENS.get(model.device.type, _GPU_TOKENS)
        self.has_transformer = model.backbone is not None
        self.packs = self.has_transformer and model.packs(model.dtype)
        self.is_on_cpu = model.device.type == "cpu"
        self.limits: dict[Role, int | None] = {role: model.contract_length(role) for role in ("query", "passage")}
        self.template = template_of(model.prompt_of("query"))
        """How an instruction stands before a text; None for a model without instructions."""

    @cached_property
    def _copies(self) -> Any:
        """The weights in bfloat16 that long texts are multiplied with on a CPU."""
        return self.model.short_copies()

    def prompt(self, role: Role, instruction: str | None) -> str:
        """Return what stands before each text of a request.

        Raises:
            SettingsError: the model takes no instructions, or there is no such task.
        """
        if instruction is None:
            return self.model.prompt_of(role)
        if self.template is None:
            raise SettingsError(
                f"{self.name} was not trained with instructions",
                hint="leave the instruction out, and give an input_type",
            )
        task = task_of(instruction)
        if role == "passage" and instruction.startswith("task:") and not task.symmetric:
            return self.model.prompt_of(role)
        return self.template.format(instruction=task.instruction)

    def read(self, texts: Sequence[str], role: Role, prompt: str) -> list[Read]:
        """Return texts as the model reads them; threads take turns.

        Raises:
            EmbedsmithError: the model has no row for a token.
        """
        if not self.has_transformer:
            return [self._read_static(text, role, prompt) for text in texts]
        known = {place: full for place, text in enumerate(texts) if (full := self._shortened(text, role, prompt))}
        given = [known[place][0] if place in known else text for place, text in enumerate(texts)]
        features = tokens_of(self.model, given, prompt=prompt, task=task_of_role(role))
        attended = features["attention_mask"].bool()
        per_token = sorted(of_tokens(features))
        shared = {key: value for key, value in features.items() if key not in per_token}
        found = []
        for place, text in enumerate(given):
            rows = {key: features[key][place][attended[place]] for key in per_token}
            tokens = int(attended[place].sum())
            all_tokens = known[place][1] if place in known else self._all_tokens(text, role, prompt, tokens)
            is_long = self.model.shortens and tokens >= SHORT_TEXT[role]
            found.append(Read(rows, shared, text, role, prompt, tokens, max(tokens, all_tokens), is_long))
        return found

    def vectors(self, reads: Sequence[Read]) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of texts of one kind, of length 1."""
        first = reads[0]
        if not self.has_transformer:
            return self._vectors_of_static([read.text for read in reads], first)
        batch = {**first.shared, **_padded(self._filled(reads), self.model[0].tokenizer, self._width(reads))}
        copies = self._copies if first.is_long else None
        with torch.inference_mode():
            found = vectors_of_batch(self.model, batch, task=task_of_role(first.role), packs=self.packs, copies=copies)
            found = truncate_embeddings(found[: len(reads)], self.model.truncate_dim).float()
            vectors: np.ndarray = torch.nn.functional.normalize(found, dim=-1).cpu().numpy()
        return vectors

    def _width(self, reads: Sequence[Read]) -> int:
        """Return the tokens to which the texts of a batch are padded: never more than the model has positions for."""
        width, limit = max(read.tokens for read in reads), self.limits[reads[0].role]
        if self.packs or not self.is_on_cpu or limit is None:
            return width
        return max(width, min(-(-width // GRAIN) * GRAIN, limit))

    def _filled(self, reads: Sequence[Read]) -> list[Read]:
        """Return the texts of a packed batch on a CPU, with some behind them that round its tokens up."""
        tokens = sum(read.tokens for read in reads)
        missing = rounded(tokens) - tokens
        if not (self.is_on_cpu and self.packs and missing):
            return list(reads)
        longest = max(reads, key=lambda read: read.tokens)
        parts = -(-missing // longest.tokens)
        sizes = [missing * (part + 1) // parts - missing * part // parts for part in range(parts)]
        return [*reads, *(_beginning(longest, size) for size in sizes)]

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text that token ids of this model's tokenizer stand for.

        Raises:
            EmbedsmithError: there is no such token.
        """
        tokenizer = self.model.tokenizer
        size = len(tokenizer) if hasattr(tokenizer, "__len__") else tokenizer.get_vocab_size()
        if (most := max(ids)) >= size:
            raise EmbedsmithError(
                f"token id {most}, but the tokenizer of {self.name} has {size:,} tokens",
                hint="send texts: the ids are of another tokenizer (LangChain: check_embedding_ctx_length=False)",
            )
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    def pieces(self, read: Read) -> dict[str, Any]:
        """Return the tokens of a text, and which of them the pooling reads."""
        ids = read.features["input_ids"].tolist() if read.features else []
        pooled = read.features.get("pooling_mask", torch.ones(len(ids), dtype=torch.long)).bool().tolist()
        tokenizer = self.model.tokenizer
        tokens = tokenizer.convert_ids_to_tokens(ids) if read.features else tokenizer.encode(read.text).tokens
        return {
            "tokens": tokens,
            "ids": ids if read.features else tokenizer.encode(read.text).ids,
            "pooled": pooled or [True] * read.tokens,
            "count": read.tokens,
            "truncated": read.is_cut,
        }

    def _read_static(self, text: str, role: Role, prompt: str) -> Read:
        tokens = len(self.model.tokenizer.encode(prompt + text).ids)
        return Read({}, {}, text, role, prompt, tokens, tokens, is_long=False)

    def _vectors_of_static(self, texts: list[str], first: Read) -> Float32[np.ndarray, "n D"]:
        return self.model.embed(texts, first.role)

    def _shortened(self, text: str, role: Role, prompt: str) -> tuple[str, int] | None:
        """Return the beginning of a very long text and its tokens, where the model reads no more of the text than that.

        Tokenising a megabyte takes a second, in which no other text is tokenised.
        """
        limit, tokenizer = self.limits[role], self.model.tokenizer
        if limit is None or getattr(tokenizer, "truncation_side", "") != "right":
            return None
        characters = max(_CHARACTERS, limit * _CHARACTERS_A_TOKEN)
        if len(text) <= characters:
            return None
        end = text.rfind(" ", 0, characters)
        begin = text[: end if end > characters // 2 else characters]
        tokens = self._count(begin, prompt)
        return (begin, tokens) if tokens > 2 * limit else None

    def _all_tokens(self, text: str, role: Role, prompt: str, tokens: int) -> int:
        """Return the tokens of a text without truncation, of which the model reads so many."""
        limit = self.limits[role]
        return tokens if limit is None or tokens < limit else self._count(text, prompt)

    def _count(self, text: str, prompt: str) -> int:
        """Return the tokens of a text with its prompt and special tokens, none of them cut off."""
        whole = prompt + text + getattr(self.model[0], "suffix", "")
        with turn(self.model[0]):
            found = self.model.tokenizer(whole, truncation=False, padding=False, verbose=False)
        return len(found["input_ids"])


def rounded(tokens: int) -> int:
    """Return the tokens of a batch that has a shape in common with others.

    >>> rounded(1), rounded(9), rounded(64), rounded(130), rounded(1000)
    (8, 16, 64, 160, 1024)
    """
    grain = 8 if tokens <= 128 else 32 if tokens <= 1024 else 128
    return -(-tokens // grain) * grain


def _beginning(read: Read, tokens: int) -> Read:
    """Return a text that has the first tokens of another one."""
    return replace(read, features={key: values[:tokens] for key, values in read.features.items()}, tokens=tokens)


def _padded(reads: Sequence[Read], tokenizer: Any, width: int) -> dict[str, Tensor]:
    """Return the features of several texts, padded to a width."""
    padding, on_left = padding_values(tokenizer), tokenizer.padding_side == "left"
    found = {}
    for key, first in reads[0].features.items():
        rows = torch.full((len(reads), width), padding.get(key, 0), dtype=first.dtype)
        for row, read in zip(rows, reads, strict=True):
            start = width - read.tokens if on_left else 0
            row[start : start + read.tokens] = read.features[key]
        found[key] = rows
    return found
