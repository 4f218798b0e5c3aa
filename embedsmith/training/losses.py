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
    if allowed.device.type == "cpu":  # elsewhere reading the answer would synchronise
        rows = torch.arange(len(queries))
        assert bool(allowed[rows, positive].all()), "a query's positive must be in its denominator"
    # float32: bfloat16 has about two decimals of a cosine, and dividing by the temperature magnifies the error.
    scores = queries.float() @ passages.float().T / temperature
    return functional.cross_entropy(scores.masked_fill(~allowed, float("-inf")), positive)


def in_batch_accuracy(
    queries: Float[Tensor, "B D"],
    passages: Float[Tensor, "U D"],
    *,
    positive: Int64[Tensor, " B"],
    allowed: Bool[Tensor, "B U"],
) -> Float[Tensor, ""]:
    """Return the share of queries whose positive scores above every other allowed passage."""
    scores = (queries.float() @ passages.float().T).masked_fill(~allowed, float("-inf"))
    return (scores.argmax(1) == positive).float().mean()


def matryoshka(vectors: Float[Tensor, "N D"], dimensions: int) -> Float[Tensor, "N d"]:
    """Return the first dimensions of vectors, of length 1 again.

    Source: Kusupati et al., Matryoshka Representation Learning, https://arxiv.org/abs/2205.13147.

    >>> matryoshka(torch.tensor([[3.0, 4.0, 12.0]]), 2)
    tensor([[0.6000, 0.8000]])
    """
    return functional.normalize(vectors[:, :dimensions], dim=-1)


def vector_distance(student: Float[Tensor, "N D"], teacher: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Return the mean over texts of the squared distance between a student's vectors and a teacher's, both of length 1.

    A NaN row is a text without a teacher vector; if all rows are NaN, the loss is 0. Squares are summed over
    dimensions: their mean would shrink as dimensions grow. The squared distance of two vectors of length 1 is at
    most 4.

    >>> vector_distance(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    tensor(2.)
    """
    seen = ~teacher.isnan().any(1)
    if not seen.any():
        return student.sum() * 0.0
    return (student[seen].float() - teacher[seen]).square().sum(1).mean()


def score_divergence(
    queries: Float[Tensor, "B D"],
    passages: Float[Tensor, "U D"],
    *,
    teacher: Float[Tensor, "B U"],
    temperature: float,
    teacher_temperature: float,
) -> Float[Tensor, ""]:
    """Return the mean Kullback-Leibler divergence of the student's score lists from the teacher's.

        L_b = sum over u of p(u) (log p(u) - log q(u)),   p = softmax(teacher / t'),   q = softmax(s(b, u) / t)

    Args:
        queries, passages: vectors of length 1, so that s is the cosine.
        teacher: scores; NaN where a passage is not in a query's list. A query with fewer than two has no part.

    >>> one = torch.eye(2)
    >>> teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> score_divergence(one, one, teacher=teacher, temperature=1.0, teacher_temperature=1.0).item()
    0.0
    """
    listed = ~teacher.isnan()
    rows = listed.sum(1) > 1
    if not rows.any():
        return queries.sum() * 0.0
    outside = ~listed[rows]
    scores = (queries.float() @ passages.float().T)[rows] / temperature
    student = scores.masked_fill(outside, float("-inf")).log_softmax(1)
    wanted = (teacher[rows] / teacher_temperature).masked_fill(outside, float("-inf")).log_softmax(1)
    parts = (wanted.exp() * (wanted - student)).masked_fill(outside, 0.0)
    return parts.sum(1).mean()


def margin_error(
    queries: Float[Tensor, "B D"],
    passages: Float[Tensor, "U D"],
    *,
    positive: Int64[Tensor, " B"],
    teacher: Float[Tensor, "B U"],
) -> Float[Tensor, ""]:
    """Return the mean squared error of the margins between a query's positive and its negatives (margin-MSE).

        L = mean over (b, n) of ( (s(b, p_b) - s(b, n)) - (t(b, p_b) - t(b, n)) )^2

    Args:
        queries, passages: vectors of length 1, so that s is the cosine; a teacher whose scores have another range
            sets margins that no student reaches.
        teacher: t; NaN where a passage is not in a query's list.

    Source: Hofstätter et al., https://arxiv.org/abs/2010.02666.

    >>> one = torch.eye(2)
    >>> teacher = torch.tensor([[0.9, 0.4], [float("nan"), 0.5]])
    >>> margin_error(one, one, positive=torch.arange(2), teacher=teacher).item()
    0.25
    """
    rows = torch.arange(len(queries), device=queries.device)
    scores = queries.float() @ passages.float().T
    wanted = teacher[rows, positive][:, None] - teacher
    listed = ~wanted.isnan()
    listed[rows, positive] = False
    if not listed.any():
        return queries.sum() * 0.0
    margins = scores[rows, positive][:, None] - scores
    return (margins - wanted)[listed].square().mean()
