"""Scores of a cross-encoder, cached on disk: each pair of a query and a passage costs a forward pass.

    scores-0f3a…/00000000.npy    float32, shape (queries of a block, P)

Shapes: Q queries, P passages of each, K candidates, S passages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.files import remove_partials, write_array
from embedsmith.data.locks import Lock, waiting
from embedsmith.progress import Progress, silent
from embedsmith.settings import fingerprint
from embedsmith.teachers.named import Teacher
from embedsmith.vectors.shards import open_shard
from embedsmith.vectors.store import hash_of_texts

_BLOCK = 128
"""Queries between two files."""


class KeptScores:
    """A teacher whose scores are asked for once; a run that was killed goes on with the next block of queries."""

    def __init__(
        self,
        teacher: Teacher,
        passages: Sequence[str],
        *,
        contract: dict[str, Any],
        folder: Path,
        on_progress: Progress = silent,
    ) -> None:
        """Take note of the teacher.

        Args:
            teacher: was opened with the passages.
            passages: what rows mean.
            contract: all that determines the scores beside the texts.
            folder: where the scores lie, below a folder for each fingerprint.
            on_progress: called with the number of queries done.
        """
        self.name = teacher.name
        self.proposes = teacher.proposes
        self._teacher = teacher
        self._passages = passages
        self.contract = contract
        self._folder = folder
        self._on_progress = on_progress

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""
        texts = {"queries": hash_of_texts(queries), "passages": hash_of_texts(self._passages)}
        asked = hashlib.sha256(np.ascontiguousarray(rows, "<i8").data).hexdigest()
        folder = self._folder / f"scores-{fingerprint([self.contract, texts, list(rows.shape), asked])}"
        found = np.empty(rows.shape, np.float32)
        what = f"rescore with {self.name}"

        def tell(holder: str) -> None:
            self._on_progress(what, 0, len(queries), f"waits for {holder}, which is scoring them")

        for start in range(0, len(queries), _BLOCK):
            some = slice(start, start + _BLOCK)
            path = folder / f"{start:08}.npy"
            kept = _read(path, rows[some].shape)
            if kept is None:
                with waiting(Lock.in_folder(folder), tell):
                    remove_partials(folder)
                    kept = _read(path, rows[some].shape)
                    if kept is None:
                        kept = self._teacher.scores(queries[some], rows[some])
                        write_array(path, kept)
            found[some] = kept
            self._on_progress(what, min(start + _BLOCK, len(queries)), len(queries))
        return found

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return what the teacher finds."""
        return self._teacher.search(queries, k)

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the teacher's moments."""
        return self._teacher.moments(queries)

    def similarities(
        self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]
    ) -> Float32[np.ndarray, "S K"] | None:
        """Return the teacher's similarities."""
        return self._teacher.similarities(rows, others)

    def vectors_of(
        self, queries: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "Q D"], list[Float32[np.ndarray, "_ D"]]] | None:
        """Return the teacher's vectors."""
        return self._teacher.vectors_of(queries)


def _read(path: Path, shape: tuple[int, ...]) -> Float32[np.ndarray, "Q P"] | None:
    """Return the scores of a block, None where they are not there, or are not what a teacher gives."""
    kept = open_shard(path, *shape)
    return kept if kept is not None and np.isfinite(kept).all() else None
