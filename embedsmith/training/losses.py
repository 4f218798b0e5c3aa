"""Contrastive losses over vectors; no model and no text.

Shapes: B queries, U distinct passages of the batch, D dimensions.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional


def info_nce(
    queries: Float[Tensor, "B D"],
    passages: Float[Tensor, "U D"],
    *,
    positive: Int64[Tensor, " B"],
    allowed: Bool[Tensor, "B U"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the mean of InfoNCE over a batch.

        L_b = -log( exp(s(b, p_b) / t) / sum over allowed u of exp(s(b, u) / t) )

    Args:
        queries, passages: vectors of length 1, so that s is the cosine.
        positive: the row of each query's positive among the passages.
        allowed: which passages stand in a query's denominator. The positive always does.
        temperature: t. Neither paper states one; 0.02 is E5-Mistral's.

    Source: NV-Retriever, section 3.1. With in-batch negatives every passage that is not known to answer the
    query is allowed; without, the query's own positive and negatives only (NV-Embed's second stage).

    >>> one = torch.eye(2)
    >>> allowed = torch.ones(2, 2, dtype=torch.bool)
    >>> round(info_nce(one, one, positive=torch.arange(2), allowed=allowed, temperature=1.0).item(), 4)
    0.3133
    """
    rows = torch.arange(len(queries), device=queries.device)
    assert bool(allowed[rows, positive].all()), "a query's positive must be in its denominator"
    # float32: bfloat16 holds a cosine to two decimals, and the temperature then multiplies the error.
    scores = queries.float() @ passages.float().T / temperature
    return functional.cross_entropy(scores.masked_fill(~allowed, float("-inf")), positive)


def in_batch_accuracy(
    queries: Float[Tensor, "B D"],
    passages: Float[Tensor, "U D"],
    *,
    positive: Int64[Tensor, " B"],
    allowed: Bool[Tensor, "B U"],
) -> float:
    """Return the share of queries whose positive scores above every other allowed passage."""
    scores = (queries.float() @ passages.float().T).masked_fill(~allowed, float("-inf"))
    return float((scores.argmax(1) == positive).float().mean())
