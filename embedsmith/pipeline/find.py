"""Searching what a run was made of: a query in, the passages that answer it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.load import known_splits, load_collection
from embedsmith.errors import InputError, RunError
from embedsmith.models.embedder import load
from embedsmith.models.settings import Dtype
from embedsmith.pipeline.runs import read_manifest
from embedsmith.progress import Progress, silent
from embedsmith.search.exact import top_k
from embedsmith.teachers.dense import DenseTeacher


@dataclass(frozen=True)
class Hit:
    """A passage that was found."""

    score: float
    """Cosine of query and passage."""
    id: str
    text: str
    metadata: dict[str, Any]
    """What the corpus says of the passage: file, line and name of a function."""


def find(
    run: str | Path,
    query: str,
    *,
    k: int = 5,
    data: str | Path | None = None,
    dtype: Dtype = "auto",
    on_progress: Progress = silent,
) -> list[Hit]:
    """Return the k passages that a run's model finds for a query, best first.

    Args:
        run: a finished run with a model.
        query: what is looked for.
        k: how many passages.
        data: the corpus: a BEIR folder or a file of pairs; by default the code that the run harvested.
        dtype: precision; the same as in evaluation finds the vectors that are stored already.

    Raises:
        RunError: the run is missing, not finished, or has no corpus of its own.
    """
    if not query.strip():
        raise InputError("the query is empty", hint='say what to look for: embedsmith search RUN "open a zip file"')
    if read_manifest(run)["status"] != "finished":
        raise RunError(f"{run}: a run that was cut short", hint="give its command again; it goes on where it stopped")
    collection = _corpus(Path(run), data)
    model = load(str(run), dtype=dtype)
    index = DenseTeacher(
        model, collection.passages, name=str(run), folder=Path(run) / "vectors", on_progress=on_progress
    )
    rows, scores = top_k(model.embed([query], "query"), index.store.shards(), k=k)
    return [
        Hit(
            score=round(float(score), 4),
            id=collection.passage_ids[row],
            text=collection.passages[row],
            metadata=collection.metadata[row] if collection.metadata else {},
        )
        for row, score in zip(rows[0], scores[0], strict=True)
    ]


def _corpus(run: Path, data: str | Path | None) -> Collection:
    """Return the collection to search."""
    if data:
        return load_collection(data, split="all" if known_splits(data) else None)
    harvested = sorted(run.glob("data/*/test"))
    if not harvested:
        raise RunError(f"{run}: the run has no corpus of its own", hint="name one with --data")
    return load_collection(harvested[0], split="test")
