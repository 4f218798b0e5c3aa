"""Shards: the files of a vector store, which are one matrix when stacked.

Shapes: n rows of a shard, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from embedsmith.data.files import read_array, read_json
from embedsmith.errors import InputError

_PATIENCE_S, _PAUSE_S = 15.0, 0.25
"""How long a file may take to be seen; NFS remembers for some seconds that it was not there."""


def read_description(folder: Path) -> dict[str, Any]:
    """Return what the `store.json` of a store says: `contract`, `count`, `shard_size`, `dimensions` and more.

    Raises:
        InputError: the file is missing, or describes no store.
    """
    path = folder / "store.json"
    found = read_json(path)
    if not isinstance(found, dict):
        wrong = ["mapping"]
    else:
        numbers = {name: found.get(name) for name in ("count", "shard_size", "dimensions")}
        numbers["dimensions"] = 1 if "dimensions" in found and found["dimensions"] is None else numbers["dimensions"]
        wrong = [name for name, value in numbers.items() if type(value) is not int or value < 1]
        wrong += [name for name in ("contract",) if not isinstance(found.get(name), dict)]
    if wrong:
        raise InputError(
            f"{path}: not the description of a vector store: {wrong[0]} does not fit",
            hint=f"remove {folder}; it is written anew",
        )
    return found


def shard_path(folder: Path, shard: int) -> Path:
    """Return where a shard lies."""
    return folder / f"shard-{shard:05d}.npy"


def open_shard(path: Path, rows: int, dimensions: int) -> Float32[np.ndarray, "n D"] | None:
    """Return a shard as a memory map, or None if it is not there, not whole or of another shape."""
    if not path.exists():
        return None
    try:
        vectors: np.memmap = read_array(path)  # type: ignore[assignment]
    except InputError:  # shorter than its header says, or without one
        return None
    whole = vectors.offset + vectors.nbytes == path.stat().st_size
    fits = vectors.dtype == np.float32 and vectors.shape == (rows, dimensions)
    return vectors if whole and fits else None


def open_when_there(path: Path, rows: int, dimensions: int) -> Float32[np.ndarray, "n D"] | None:
    """Return a shard that another machine has written; its file may take some seconds to be seen from here."""
    ends = time.monotonic() + _PATIENCE_S
    while (vectors := open_shard(path, rows, dimensions)) is None and time.monotonic() < ends:
        time.sleep(_PAUSE_S)
    return vectors


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
