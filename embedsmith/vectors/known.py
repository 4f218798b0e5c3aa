"""Vectors that a store holds already, found by the hash of their text.

Shapes: N texts of a store, n texts that are looked for, D dimensions.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from embedsmith.data.files import atomic_write
from embedsmith.vectors.shards import open_shard, shard_path

HASHES = "texts.npy"
"""File of a store: 128 bits of hash and the row of every text, sorted by hash."""

_ENTRY = np.dtype([("hash", "S16"), ("row", "<i8")])


def write_hashes(folder: Path, texts: Sequence[str]) -> None:
    """Write the hashes of a store's texts."""
    entries = np.empty(len(texts), _ENTRY)
    entries["hash"], entries["row"] = _hashes(texts), np.arange(len(texts))
    with atomic_write(folder / HASHES, "wb") as file:
        np.save(file, entries[np.argsort(entries["hash"], kind="stable")])


class KnownVectors:
    """The vectors of a store, by text; of its shards, those that are whole."""

    def __init__(self, folder: Path, description: dict[str, Any]) -> None:
        """Open the store of a folder, given its store.json."""
        self._size, dimensions = description["shard_size"], description["dimensions"]
        self._entries = _open_hashes(folder / HASHES, description["count"])
        self._shards = [
            open_shard(
                shard_path(folder, shard), min(self._size, description["count"] - shard * self._size), dimensions
            )
            for shard in range(math.ceil(description["count"] / self._size) if dimensions else 0)
        ]

    @property
    def usable(self) -> bool:
        """Whether there is any vector."""
        return self._entries is not None and any(shard is not None for shard in self._shards)

    def find(self, hashes: Shaped[np.ndarray, " n"]) -> list[Float32[np.ndarray, " D"] | None]:
        """Return the vector of each text, or None where there is none."""
        entries = self._entries
        assert entries is not None, "ask only what is usable"
        places = np.minimum(np.searchsorted(entries["hash"], hashes), len(entries) - 1)
        known = entries["hash"][places] == hashes
        return [
            self._row(int(entries["row"][place])) if there else None for place, there in zip(places, known, strict=True)
        ]

    def _row(self, row: int) -> Float32[np.ndarray, " D"] | None:
        """Return the vector of a row, if its shard is whole."""
        shard = self._shards[row // self._size]
        return None if shard is None else shard[row % self._size]


def known_vectors(texts: list[str], stores: list[KnownVectors]) -> dict[str, Float32[np.ndarray, " D"]]:
    """Return the vectors that stores hold for texts; the first store that has one gives it."""
    found: dict[str, Float32[np.ndarray, " D"]] = {}
    for store in stores:
        left = [text for text in texts if text not in found]
        vectors = store.find(_hashes(left)) if left else []
        found.update({text: v for text, v in zip(left, vectors, strict=True) if v is not None})
    return found


def _hashes(texts: Sequence[str]) -> Shaped[np.ndarray, " n"]:
    """Return 128 bits of hash for each text."""
    raw = b"".join(hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=16).digest() for t in texts)
    return np.frombuffer(raw, "S16")


def _open_hashes(path: Path, count: int) -> Shaped[np.ndarray, " N"] | None:
    """Return the entries of a store as a memory map, or None if the file is missing or damaged."""
    try:
        entries = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return entries if entries.dtype == _ENTRY and entries.shape == (count,) else None
