"""Exact top-k by inner product, streamed over shards.

Score and row of a candidate make one 64-bit key that sorts as the pair does. Keys are all different, so the best k are
always the same ones, whatever the blocks; ties go to the lower row at no extra cost.

Shapes: Q queries, N passages, n passages of a shard or block, D dimensions, K candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float, Float32, Int64, UInt64

from embedsmith.errors import InputError
from embedsmith.vectors.store import gather

_MAX_ROW = 0xFFFF_FFFF
_QUERY_BLOCK = 512
"""Queries scored at once: enough for a fast matrix product, few enough to leave the memory to passages."""
_BYTES_PER_SCORE = 32
"""A score (4), its key (8) twice while both are put together and partitioned, temporary arrays."""


def top_k(
    queries: Float32[np.ndarray, "Q D"],
    passages: Float[np.ndarray, "_ _"] | Iterable[Float[np.ndarray, "_ _"]],
    *,
    k: int,
    block_bytes: int = 256 * 2**20,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return the rows and the inner products of the k best passages of each query, best first.

    Products are float32. Ties go to the lower row. With k > N, K is N.

    Args:
        passages: one array, or shards in order; memory maps, float32 or float16 (converted block by block).
        block_bytes: memory for one block of passages and its scores; beside it only K keys a query are held.
        on_progress: called with (passages done, N) after each block.

    Raises:
        InputError: there is no passage, the dimensions differ, or a vector is not finite.

    >>> queries = np.array([[1.0, 0.0]], np.float32)
    >>> top_k(queries, [np.array([[0.5, 1.0]], np.float32), np.array([[0.9, 0.0], [0.5, 0.0]], np.float32)], k=2)
    (array([[1, 0]]), array([[0.9, 0.5]], dtype=float32))
    """
    assert k >= 1, f"k is {k}"
    shards = [passages] if isinstance(passages, np.ndarray) else list(passages)
    total = sum(len(shard) for shard in shards)
    _check(queries, shards, total)
    k = min(k, total)
    best = np.zeros((len(queries), 0), np.uint64)
    for start, block in _blocks(shards, max(1, block_bytes // _bytes_per_passage(queries))):
        if not np.isfinite(block).all():
            raise InputError(
                f"a passage vector among rows {start:,} to {start + len(block) - 1:,} is not finite",
                hint="encode again in float32 or bfloat16: float16 overflows in many models",
            )
        best = _merge(best, queries, block, start, k)
        if on_progress:
            on_progress(start + len(block), total)
    best = np.sort(best, axis=1)[:, ::-1]
    return _rows(best), _scores(best)


def scores_of(
    queries: Float32[np.ndarray, "Q D"],
    passages: Float[np.ndarray, "_ _"] | Iterable[Float[np.ndarray, "_ _"]],
    rows: Int64[np.ndarray, "Q K"],
    *,
    block_bytes: int = 256 * 2**20,
) -> Float32[np.ndarray, "Q K"]:
    """Return the inner products of each query with passages of its own, such as candidates that another teacher found.

    They equal those of `top_k` up to rounding: a matrix product adds in another order.

    >>> passages = np.array([[1.0], [2.0], [4.0]], np.float32)
    >>> scores_of(np.array([[1.0], [10.0]], np.float32), passages, np.array([[0, 2], [2, 1]]))
    array([[ 1.,  4.],
           [40., 20.]], dtype=float32)
    """
    shards = [passages] if isinstance(passages, np.ndarray) else list(passages)
    _check(queries, shards, sum(len(shard) for shard in shards))
    scores = np.empty(rows.shape, np.float32)
    step = max(1, block_bytes // (4 * max(1, rows.shape[1]) * queries.shape[1]))
    for start in range(0, len(queries), step):
        some = slice(start, start + step)
        scores[some] = np.einsum("qd,qkd->qk", queries[some], gather(shards, rows[some]))
    return scores


def _check(queries: np.ndarray, shards: list[np.ndarray], total: int) -> None:
    """Raise InputError unless queries and passages can be multiplied."""
    if total == 0:
        raise InputError("no passages to search", hint="give at least one passage")
    assert total <= _MAX_ROW, f"{total} rows do not fit a key"
    for shard in shards:
        if shard.shape[1] != queries.shape[1]:
            raise InputError(
                f"queries have {queries.shape[1]:,} dimensions, passages {shard.shape[1]:,}",
                hint="encode both with the same model",
            )
    bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(bad):
        raise InputError(
            f"the vector of query row {bad[0]:,} is not finite",
            hint="encode again in float32 or bfloat16: float16 overflows in many models",
        )


def _bytes_per_passage(queries: np.ndarray) -> int:
    """Return what one passage of a block costs: its vector, a mask of it, and its scores."""
    dimensions: int = queries.shape[1]
    return 5 * dimensions + _BYTES_PER_SCORE * min(len(queries), _QUERY_BLOCK)


def _blocks(shards: list[np.ndarray], size: int) -> Iterator[tuple[int, Float32[np.ndarray, "n D"]]]:
    """Yield (first row, at most `size` vectors as float32)."""
    first = 0
    for shard in shards:
        for start in range(0, len(shard), size):
            yield first + start, np.asarray(shard[start : start + size], dtype=np.float32)
        first += len(shard)


def _merge(
    best: UInt64[np.ndarray, "Q k"], queries: np.ndarray, block: Float32[np.ndarray, "n D"], start: int, k: int
) -> UInt64[np.ndarray, "Q K"]:
    """Return the best k keys, in no order, after one more block of passages."""
    width = min(k, best.shape[1] + len(block))
    merged = np.empty((len(queries), width), np.uint64)
    for first in range(0, len(queries), _QUERY_BLOCK):
        some = slice(first, first + _QUERY_BLOCK)
        keys = np.concatenate([best[some], _keys(queries[some] @ block.T, start)], axis=1)
        keys.partition(keys.shape[1] - width, axis=1)
        merged[some] = keys[:, keys.shape[1] - width :]
    return merged


def _keys(scores: Float32[np.ndarray, "q n"], start: int) -> UInt64[np.ndarray, "q n"]:
    """Return keys that grow with the score and, where scores tie, with a lower row.

    >>> keys = _keys(np.array([[-1.0, 2.0, 2.0, -3.0, -0.0, 0.0]], np.float32), start=7)
    >>> np.argsort(keys[0])[::-1]
    array([1, 2, 4, 5, 0, 3])
    >>> _scores(keys), _rows(keys)
    (array([[-1.,  2.,  2., -3.,  0.,  0.]], dtype=float32), array([[ 7,  8,  9, 10, 11, 12]]))
    """
    bits = (scores + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0, which it ties with
    # A float's bits sort as an integer's once the sign bit is flipped, and for negative numbers all the others too.
    bits ^= np.where(bits >> 31, np.uint32(0xFFFF_FFFF), np.uint32(0x8000_0000))
    keys = bits.astype(np.uint64) << np.uint64(32)
    keys |= np.uint64(_MAX_ROW) - np.arange(start, start + scores.shape[1], dtype=np.uint64)
    return keys


def _rows(keys: UInt64[np.ndarray, "q n"]) -> Int64[np.ndarray, "q n"]:
    """Return the rows that keys hold."""
    return (np.uint64(_MAX_ROW) - (keys & np.uint64(_MAX_ROW))).astype(np.int64)


def _scores(keys: UInt64[np.ndarray, "q n"]) -> Float32[np.ndarray, "q n"]:
    """Return the scores that keys hold, bit for bit."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    bits ^= np.where(bits >> 31, np.uint32(0x8000_0000), np.uint32(0xFFFF_FFFF))
    return bits.view(np.float32)
