"""Mining methods: above which score is a candidate too good to be a negative?

A method maps the positives' scores to one ceiling a query; a negative stays strictly under it. It sees scores only:
search, exclusion of known positives and sampling live elsewhere.

Source: Moreira et al., NV-Retriever, https://arxiv.org/abs/2407.15831, section 3.1 and algorithms 1 to 3.
Shapes: Q queries.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float32
from pydantic import Field

from embedsmith.settings import Settings

MethodName = Literal["naive", "shifted", "abs", "marginpos", "percpos"]


class MethodSettings(Settings):
    """Which candidates may be negatives."""

    method: MethodName = "percpos"
    """naive: all; shifted: all but the first ones; abs: those under `threshold`; marginpos: those under the positive's
    score minus `margin`; percpos: those under `ratio` of the positive's score."""
    ratio: float = Field(0.95, gt=0)
    """percpos: share of the positive's score. 0.95 is the paper's best (table 3)."""
    margin: float = Field(0.05, ge=0)
    """marginpos: distance from the positive's score. 0.05 is the paper's best."""
    threshold: float = 0.7
    """abs: the highest score of a negative. 0.7 is the paper's best."""
    shift: int = Field(10, ge=0)
    """shifted: number of best candidates that are left out, after exclusion. 10 is the paper's best."""


def ceiling(positive: Float32[np.ndarray, " Q"], settings: MethodSettings) -> Float32[np.ndarray, " Q"]:
    """Return the score that a negative must stay under, one a query.

    Args:
        positive: the score of each query's positive; the lowest one where there are several.

    >>> scores = np.array([0.8, 0.4, -0.2], np.float32)
    >>> ceiling(scores, MethodSettings(method="percpos", ratio=0.75)).tolist()
    [0.6000000238418579, 0.30000001192092896, -0.25]
    >>> ceiling(scores, MethodSettings(method="naive")).tolist()
    [inf, inf, inf]
    """
    match settings.method:
        case "percpos":
            # A share of |s|: scaling a negative score would lift the ceiling above it.
            return positive - np.float32(1.0 - settings.ratio) * np.abs(positive)
        case "marginpos":
            return positive - np.float32(settings.margin)
        case "abs":
            return np.full_like(positive, settings.threshold)
        case "naive" | "shifted":
            return np.full_like(positive, np.inf)


def first_rank(settings: MethodSettings) -> int:
    """Return how many of the best candidates, after exclusion, a method leaves out.

    >>> first_rank(MethodSettings(method="shifted", shift=10)), first_rank(MethodSettings())
    (10, 0)
    """
    return settings.shift if settings.method == "shifted" else 0
