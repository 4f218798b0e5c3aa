"""Exact top-k by inner product, streamed over shards with bounded memory.

Two passes over each block. The first multiplies bfloat16 copies of the vectors, four times as fast as float32 where a
processor has instructions for it; its error is bounded, and what the bound rules out (nearly everything, once k good
passages are known) is never looked at again. The second gives the rest their score: the inner product of the float32
vectors, added up in float64 and rounded once. So rows and scores depend on the two vectors alone: not on blocks,
threads, shards or the device of the first pass.

Score and row of a candidate make one 64-bit key that sorts as the pair does: ties go to the lower row at no extra cost.

Shapes: Q queries, N passages, q and n those of a block, D dimensions, K candidates, c pairs of a query and a passage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt32, UInt64
from torch import Tensor

from embedsmith.errors import InputError
from embedsmith.models.precision import has_bfloat16

_MAX_ROW = 0xFFFF_FFFF
_QUERIES = {True: 512, False: 8192}
"""Queries multiplied at once, on a CPU and elsewhere: enough for a fast matrix product."""
_PASSAGES = {True: 16_384, False: 65_536}
"""The most passages multiplied at once. On a CPU their copies stay in its caches; fewer would rule out less."""
_BYTES_PER_SCORE = 32
"""At worst, when nothing is ruled out: a score (4), whether it counts (1), place (8), query (8), key (8), spare."""
_BYTES_PER_KEY = 48
"""A key twice (16), and again when the table is sorted and cut."""
_PAIRS = 256
"""Pairs scored at once, so that their vectors stay in the caches."""
_PARTITIONED = 16
"""Queries whose scores are partitioned at once, for the same reason."""
_MEASURED = 512
"""Vectors rounded and measured at once, for the same reason."""
_WORTH_SHARING = 4096
"""Pairs from which on it pays to score them in several threads."""


def top_k(
    queries: Float32[np.ndarray, "Q D"],
    passages: Float[np.ndarray, "_ _"] | Iterable[Float[np.ndarray, "_ _"]],
    *,
    k: int,
    memory_gib: float = 1.0,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return the rows and the inner products of the k best passages of each query, best first.

    Ties go to the lower row. With k > N, K is N.

    Args:
        passages: one array, or shards in order; memory maps, float32 or float16 (converted block by block).
        memory_gib: memory beside arguments and result. Queries whose best passages do not fit a quarter of it are
            searched in groups, each of which reads the passages once.
        device: of the first pass, as torch names it.
        on_progress: called with (passages done, N) after each block; with several groups, N counts once for each.

    Raises:
        InputError: there is no passage, the dimensions differ, or a vector is not finite.

    >>> queries = np.array([[1.0, 0.0]], np.float32)
    >>> top_k(queries, [np.array([[0.5, 1.0]], np.float32), np.array([[0.9, 0.0], [0.5, 0.0]], np.float32)], k=2)
    (array([[1, 0]]), array([[0.9, 0.5]], dtype=float32))
    """
    assert k >= 1, f"k is {k}"
    shards = [passages] if isinstance(passages, np.ndarray) else list(passages)
    total = sum(len(shard) for shard in shards)
    check_vectors(queries, shards, total)
    k = min(k, total)
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    memory = int(memory_gib * 2**30)
    size = max(1, memory // (4 * _BYTES_PER_KEY * k))
    starts = range(0, len(queries), size)
    for number, start in enumerate(starts):
        some = slice(start, start + size)
        best = _Best(len(queries[some]), k)
        for done in _search(queries[some], shards, best, memory - memory // 4, device):
            if on_progress:
                on_progress(number * total + done, len(starts) * total)
        rows[some], scores[some] = best.result()
    return rows, scores


def merged(
    found: tuple[Int64[np.ndarray, "Q _"], Float32[np.ndarray, "Q _"]],
    more: tuple[Int64[np.ndarray, "Q _"], Float32[np.ndarray, "Q _"]],
    k: int,
) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
    """Return the k best of what `top_k` has found among some passages and among others, in whichever order they came.

    >>> some = np.array([[7, 2]]), np.array([[0.5, 0.1]], np.float32)
    >>> merged(some, (np.array([[3]]), np.array([[0.5]], np.float32)), 2)
    (array([[3, 7]]), array([[0.5, 0.5]], dtype=float32))
    """
    keys = np.concatenate(
        [_keys(scores.ravel(), rows.ravel()).reshape(rows.shape) for rows, scores in (found, more)], 1
    )
    best = np.sort(keys, axis=1)[:, : -k - 1 : -1]
    return _rows(best), _scores(best)


def scores_of(
    queries: Float32[np.ndarray, "Q D"],
    passages: Float[np.ndarray, "_ _"] | Iterable[Float[np.ndarray, "_ _"]],
    rows: Int64[np.ndarray, "Q K"],
) -> Float32[np.ndarray, "Q K"]:
    """Return the inner products of each query with passages of its own, such as candidates that another teacher found.

    They equal those of `top_k` bit for bit.

    >>> passages = np.array([[1.0], [2.0], [4.0]], np.float32)
    >>> scores_of(np.array([[1.0], [10.0]], np.float32), passages, np.array([[0, 2], [2, 1]]))
    array([[ 1.,  4.],
           [40., 20.]], dtype=float32)
    """
    shards = [passages] if isinstance(passages, np.ndarray) else list(passages)
    check_vectors(queries, shards, sum(len(shard) for shard in shards))
    ends = np.cumsum([len(shard) for shard in shards])
    assert rows.size == 0 or (rows.min() >= 0 and rows.max() < ends[-1]), f"rows must be in [0, {ends[-1]})"
    owner = np.searchsorted(ends, rows.ravel(), side="right")
    scores = np.empty(rows.size, np.float32)
    for shard in np.unique(owner):
        here = np.flatnonzero(owner == shard)
        place = rows.ravel()[here] - (ends[shard] - len(shards[shard]))
        scores[here] = _products(queries, here // rows.shape[1], np.asarray(shards[shard]), place)
    return scores.reshape(rows.shape)


def check_vectors(queries: np.ndarray, shards: list[np.ndarray], total: int) -> None:
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


def _search(
    queries: Float32[np.ndarray, "Q D"], shards: list[np.ndarray], best: _Best, memory: int, device: str
) -> Iterator[int]:
    """Put the best passages of all shards into `best`; yield how many passages are done, after each block."""
    on_cpu = device == "cpu"
    at_once = min(_QUERIES[on_cpu], len(queries))
    bytes_per_passage = 16 * queries.shape[1] + _BYTES_PER_SCORE * at_once
    size = min(_PASSAGES[on_cpu], max(1, memory // bytes_per_passage))
    rough_queries = _Rounded(queries, device)
    for start, block in _blocks(shards, size):
        rough_block = _Rounded(block, device)
        # Looked at again only where a length is not finite: it overflows before its numbers do.
        if not rough_block.lengths.isfinite().all() and len(bad := np.flatnonzero(~np.isfinite(block).all(axis=1))):
            raise InputError(
                f"the vector of passage row {start + int(bad[0]):,} is not finite",
                hint="encode again in float32 or bfloat16: float16 overflows in many models",
            )
        slack = _slack(rough_queries, rough_block)
        for first in range(0, len(queries), at_once):
            some = slice(first, first + at_once)
            rough = rough_queries.vectors[some] @ rough_block.vectors.T
            query, place = _not_ruled_out(rough, best.floors(some), slack[some], best.k)
            query += first
            scores = _products(queries, query, block, place)
            best.add(query, _keys(scores, start + place))
        yield start + len(block)


def _blocks(shards: list[np.ndarray], size: int) -> Iterator[tuple[int, Float32[np.ndarray, "n D"]]]:
    """Yield (first row, copy of at most `size` vectors as float32); small shards share a block."""
    ends = np.cumsum([len(shard) for shard in shards])
    for start in range(0, int(ends[-1]), size):
        block = np.empty((min(size, int(ends[-1]) - start), shards[0].shape[1]), np.float32)
        shard, done = int(np.searchsorted(ends, start, side="right")), 0
        while done < len(block):
            first = start + done - int(ends[shard]) + len(shards[shard])
            some = shards[shard][first : first + len(block) - done]
            block[done : done + len(some)] = some
            shard, done = shard + 1, done + len(some)
        yield start, block


class _Rounded:
    """Vectors rounded to bfloat16, and how far that moved them."""

    def __init__(self, vectors: Float32[np.ndarray, "n D"], device: str) -> None:
        exact = torch.from_numpy(np.require(vectors, requirements=["C", "W"])).to(device)
        rounded = torch.empty_like(exact, dtype=torch.bfloat16)
        self.lengths, self.errors = torch.empty((2, len(exact)), device=exact.device)
        step = _MEASURED if device == "cpu" else max(1, len(exact))
        for start in range(0, len(exact), step):
            some = slice(start, start + step)
            rounded[some] = exact[some]
            self.lengths[some] = torch.linalg.vector_norm(exact[some], dim=1)
            self.errors[some] = torch.linalg.vector_norm(exact[some] - rounded[some].float(), dim=1)
        # Elsewhere as float32, which holds them exactly: so does TF32, should a GPU use it.
        self.vectors = rounded if _multiplies_bfloat16(device) else rounded.float()


def _multiplies_bfloat16(device: str) -> bool:
    """Return whether a device multiplies bfloat16 fast, adding in float32."""
    return device == "cpu" and has_bfloat16(device)


def _slack(queries: _Rounded, passages: _Rounded) -> Float32[Tensor, " Q"]:
    """Return the most by which the product of rounded vectors is off, before it is rounded itself.

    |q·p - q'·p'| ≤ |q - q'| |p| + |q'| |p - p'|,   and adding D products in float32: ≤ D 2⁻²³ |q'| |p'|
    """
    longest, most = passages.lengths.max(), passages.errors.max()
    rounded, dimensions = queries.lengths + queries.errors, passages.vectors.shape[1]
    adding = dimensions * 2**-23 * rounded * (longest + most)
    # One part in a thousand for the rounding of the bound; 1e-30 for numbers so small that a processor makes them 0.
    return (queries.errors * longest + rounded * most + adding) * 1.001 + 1e-30


def _not_ruled_out(
    rough: Float[Tensor, "q n"], floors: Float32[np.ndarray, " q"], slack: Float32[Tensor, " q"], k: int
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Return the pairs (query, place), by query, whose exact score may reach the floor: the k-th best score so far."""
    reached = _at_least(rough, torch.from_numpy(floors).to(rough.device) - slack)
    if not slack.isfinite().all():
        reached[:] = True  # vectors so long that products overflow
    elif rough.shape[1] > k and _count(reached) > 4 * k * len(rough):
        # Little is known yet, as in the first block: k passages of this block score at least its k-th best less slack.
        reached &= _at_least(rough, _less(_kth_best(rough, k) - slack) - slack)
    if reached.device.type == "cpu":
        flat = np.flatnonzero(reached.numpy())
    else:  # few are left: only their places come back
        flat = reached.flatten().nonzero().squeeze(1).cpu().numpy()
    return flat // rough.shape[1], flat % rough.shape[1]


def _kth_best(rough: Float[Tensor, "q n"], k: int) -> Float32[Tensor, " q"]:
    """Return the k-th best product of each query."""
    if rough.dtype == torch.bfloat16:
        bits, at = rough.view(torch.int16).numpy(), rough.shape[1] - k
        found = np.empty(len(bits), np.int16)

        def find(first: int, last: int) -> None:
            for start in range(first, last, _PARTITIONED):
                some = slice(start, min(start + _PARTITIONED, last))
                found[some] = np.partition(bits[some], at, axis=1)[:, at]

        _in_threads(find, len(bits))
        if (found > 0).all():  # positive floats sort as their bits do, and numpy is four times as fast as torch
            return torch.from_numpy(found).view(torch.bfloat16).float()
    return rough.topk(k, dim=1, sorted=False).values.amin(1).float()


def _count(flags: Bool[Tensor, "q n"]) -> int:
    """Return how many flags are set; on a CPU by numpy, which is a hundred times as fast as torch."""
    return int(np.count_nonzero(flags.numpy()) if flags.device.type == "cpu" else flags.sum())


def _at_least(rough: Float[Tensor, "q n"], floors: Float32[Tensor, " q"]) -> Bool[Tensor, "q n"]:
    """Return which scores may reach a floor, whichever way they and this were rounded."""
    lowest = _less(floors).to(rough.dtype)[:, None]
    if rough.dtype == torch.bfloat16 and bool((floors > 0).all()):
        # A positive float sorts as its bits do, and numpy compares integers ten times as fast as torch bfloat16.
        return torch.from_numpy(rough.view(torch.int16).numpy() >= lowest.view(torch.int16).numpy())
    return rough >= lowest


def _less(values: Float32[Tensor, " q"]) -> Float32[Tensor, " q"]:
    """Return values less a hundredth: more than two roundings to bfloat16 lose (2⁻⁸ each)."""
    return values - 0.01 * values.abs()


def _products(
    queries: Float32[np.ndarray, "Q D"],
    query: Int64[np.ndarray, " c"],
    passages: Float[np.ndarray, "n D"],
    place: Int64[np.ndarray, " c"],
) -> Float32[np.ndarray, " c"]:
    """Return the inner product of each pair: added in float64 in an order of its own, and rounded once."""
    scores = np.empty(len(query), np.float32)

    def score(first: int, last: int) -> None:
        for start in range(first, last, _PAIRS):
            some = slice(start, min(start + _PAIRS, last))
            one, other = queries.take(query[some], axis=0), passages.take(place[some], axis=0)
            with np.errstate(over="ignore"):
                scores[some] = np.multiply(one, other, dtype=np.float64).sum(axis=1)

    if len(query) < _WORTH_SHARING:
        score(0, len(query))
    else:
        _in_threads(score, len(query))
    return scores


def _in_threads(work: Callable[[int, int], None], count: int) -> None:
    """Call `work(first, last)` for equal parts of a count at once: numpy lets other threads work while it reckons."""
    threads = torch.get_num_threads()
    if threads == 1:
        work(0, count)
        return
    edges = np.linspace(0, count, threads + 1).astype(np.int64).tolist()
    list(_pool(threads).map(work, edges[:-1], edges[1:]))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return threads that are kept."""
    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="search")


class _Best:
    """The k best keys of each query: a table with room for k more, cut back to k when there are a quarter more."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self._keys = np.zeros((queries, 2 * k), np.uint64)  # 0 is below every key
        self._filled = np.zeros(queries, np.int64)
        self._floor = np.zeros(queries, np.uint64)

    def floors(self, some: slice) -> Float32[np.ndarray, " q"]:
        """Return the score that a passage must reach to be among the best, as known at the last cut."""
        floor = self._floor[some]
        return np.where(floor > 0, _scores(np.maximum(floor, 1)), np.float32(-np.inf))

    def add(self, query: Int64[np.ndarray, " c"], keys: UInt64[np.ndarray, " c"]) -> None:
        """Add keys, sorted by their query."""
        while len(query):
            better = keys > self._floor[query]
            query, keys = query[better], keys[better]
            place = self._filled[query] + np.arange(len(query)) - np.searchsorted(query, query)
            fits = place < self._keys.shape[1]
            self._keys[query[fits], place[fits]] = keys[fits]
            self._filled += np.bincount(query[fits], minlength=len(self._filled))
            most = np.where(self._floor == 0, self.k, self.k + self.k // 4 + 1)
            self._cut(np.flatnonzero(self._filled >= most))
            query, keys = query[~fits], keys[~fits]

    def _cut(self, some: Int64[np.ndarray, " _"]) -> None:
        """Keep the k best keys of some queries."""
        table = self._keys[some]
        table.partition(self.k, axis=1)
        self._keys[some, : self.k] = table[:, self.k :]
        self._keys[some, self.k :] = 0
        self._filled[some] = self.k
        self._floor[some] = table[:, self.k :].min(axis=1)

    def result(self) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return rows and scores, best first, once N keys or more were offered to every query."""
        best = np.sort(self._keys, axis=1)[:, : -self.k - 1 : -1]
        return _rows(best), _scores(best)


def _keys(scores: Float32[np.ndarray, " c"], rows: Int64[np.ndarray, " c"]) -> UInt64[np.ndarray, " c"]:
    """Return keys that grow with the score and, where scores tie, with a lower row.

    >>> keys = _keys(np.array([-1.0, 2.0, 2.0, -3.0, -0.0, 0.0], np.float32), np.arange(7, 13))
    >>> np.argsort(keys)[::-1]
    array([1, 2, 4, 5, 0, 3])
    >>> _scores(keys), _rows(keys)
    (array([-1.,  2.,  2., -3.,  0.,  0.], dtype=float32), array([ 7,  8,  9, 10, 11, 12]))
    """
    bits: UInt32[np.ndarray, " c"] = (scores + np.float32(0)).view(np.uint32)  # adding 0 turns -0 into 0, its equal
    # A float's bits sort as an integer's once the sign bit is flipped, and for negative numbers all the others too.
    bits ^= np.where(bits >> 31, np.uint32(0xFFFF_FFFF), np.uint32(0x8000_0000))
    return (bits.astype(np.uint64) << np.uint64(32)) | (np.uint64(_MAX_ROW) - rows.astype(np.uint64))


def _rows(keys: UInt64[np.ndarray, "*shape"]) -> Int64[np.ndarray, "*shape"]:
    """Return the rows that keys hold."""
    return (np.uint64(_MAX_ROW) - (keys & np.uint64(_MAX_ROW))).astype(np.int64)


def _scores(keys: UInt64[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Return the scores that keys hold, bit for bit."""
    bits = (keys >> np.uint64(32)).astype(np.uint32)
    bits ^= np.where(bits >> 31, np.uint32(0x8000_0000), np.uint32(0xFFFF_FFFF))
    return bits.view(np.float32)
