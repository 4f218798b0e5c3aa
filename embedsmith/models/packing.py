"""Batches of about equal work: texts of one length together, as many as a budget of tokens admits.

Padding is work for nothing. Texts in the order of their characters, 32 to a batch, are a third padding where lengths
vary as they do in code; in the order of their tokens, packed to a budget, a fiftieth.

Shapes: n texts that are tokenised at once, b texts of a batch, T and t the tokens of the longest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

Features = Mapping[str, Any]


def windows(lengths: Sequence[int], *, texts: int, characters: int) -> Iterator[list[int]]:
    """Yield the places of all texts, longest first, in lists that are tokenised at once.

    Args:
        lengths: characters of each text.
        texts: the most texts of a list.
        characters: the most that a list's texts would have if all were as long as its longest. One text always fits.

    >>> list(windows([5, 1, 9, 5], texts=3, characters=10))
    [[2], [0, 3], [1]]
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    while order:
        size = max(1, min(texts, characters // max(1, lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def batches(features: Features, tokens: int) -> Iterator[tuple[Int64[Tensor, " b"], Features]]:
    """Yield batches of about `tokens` tokens, padding included, as (rows, features); longest texts first.

    Args:
        features: what a model's `preprocess` returns for n texts; its `attention_mask` [n, T] says what is padding.
            Whatever has the mask's shape is cut to the batch, and to the columns that are not padding for all of it.
    """
    attended = features["attention_mask"].bool()
    lengths = attended.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        rows = order[start : start + max(1, tokens // longest)]
        columns = attended[rows].any(0)
        if not columns.any():
            columns[0] = True  # texts of no token: a model needs one column all the same
        yield rows, {key: _cut(value, attended.shape, rows, columns) for key, value in features.items()}
        start += len(rows)


def ahead(work: Callable[[list[int]], Features], lists: Iterator[list[int]]) -> Iterator[tuple[list[int], Features]]:
    """Yield (list, what work makes of it), the work on the next list going on in a thread meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        previous = None
        for places in lists:
            current = places, thread.submit(work, places)
            if previous:
                yield previous[0], previous[1].result()
            previous = current
        if previous:
            yield previous[0], previous[1].result()


def _cut(value: Any, shape: torch.Size, rows: Tensor, columns: Tensor) -> Any:
    """Return the part of a feature that belongs to a batch; what is not one value a token belongs to all."""
    is_per_token = isinstance(value, Tensor) and value.shape == shape
    return value[rows][:, columns] if is_per_token else value
