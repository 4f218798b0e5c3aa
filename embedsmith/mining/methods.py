"""Mining methods: above which score is a candidate too good to be a negative?

A method maps the positives' scores to one ceiling a row; a negative stays strictly under it. It sees scores only:
search, exclusion of known positives and sampling live elsewhere.

Source: Moreira et al., NV-Retriever, https://arxiv.org/abs/2407.15831, section 3.1 and algorithms 1 to 3.
Shapes: R rows, which are queries, or pairs of query and positive.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from embedsmith.mining.settings import MethodSettings


def ceiling(positive: Float32[np.ndarray, " R"], settings: MethodSettings) -> Float32[np.ndarray, " R"]:
    """Return the score that a negative must stay under, one a row: the lowest where several methods must agree.

    Args:
        positive: the score of each row's positive.

    >>> scores = np.array([0.8, 0.4, -0.2], np.float32)
    >>> ceiling(scores, MethodSettings(method="percpos", ratio=0.75)).tolist()
    [0.6000000238418579, 0.30000001192092896, -0.25]
    >>> ceiling(scores, MethodSettings(method="percpos+abs", ratio=0.75, threshold=0.5)).tolist()
    [0.5, 0.30000001192092896, -0.25]
    >>> ceiling(scores, MethodSettings(method="naive")).tolist()
    [inf, inf, inf]
    """
    return np.minimum.reduce([_ceiling_of(method, positive, settings) for method in settings.methods])


def _ceiling_of(
    method: str, positive: Float32[np.ndarray, " R"], settings: MethodSettings
) -> Float32[np.ndarray, " R"]:
    match method:
        case "percpos":
            # A share of |s|: scaling a negative score would lift the ceiling above it.
            return positive - np.float32(1.0 - settings.ratio) * np.abs(positive)
        case "marginpos":
            return positive - np.float32(settings.margin)
        case "abs":
            return np.full_like(positive, settings.threshold)
        case _:
            return np.full_like(positive, np.inf)


def first_rank(settings: MethodSettings) -> int:
    """Return how many of the best candidates, after exclusion, a method leaves out.

    >>> first_rank(MethodSettings(method="shifted", shift=10)), first_rank(MethodSettings())
    (10, 0)
    """
    return settings.shift if "shifted" in settings.methods else 0
