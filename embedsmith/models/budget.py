"""Batches cut to a token budget: texts are sorted by length, and batches have about the same number of tokens.

Padding is wasted work. Texts sorted by their characters, 32 to a batch, are a third padding where lengths vary as they
do in code; sorted by their tokens and cut to a budget, a fiftieth.

Shapes: n texts that are tokenised at once, b texts of a batch, T and t the tokens of the longest one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.nn import functional

from embedsmith.models.threads import on_cores, set_cores

Features = Mapping[str, Any]
Item = TypeVar("Item")
Made = TypeVar("Made")


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


@dataclass(frozen=True)
class Rounding:
    """Numbers of tokens that batches may have, padding included, and what the padding is that rounds them up."""

    grain: int
    """All numbers are multiples of it."""
    longest: int
    """No text is padded beyond so many tokens; a batch that would be is not rounded."""
    values: Mapping[str, int]
    """Of padding, for each feature with one value a token."""
    on_left: bool = False

    def widths(self, lengths: Int64[np.ndarray, " k"], texts: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return how many tokens the texts of k batches have, each of so many texts and of so many tokens before.

        >>> rounding = Rounding(grain=32, longest=128, values={})
        >>> rounding.widths(np.array([9, 9, 9, 127]), np.array([1, 6, 16, 1])).tolist()
        [32, 16, 10, 128]
        """
        step = self.grain // np.gcd(texts, self.grain)
        rounded = -(-lengths // step) * step
        return np.where(rounded > self.longest, lengths, rounded)

    def padded(self, features: Features) -> Features:
        """Return the features of a batch with its padding."""
        texts, width = features["attention_mask"].shape
        more = int(self.widths(np.array([width]), np.array([texts]))[0]) - width
        if not more:
            return features
        sides = (more, 0) if self.on_left else (0, more)
        return {
            key: functional.pad(value, sides, value=self.values[key]) if key in self.values else value
            for key, value in features.items()
        }


def token_batches(
    features: Features,
    tokens: int,
    *,
    overhead: int | None = None,
    padded: bool = True,
    apart: int | None = None,
    rounding: Rounding | None = None,
) -> Iterator[tuple[Int64[Tensor, " b"], Features]]:
    """Yield batches of about `tokens` tokens, padding included, as (rows, features); longest texts first.

    Args:
        overhead: what a batch costs beside its tokens, in tokens: batches are then cut where padding and overhead
            together are least. None fills every batch.
        padded: whether padding costs what tokens cost. Else batches have about the same number of tokens.
        apart: texts of fewer tokens than this share no batch with longer ones.
        rounding: numbers of tokens that batches may have; with `overhead` only, and where it knows every feature.
        features: what a model's `preprocess` returns for n texts; its `attention_mask` [n, T] says what is padding.
            Whatever has the mask's shape is cut to the batch, and to the columns that are not padding for all of it.
    """
    attended = features["attention_mask"].bool()
    lengths = attended.sum(1)
    order = lengths.argsort(descending=True, stable=True)
    in_order = lengths[order].clamp(min=1).numpy()
    long = 0 if apart is None else int((lengths >= apart).sum())
    ends = [
        begin + end
        for begin, part in ((0, in_order[:long]), (long, in_order[long:]))
        for end in _ends(part, tokens, overhead, padded, rounding)
    ]
    cut = of_tokens(features)
    for rows in order.split(np.diff(ends, prepend=0).tolist()):
        columns = attended[rows].any(0)
        if not columns.any():
            columns[0] = True  # texts of no token: a model needs one column all the same
        batch = {key: value[rows][:, columns] if key in cut else value for key, value in features.items()}
        yield rows, rounding.padded(batch) if rounding else batch


def _ends(
    lengths: Int64[np.ndarray, " n"], tokens: int, overhead: int | None, padded: bool, rounding: Rounding | None
) -> list[int]:
    """Return where batches end, of texts of these lengths, longest first."""
    if not len(lengths):
        return []
    if not padded:
        return even_cuts(lengths, tokens)
    if overhead is not None:
        return cheapest_cuts(lengths, tokens, overhead, rounding)
    ends = [0]
    while ends[-1] < len(lengths):
        ends.append(min(len(lengths), ends[-1] + max(1, tokens // int(lengths[ends[-1]]))))
    return ends[1:]


def cheapest_cuts(
    lengths: Int64[np.ndarray, " n"], tokens: int, overhead: int, rounding: Rounding | None = None
) -> list[int]:
    """Return where batches end so that their tokens, padding included, and their overhead add up to the least.

    Args:
        lengths: of the texts, longest first.
        tokens: of a batch at the most; one text always fits.
        overhead: what a batch costs beside its tokens, in tokens.
        rounding: numbers of tokens that batches may have.

    >>> cheapest_cuts(np.array([9, 9, 3, 3, 3]), tokens=100, overhead=2)
    [2, 5]
    >>> cheapest_cuts(np.array([9, 9, 3, 3, 3]), tokens=100, overhead=20)
    [5]
    """
    count = len(lengths)
    cost, begins = np.zeros(count + 1), np.zeros(count + 1, dtype=np.int64)
    for end in range(1, count + 1):
        # No batch of more texts than this fits: its longest text is as long as its last or longer.
        first = max(0, end - max(1, tokens // int(lengths[end - 1])))
        size = np.arange(end - first, 0, -1)
        widths = lengths[first:end]
        padded = size * (rounding.widths(widths, size) if rounding else widths)
        found = np.where((padded <= tokens) | (size == 1), cost[first:end] + padded + overhead, np.inf)
        begins[end] = first + int(found.argmin())
        cost[end] = found.min()
    ends: list[int] = []
    end = count
    while end:
        ends.append(end)
        end = int(begins[end])
    return ends[::-1]


def even_cuts(lengths: Int64[np.ndarray, " n"], tokens: int) -> list[int]:
    """Return where batches end that have about the same number of tokens, and hardly more than `tokens`.

    >>> even_cuts(np.array([9, 8, 3, 3, 1]), tokens=20), even_cuts(np.array([9, 8, 3, 3, 1]), tokens=24)
    ([1, 5], [5])
    """
    count = -(-int(lengths.sum()) // tokens)
    # A text belongs where its middle token would be if all texts were cut into batches of the same size.
    batch = (lengths.cumsum() - lengths / 2) * count // lengths.sum()
    return [*(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(lengths)]


def ahead(work: Callable[[Item], Made], items: Iterator[Item]) -> Iterator[tuple[Item, Made]]:
    """Yield (item, what work makes of it), the work on the next item going on in a thread meanwhile."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        previous = None
        for item in items:
            current = item, thread.submit(work, item)
            if previous:
                yield previous[0], previous[1].result()
            previous = current
        if previous:
            yield previous[0], previous[1].result()


def side_by_side(
    work: Callable[[Item], Made], items: Iterator[Item], workers: int, *, ahead: int | None = None
) -> Iterator[Made]:
    """Yield what work makes of each item, in order; several at once, each on a thread with its share of the cores.

    At most `ahead` items are begun or done beyond the one that is yielded next; by default twice the workers.

    A single item is worked on by the calling thread, with all the cores it has. Else the calling thread keeps to one
    core until the last item is done: its OpenMP workers would keep spinning after each matmul, and take a sixth of the
    time of all threads.
    """
    first = list(islice(items, 2))
    if workers == 1 or len(first) < 2:
        yield from map(work, chain(first, items))
        return
    cores = torch.get_num_threads()
    threads = ThreadPoolExecutor(workers, initializer=set_cores, initargs=(max(1, cores // workers),))
    try:
        with on_cores(1):
            running: deque[Future[Made]] = deque()
            for item in chain(first, items):
                running.append(threads.submit(work, item))
                if len(running) > (2 * workers if ahead is None else ahead):
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def of_tokens(features: Features) -> set[str]:
    """Return the names of the features that have one value a token."""
    shape = features["attention_mask"].shape
    return {key for key, value in features.items() if isinstance(value, Tensor) and value.shape == shape}
