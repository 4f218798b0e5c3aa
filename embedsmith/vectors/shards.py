"""Shards: the files of a vector store, which are one matrix when stacked.

Shapes: n rows of a shard, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64


def shard_path(folder: Path, shard: int) -> Path:
    """Return where a shard lies."""
    return folder / f"shard-{shard:05d}.npy"


def open_shard(path: Path, rows: int, dimensions: int) -> Float32[np.ndarray, "n D"] | None:
    """Return a shard as a memory map, or None if it is not there, not whole or of another shape."""
    if not path.exists():
        return None
    try:
        vectors = np.load(path, mmap_mode="r")
    except (ValueError, EOFError):  # shorter than its header says, or without one
        return None
    whole = vectors.offset + vectors.nbytes == path.stat().st_size
    fits = vectors.dtype == np.float32 and vectors.shape == (rows, dimensions)
    return vectors if whole and fits else None


def gather(
    shards: Sequence[Float[np.ndarray, "_ D"]], rows: Int64[np.ndarray, "*shape"]
) -> Float32[np.ndarray, "*shape D"]:
    """Return rows, as float32, of the matrix that the shards make when stacked.

    >>> gather([np.zeros((2, 1), np.float32), np.ones((2, 1), np.float32)], np.array([3, 0])).tolist()
    [[1.0], [0.0]]
    """
    ends = np.cumsum([len(shard) for shard in shards])
    assert rows.size == 0 or (rows.min() >= 0 and rows.max() < ends[-1]), f"rows must be in [0, {ends[-1]})"
    owner = np.searchsorted(ends, rows, side="right")
    gathered = np.empty((*rows.shape, shards[0].shape[1]), np.float32)
    for shard in np.unique(owner):
        here = owner == shard
        gathered[here] = shards[shard][rows[here] - (ends[shard] - len(shards[shard]))]
    return gathered
