"""Vectors that a store holds already, found by the hash of their text.

Shapes: N texts of a store, n texts that are looked for, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from embedsmith.data.files import read_array, write_array
from embedsmith.errors import InputError
from embedsmith.vectors.shards import open_shard, read_description, shard_path

HASHES = "texts.npy"
"""File of a store: 128 bits of hash and the row of every text, sorted by hash."""

_ENTRY = np.dtype([("hash", "S16"), ("row", "<i8")])


def write_hashes(folder: Path, texts: Sequence[str]) -> None:
    """Write the hashes of a store's texts."""
    entries = np.empty(len(texts), _ENTRY)
    entries["hash"], entries["row"] = _hashes(texts), np.arange(len(texts))
    write_array(folder / HASHES, entries[np.argsort(entries["hash"], kind="stable")])


class KnownVectors:
    """The vectors of a store, by text; of its shards, those that are whole."""

    def __init__(self, folder: Path) -> None:
        """Open the store of a folder.

        Raises:
            InputError: its store.json is missing, or describes no store.
        """
        description = read_description(folder)
        self._folder = folder
        self.name = folder.name
        self._size, self._count = description["shard_size"], description["count"]
        self.dimensions: int | None = description["dimensions"]
        """D; None where no text is encoded yet."""
        self._entries = _open_hashes(folder / HASHES, self._count)

    def find(self, texts: list[str]) -> dict[str, Float32[np.ndarray, " D"]]:
        """Return the vectors of the texts that the store has."""
        if self._entries is None or self.dimensions is None or not texts:
            return {}
        hashes = _hashes(texts)
        places = np.minimum(np.searchsorted(self._entries["hash"], hashes), self._count - 1)
        row_of = {
            text: int(self._entries["row"][place])
            for text, place, there in zip(texts, places, self._entries["hash"][places] == hashes, strict=True)
            if there and 0 <= self._entries["row"][place] < self._count
        }
        found: dict[str, Float32[np.ndarray, " D"]] = {}
        # One shard open at a time: a memory map holds a file descriptor.
        for shard in sorted({row // self._size for row in row_of.values()}):
            rows = min(self._size, self._count - shard * self._size)
            vectors = open_shard(shard_path(self._folder, shard), rows, self.dimensions)
            if vectors is not None:
                here = {text: row % self._size for text, row in row_of.items() if row // self._size == shard}
                found.update(zip(here, np.array(vectors[list(here.values())]), strict=True))
        return found


def known_vectors(texts: list[str], stores: list[KnownVectors]) -> dict[str, Float32[np.ndarray, " D"]]:
    """Return the vectors that stores hold for texts; the first store that has one gives it."""
    found: dict[str, Float32[np.ndarray, " D"]] = {}
    for store in stores:
        found.update(store.find([text for text in texts if text not in found]))
    return found


def _hashes(texts: Sequence[str]) -> Shaped[np.ndarray, " n"]:
    """Return 128 bits of hash for each text."""
    raw = b"".join(hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=16).digest() for t in texts)
    return np.frombuffer(raw, "S16")


def _open_hashes(path: Path, count: int) -> Shaped[np.ndarray, " N"] | None:
    """Return the entries of a store as a memory map, or None if the file is missing or damaged."""
    try:
        entries = read_array(path)
    except InputError:
        return None
    return entries if entries.dtype == _ENTRY and entries.shape == (count,) else None
