"""Long texts cut into chunks that a model reads whole, to a budget of the model's own tokens.

Shapes: N texts, C chunks of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.data.sentences import Tokens, parts
from embedsmith.data.texts import Texts
from embedsmith.errors import SettingsError
from embedsmith.models.settings import ChunkSettings


@dataclass(frozen=True)
class Chunks:
    """The chunks of some texts, text after text, in their order."""

    texts: Texts
    """C texts."""
    owners: Int64[np.ndarray, " C"]
    """Row of the text that a chunk is of, ascending."""
    spans: Int64[np.ndarray, "C 2"]
    """Where it begins and ends in its text, in characters."""

    @property
    def firsts(self) -> Int64[np.ndarray, " N"]:
        """Row of the first chunk of each text."""
        return np.flatnonzero(np.diff(self.owners, prepend=-1))

    def take(self, rows: Int64[np.ndarray, " c"]) -> Chunks:
        """Return some of the chunks, in this order."""
        return Chunks(Texts.of(self.texts.take(rows)), self.owners[rows], self.spans[rows])


def chunks_of(model: Any, texts: Sequence[str], settings: ChunkSettings) -> Chunks:
    """Return texts cut into chunks; every text has one at least.

    Args:
        model: an embedding model on this machine, whose tokens count.
        texts: passages.
        settings: how long chunks are.

    Raises:
        SettingsError: the model cannot count tokens here, or nothing is left of a chunk beside its prompt.
    """
    tokens, limit = tokens_and_limit(model, settings)
    found: list[str] = []
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        for start, end in parts(text, limit, tokens, overlap=settings.chunk_overlap):
            found.append(text[start:end])
            owners.append(row)
            spans.append((start, end))
    return Chunks(Texts.of(found), np.array(owners, np.int64), np.array(spans, np.int64).reshape(-1, 2))


def tokens_and_limit(model: Any, settings: ChunkSettings) -> tuple[Tokens, int]:
    """Return how a model counts the tokens of a text, and how many of them a chunk may have.

    Raises:
        SettingsError: see `chunks_of`.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise SettingsError("chunk: tokens are counted by an embedding model on this machine", hint="leave chunk out")
    tokens, added = token_counter(tokenizer)
    added += tokens(model.prompt_of("passage"))
    longest = settings.chunk_tokens or model.contract_length("passage")
    reads = model.contract_length("passage")
    if longest is None:
        raise SettingsError("chunk: the model reads texts of any length", hint="set chunk_tokens")
    if reads is not None and longest > reads and not settings.late_chunks:
        raise SettingsError(
            f"chunk_tokens: {longest} tokens, but the model reads {reads} of a passage",
            hint=f"set it to {reads} or less, or max_tokens to more",
        )
    if longest - added < 1 or settings.chunk_overlap >= longest - added:
        raise SettingsError(
            f"chunk_tokens: {longest} tokens, of which prompt and special tokens take {added} and the overlap "
            f"{settings.chunk_overlap}",
            hint="set more",
        )
    return tokens, longest - added


def token_counter(tokenizer: Any) -> tuple[Tokens, int]:
    """Return how a tokenizer counts the tokens of a text, and how many it adds to each.

    Args:
        tokenizer: of transformers, or of `tokenizers`; it stays as it is.
    """
    fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(fast, "no_truncation"):  # one in Python
        return lambda text: len(tokenizer.tokenize(text)), len(tokenizer("")["input_ids"])
    own = type(fast).from_str(fast.to_str())  # a copy: truncation and padding are its state
    own.no_truncation()
    own.no_padding()
    return lambda text: len(own.encode(text, add_special_tokens=False).ids), len(own.encode("").ids)
