"""The blend: sampling weights of the data sets, and what a stage will see of each.

By default all examples are drawn equally often. A weight scales how often those of a data set are drawn. A share fixes
the part of all draws that a data set gets, whatever its size. A cap takes a fixed sample of its examples.

Shapes: S data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from embedsmith.data.examples import Example
from embedsmith.errors import SettingsError


def draw_shares(
    sizes: Sequence[int], weights: Sequence[float], shares: Sequence[float | None]
) -> Float64[np.ndarray, " S"]:
    """Return the part of all draws that each data set gets.

    A data set with a share gets it. The others divide the rest in proportion to examples times weight. Where all have
    shares, or a stage has only some of a recipe's data sets, the shares are normalised to add up to 1.

    >>> draw_shares([300, 100, 50], [1.0, 1.0, 2.0], [None, None, None])
    array([0.6, 0.2, 0.2])
    >>> draw_shares([300, 100, 50], [1.0, 1.0, 1.0], [None, None, 0.5])
    array([0.375, 0.125, 0.5  ])

    Raises:
        SettingsError: the shares leave nothing for the others.
    """
    asked = np.array([share or 0.0 for share in shares])
    mass = np.array([0.0 if share else n * w for n, w, share in zip(sizes, weights, shares, strict=True)])
    if not mass.any():
        return asked / asked.sum()
    if asked.sum() >= 1:
        raise SettingsError(
            f"the shares of the data sets add up to {asked.sum():g}, and {int((mass > 0).sum())} have none",
            hint="leave something for the others, or give every data set a share",
        )
    return asked + mass / mass.sum() * (1 - asked.sum())


def capped_examples(examples: list[Example], limit: int | None, *, seed: int) -> list[Example]:
    """Return a random choice of at most so many examples, in their order."""
    if limit is None or len(examples) <= limit:
        return examples
    chosen = np.random.default_rng((seed, 0xCA9)).choice(len(examples), limit, replace=False)
    return [examples[row] for row in np.sort(chosen).tolist()]


@dataclass(frozen=True)
class Portion:
    """What a stage sees of one data set."""

    stage: str
    data: str
    examples: int
    """Examples, after a cap."""
    negatives: float
    """Mean number of negatives of an example."""
    weight: float
    queries: int
    """Queries that are drawn in the whole stage."""
    share: float
    """Part of all queries of the stage."""
    passes: float
    """How often each example is seen on average."""
