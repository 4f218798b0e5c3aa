"""A teacher's vectors in training: in-batch passages that it scores above the positive are masked.

Mining has encoded every query and passage already. A guide looks their vectors up by text, so that GISTEmbed's rule
costs the step no model: a passage of the batch whose score lies above the query's ceiling is masked.

Source: Solatorio, GISTEmbed, https://arxiv.org/abs/2402.16829; the ceiling with a margin is NV-Retriever's.

Shapes: B queries, U passages, D the teacher's dimensions, n texts.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.data.files import read_json, write_json
from embedsmith.errors import InputError
from embedsmith.settings import fingerprint
from embedsmith.vectors.known import KnownVectors, known_vectors
from embedsmith.vectors.shards import read_description

_FILE = "guide.json"


class Guide:
    """The stored vectors of one teacher, over the data sets that it was asked about."""

    def __init__(self, queries: Sequence[Path], passages: Sequence[Path]) -> None:
        """Open the stores of queries and of passages."""
        self._stores = {
            "query": [KnownVectors(folder) for folder in queries],
            "passage": [KnownVectors(folder) for folder in passages],
        }
        widths = {store.dimensions for stores in self._stores.values() for store in stores if store.dimensions}
        if len(widths) > 1:
            raise InputError(
                f"{passages[0]}: one teacher's vectors have {min(widths)} dimensions, and {max(widths)} elsewhere",
                hint="mine again, or train with guide: false",
            )
        self.dimensions: int = max(widths, default=1)
        """D; 1 where nothing is stored."""

    def vectors(self, texts: Sequence[str], role: str) -> Float32[np.ndarray, "n D"]:
        """Return the teacher's vectors; a row of NaN for a text that it has not seen."""
        found = known_vectors(list(dict.fromkeys(texts)), self._stores[role])
        unknown = np.full(self.dimensions, np.nan, np.float32)
        return np.stack([found.get(text, unknown) for text in texts])

    def scores(self, queries: Sequence[str], passages: Sequence[str]) -> Float32[np.ndarray, "B U"]:
        """Return the teacher's cosines; NaN where it has not seen one of the two."""
        return self.vectors(queries, "query") @ self.vectors(passages, "passage").T


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
    if not (folder / _FILE).is_file():
        return None
    noted = _noted(folder)
    return {"teacher": noted["teacher"], **{role: Path(noted[role]).name for role in ("queries", "passages")}}


def _noted(folder: Path) -> dict[str, str]:
    """Return what the guide of a folder says.

    Raises:
        InputError: it is none.
    """
    noted = read_json(folder / _FILE)
    names = ("teacher", "queries", "passages")
    if not isinstance(noted, dict) or not all(
        isinstance(noted.get(name), str) and noted[name].isprintable() for name in names
    ):
        raise InputError(
            f"{folder / _FILE}: names no teacher with its stores of vectors",
            hint="mine again, or train with guide: false",
        )
    return {name: noted[name] for name in names}


def read_guides(folders: Sequence[Path | None]) -> list[Guide | None]:
    """Return the guide of each folder of mined negatives, None where it has none.

    One teacher that reads queries in one way is one guide. One that reads those of two data sets with other
    instructions is two: the same query has two vectors then. Passages are known to both.

    Raises:
        InputError: the vectors that a folder names are gone.
    """
    queries_of: dict[tuple[str, str], list[Path]] = {}
    passages_of: dict[str, list[Path]] = {}
    keys: list[tuple[str, str] | None] = []
    for folder in folders:
        if folder is None or not (folder / _FILE).is_file():
            keys.append(None)
            continue
        noted = _noted(folder)
        queries, passages = folder / noted["queries"], folder / noted["passages"]
        for store in (queries, passages):
            if not (store / "store.json").is_file():
                raise InputError(
                    f"{folder / _FILE}: the vectors of {noted['teacher']} are gone: {store}",
                    hint="mine again, or train with guide: false",
                )
        asked, offered = (fingerprint(read_description(store)["contract"]) for store in (queries, passages))
        keys.append((asked, offered))
        queries_of.setdefault((asked, offered), []).append(queries)
        passages_of.setdefault(offered, []).append(passages)
    guides = {key: Guide(queries, passages_of[key[1]]) for key, queries in queries_of.items()}
    return [guides[key] if key else None for key in keys]
