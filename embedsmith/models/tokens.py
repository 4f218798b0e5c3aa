"""Tokens of many texts: what a model's `preprocess` returns, in a third of the time.

What takes the time there is not the tokenizer but the padding: lists of lists, turned into tensors number by number.
Here the numbers of all texts are put into one row first. And each text is searched there for links to pictures, which
takes longer than all else where the tokenizer has many cores.

Shapes: n texts, T tokens of the longest, S tokens of all together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from sentence_transformers.sentence_transformer.modules import Transformer
from torch import Tensor

from embedsmith.models.compat import attention_name, modalities
from embedsmith.models.known_tokens import check_known
from embedsmith.models.modeling_embedsmith import InstructedTransformer
from embedsmith.models.threads import turn

_UNPADDED = {"common": {"return_tensors": None}, "text": {"padding": False}}


def tokens_of(
    model: Any, texts: Sequence[str], *, prompt: str | None = None, task: str | None = None
) -> dict[str, Any]:
    """Return what a model's `preprocess` does: the features of n texts, with values of a token [n, T].

    Args:
        model: a SentenceTransformer.
        prompt: stands before every text.
        task: "query" or "document", where they are cut at different lengths.

    Raises:
        ModelError: the model has no row for a token, a position or a type.
    """
    features = _tokens_of(model, texts, prompt=prompt, task=task)
    check_known(features, model, getattr(model, "backbone", None), name=getattr(model, "called", "the model"))
    return features


def _tokens_of(model: Any, texts: Sequence[str], *, prompt: str | None, task: str | None) -> dict[str, Any]:
    first = model[0]
    is_masked = bool(prompt) and isinstance(first, InstructedTransformer)  # that wants tensors
    if is_masked or not texts or not _is_plain(first):
        return dict(model.preprocess(list(texts), prompt=prompt, task=task))
    features = (
        dict(model.preprocess(list(texts), prompt=prompt, task=task, processing_kwargs=_UNPADDED))
        if prompt or not _adds_nothing(first)
        else _tokenised(first, list(texts), task)
    )
    padding = padding_values(first.tokenizer)
    ids = features.get("input_ids")
    per_token = {key for key, value in features.items() if isinstance(value, list)}
    if not isinstance(ids, list) or not per_token <= padding.keys():
        return dict(model.preprocess(list(texts), prompt=prompt, task=task))
    lengths = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
    attended = _attended(lengths, on_left=first.tokenizer.padding_side == "left")
    padded = {key: _padded(features[key], attended, padding[key]) for key in per_token}
    return {key: padded.get(key, value) for key, value in features.items()}


def _is_plain(transformer: Any) -> bool:
    """Return whether nothing but a fast tokenizer makes the features, and pads as it does by itself."""
    return (
        isinstance(transformer, Transformer)
        and getattr(transformer.tokenizer, "is_fast", False)
        and transformer.processor is transformer.tokenizer
        and modalities(transformer) == {"text"}
        and transformer.query_expansion is None
        and not transformer.processing_kwargs
    )


def _adds_nothing(transformer: Transformer) -> bool:
    """Return whether `preprocess` hands its texts to the tokenizer, and that is all."""
    return (
        type(transformer).preprocess is Transformer.preprocess
        and transformer.transformer_task == "feature-extraction"
        and "flash" not in str(attention_name(transformer.config))  # that may have texts in a row
    )


def _tokenised(transformer: Transformer, texts: list[str], task: str | None) -> dict[str, Any]:
    """Return the features without padding; `preprocess` would look at each text for links to pictures first."""
    lengths = {"query": transformer.query_length, "document": transformer.document_length}
    longest = lengths.get(task or "")
    cut = {} if longest is None else {"max_length": longest}
    with turn(transformer):
        found = transformer.tokenizer(texts, padding=False, truncation="longest_first", **cut)
    return {**found, "modality": "text"}


def padding_values(tokenizer: Any) -> Mapping[str, int]:
    """Return what stands for no token in each feature."""
    return {
        "input_ids": tokenizer.pad_token_id or 0,
        "token_type_ids": tokenizer.pad_token_type_id,
        "attention_mask": 0,
        "pooling_mask": 0,
    }


def _attended(lengths: Int64[np.ndarray, " n"], *, on_left: bool) -> Bool[np.ndarray, "n T"]:
    """Return where the tokens are.

    >>> _attended(np.array([2, 1]), on_left=True).astype(int).tolist()
    [[1, 1], [0, 1]]
    """
    columns = np.arange(lengths.max(initial=0))
    return (columns >= len(columns) - lengths[:, None]) if on_left else columns < lengths[:, None]


def _padded(rows: list[list[int]], attended: Bool[np.ndarray, "n T"], padding: int) -> Int64[Tensor, "n T"]:
    """Return the numbers of all texts where their tokens are, and something else elsewhere."""
    numbers = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(attended.sum()))
    values = np.full(attended.shape, padding)
    values[attended] = numbers
    return torch.from_numpy(values)
