"""The shards of a store while they are filled: texts that other stores know are copied, the others are encoded once.

Shapes: n texts of a shard, D dimensions.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from embedsmith.data.files import visible
from embedsmith.errors import InputError
from embedsmith.vectors.known import KnownVectors, known_vectors
from embedsmith.vectors.shards import read_description


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
