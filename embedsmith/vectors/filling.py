"""The shards of a store while they are filled: texts that other stores know are copied, the others are encoded once.

Shapes: n texts of a shard, D dimensions.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from embedsmith.data.files import visible, write_array
from embedsmith.errors import InputError
from embedsmith.vectors.known import KnownVectors, known_vectors
from embedsmith.vectors.shards import read_description, shard_path

EncodeEach = Callable[[Iterator[Sequence[str]]], Generator[Float32[np.ndarray, "_ D"], None, None]]
"""Yields the vectors of each list of texts."""


class Shard(NamedTuple):
    """A shard that is being filled."""

    first_row: int
    """Row of its first text in the store."""
    texts: list[str]
    known: dict[str, Float32[np.ndarray, " D"]]
    """The vectors of those texts that other stores hold."""
    new: list[str]
    """The other texts, once each."""

    @classmethod
    def begun(cls, first_row: int, texts: list[str], others: list[KnownVectors]) -> Shard:
        """Return a shard with the vectors that other stores hold."""
        distinct = dict.fromkeys(texts)
        known = known_vectors(list(distinct), others)
        return cls(first_row, texts, known, [text for text in distinct if text not in known])

    def whole(self, vectors: np.ndarray, count: int) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of all its texts, given those of its new ones.

        Args:
            vectors: float32, a row for each new text.
            count: texts of the store, for messages.

        Raises:
            InputError: a vector is not finite.
        """
        if self.new:
            assert vectors.ndim == 2, f"{len(self.new)} texts gave shape {vectors.shape}"
            assert len(vectors) == len(self.new), f"{len(self.new)} texts gave shape {vectors.shape}"
            assert vectors.dtype == np.float32, f"encode gave {vectors.dtype}"
            self.known.update(zip(self.new, vectors, strict=True))
        found = np.stack([self.known[text] for text in self.texts])
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            raise InputError(
                f"text {self.first_row + bad[0] + 1:,} of {count:,} ({self.texts[bad[0]][:40]!r}): "
                "its vector is not finite",
                hint="encode in float32 or bfloat16: float16 overflows in many models",
            )
        return found


@dataclass(frozen=True)
class ShardTask:
    """A shard that another process fills, with all that its bytes depend on beside the model."""

    folder: Path
    """Of the store."""
    number: int
    first_row: int
    texts: list[str]
    count: int
    """Texts of the store."""
    dimensions: int
    others: list[str]
    """Names of the folders beside it whose vectors are copied, in order."""

    def fill(self, encode_each: EncodeEach) -> None:
        """Write the shard; see `VectorStore.fill_each`.

        Raises:
            InputError: the store is not there, or a vector is not finite or of another length than the store's.
        """
        if not self.folder.is_dir():
            raise not_here(self.folder)
        others = [KnownVectors(self.folder.parent / name) for name in self.others]
        whole = encoded_shard(self.first_row, self.texts, self.count, encode_each, others)
        if whole.shape[1] != self.dimensions:
            raise other_dimensions(self.folder, whole.shape[1], self.dimensions)
        write_array(shard_path(self.folder, self.number), whole)


def encoded_shard(
    first_row: int, texts: list[str], count: int, encode_each: EncodeEach, others: list[KnownVectors]
) -> Float32[np.ndarray, "n D"]:
    """Return the vectors of one shard, as a store has them.

    Args:
        first_row: of its texts among all.
        texts: its own.
        count: all of them, for messages.
        encode_each: see `VectorStore.fill_each`.
        others: whose vectors are copied.

    Raises:
        InputError: a vector is not finite.
    """
    shard = Shard.begun(first_row, texts, others)
    with closing(encode_each(iter([shard.new]))) as encoded:
        return shard.whole(next(encoded), count)


def not_here(path: Path | str) -> InputError:
    """Return the error of what other machines see, and this one does not."""
    return InputError(
        f"{path}: not there on {socket.gethostname()}",
        hint="the machines of a cluster share vectors: name a place on a file system that all of them see",
    )


def other_dimensions(folder: Path, found: int, wanted: int) -> InputError:
    """Return the error of vectors of another length than those of a store."""
    return InputError(
        f"{folder}: got vectors of {found:,} dimensions, the store holds {wanted:,}",
        hint="encode with the model that the store was made for",
    )


def stores_beside(folder: Path) -> list[KnownVectors]:
    """Return what other stores hold under the contract of the one in a folder, in the order of their folders' names."""
    own = read_description(folder)
    others = []
    for path in visible(folder.parent, "*/store.json"):
        try:
            found = read_description(path.parent)
        except InputError:
            continue  # broken, or gone since: its owner will get the error
        same = all(found.get(key) == own[key] for key in ("format", "contract"))
        if same and path.parent != folder:
            others.append(KnownVectors(path.parent))
    return others
