"""A teacher's vectors in training: what it finds more alike than the positive is no negative.

Mining has encoded every query and passage already. A guide looks their vectors up by text, so that GISTEmbed's rule
costs the step no model: a passage of the batch whose score lies above the query's ceiling is masked.

Source: Solatorio, GISTEmbed, https://arxiv.org/abs/2402.16829; the ceiling with a margin is NV-Retriever's.

Shapes: B queries, U passages, D the teacher's dimensions, n texts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.data.files import read_json, write_json
from embedsmith.errors import InputError
from embedsmith.settings import fingerprint
from embedsmith.vectors.known import KnownVectors, known_vectors

_FILE = "guide.json"


class Guide:
    """The stored vectors of one teacher, over the data sets that it was asked about."""

    def __init__(self, queries: Sequence[Path], passages: Sequence[Path]) -> None:
        """Open the stores of queries and of passages."""
        self._stores = {
            "query": [KnownVectors(folder, read_json(folder / "store.json")) for folder in queries],
            "passage": [KnownVectors(folder, read_json(folder / "store.json")) for folder in passages],
        }

    def vectors(self, texts: Sequence[str], role: str) -> Float32[np.ndarray, "n D"]:
        """Return the teacher's vectors; a row of NaN for a text that it has not seen."""
        found = known_vectors(list(dict.fromkeys(texts)), self._stores[role])
        width = len(next(iter(found.values()))) if found else 1
        unknown = np.full(width, np.nan, np.float32)
        return np.stack([found.get(text, unknown) for text in texts])

    def scores(self, queries: Sequence[str], passages: Sequence[str]) -> Float32[np.ndarray, "B U"]:
        """Return the teacher's cosines; NaN where it has not seen one of the two."""
        asked, offered = self.vectors(queries, "query"), self.vectors(passages, "passage")
        if asked.shape[1] != offered.shape[1]:  # one side is unknown altogether
            return np.full((len(queries), len(passages)), np.nan, np.float32)
        return asked @ offered.T


def above_ceiling(
    scores: Float32[np.ndarray, "B U"], positive: Int64[np.ndarray, " B"], *, margin: float, relative: bool
) -> Bool[np.ndarray, "B U"]:
    """Return which passages score above a query's ceiling: its positive's score less a margin.

    Args:
        scores: a teacher's; what is NaN is above nothing, and a query whose positive's is NaN has no ceiling.
        positive: the row of each query's positive, which is never above.
        margin: distance from the positive's score, or (relative) share of it.

    >>> scores = np.array([[0.8, 0.79, 0.5, np.nan]], np.float32)
    >>> above_ceiling(scores, np.array([0]), margin=0.05, relative=False)
    array([[False,  True, False, False]])
    """
    rows = np.arange(len(scores))
    own = scores[rows, positive]
    ceiling = own - np.float32(margin) * (np.abs(own) if relative else np.float32(1))
    with np.errstate(invalid="ignore"):
        above = scores > ceiling[:, None]
    above[rows, positive] = False
    return above


def write_guide(folder: Path, *, teacher: str, queries: Path, passages: Path) -> None:
    """Note in a folder of mined negatives where the teacher's vectors of its texts lie."""
    # Relative: a run folder that was moved still finds them.
    places = {"queries": queries, "passages": passages}
    write_json(
        folder / _FILE, {"teacher": teacher, **{role: os.path.relpath(path, folder) for role, path in places.items()}}
    )


def stores_of_guide(folder: Path) -> dict[str, str] | None:
    """Return the teacher of a folder's guide and the names of its two vector stores, None where there is no guide.

    The names are fingerprints: two guides with the same ones say the same.
    """
    path = folder / _FILE
    if not path.is_file():
        return None
    noted = read_json(path)
    return {"teacher": noted["teacher"], **{role: Path(noted[role]).name for role in ("queries", "passages")}}


def read_guides(folders: Sequence[Path | None]) -> list[Guide | None]:
    """Return the guide of each folder of mined negatives, None where it has none; one teacher is one guide.

    Raises:
        InputError: the vectors that a folder names are gone.
    """
    stores: dict[str, tuple[list[Path], list[Path]]] = {}
    keys: list[str | None] = []
    for folder in folders:
        if folder is None or not (folder / _FILE).is_file():
            keys.append(None)
            continue
        noted: dict[str, Any] = read_json(folder / _FILE)
        queries, passages = folder / noted["queries"], folder / noted["passages"]
        for store in (queries, passages):
            if not (store / "store.json").is_file():
                raise InputError(
                    f"{folder / _FILE}: the vectors of {noted['teacher']} are gone: {store}",
                    hint="mine again, or train with guide: false",
                )
        key = fingerprint(read_json(passages / "store.json")["contract"])
        keys.append(key)
        known = stores.setdefault(key, ([], []))
        known[0].append(queries)
        known[1].append(passages)
    guides = {key: Guide(*folders_of) for key, folders_of in stores.items()}
    return [guides[key] if key else None for key in keys]
