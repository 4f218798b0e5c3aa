"""Candidates: for each query a teacher's best passages and the scores of its positives, mined once and stored.

Everything that selection needs is in one file; another method or number of negatives loads no model.

Shapes: Q queries, K candidates, P positives of the query that has most.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.collection import Collection
from embedsmith.data.files import atomic_write
from embedsmith.errors import InputError
from embedsmith.teachers.named import Teacher

NO_PASSAGE = -1
"""Fills the places of positives that a query does not have."""


@dataclass(frozen=True)
class Candidates:
    """What a teacher found for each query of a collection."""

    teacher: str
    rows: Int64[np.ndarray, "Q K"]
    """Rows of the corpus, best first."""
    scores: Float32[np.ndarray, "Q K"]
    positive_rows: Int64[np.ndarray, "Q P"]
    """Rows of the corpus; `NO_PASSAGE` where a query has fewer positives."""
    positive_scores: Float32[np.ndarray, "Q P"]
    """NaN where a query has fewer positives."""

    @property
    def lowest_positive(self) -> Float32[np.ndarray, " Q"]:
        """The score of each query's worst positive."""
        return np.nanmin(self.positive_scores, axis=1)


def mine_candidates(teacher: Teacher, collection: Collection, *, depth: int) -> Candidates:
    """Return the teacher's best `depth` passages of every query, its positives among them or not.

    Raises:
        InputError: a query's positive is missing from the corpus.
    """
    rows, scores = teacher.search(collection.queries, depth)
    positive_rows = _positive_rows(collection)
    positive_scores = teacher.scores(collection.queries, np.maximum(positive_rows, 0))
    return Candidates(
        teacher=teacher.name,
        rows=rows,
        scores=scores,
        positive_rows=positive_rows,
        positive_scores=np.where(positive_rows == NO_PASSAGE, np.float32(np.nan), positive_scores),
    )


def write_candidates(path: Path, candidates: Candidates) -> None:
    """Write candidates as an npz file of plain arrays."""
    with atomic_write(path, "wb") as file:
        np.savez(
            file,
            teacher=np.array(candidates.teacher),
            rows=candidates.rows,
            scores=candidates.scores,
            positive_rows=candidates.positive_rows,
            positive_scores=candidates.positive_scores,
        )


def read_candidates(path: Path) -> Candidates:
    """Return the candidates of a file.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Candidates(teacher=str(arrays["teacher"]), **{k: arrays[k] for k in arrays.files if k != "teacher"})
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
        raise InputError(f"{path}: not a whole file of candidates: {error}", hint="mine again") from error


def _positive_rows(collection: Collection) -> Int64[np.ndarray, "Q P"]:
    """Return the corpus rows of each query's positives, filled up with `NO_PASSAGE`."""
    index = collection.passage_index
    of_query = [[index[p] for p in collection.positives(query_id)] for query_id in collection.query_ids]
    assert all(of_query), "a collection holds only queries with a positive"
    table = np.full((len(of_query), max(map(len, of_query))), NO_PASSAGE, dtype=np.int64)
    for q, rows in enumerate(of_query):
        table[q, : len(rows)] = rows
    return table
