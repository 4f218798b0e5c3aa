"""Evaluating models on collections: a trained run, a hub model, a folder or BM25."""

from __future__ import annotations

import tempfile
from pathlib import Path

from embedsmith.data.load import known_splits, load_collection
from embedsmith.evaluation.metrics import Scores
from embedsmith.evaluation.retrieval import evaluate_retrieval
from embedsmith.models.settings import Dtype
from embedsmith.progress import Progress, silent
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.settings import TeacherSettings


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    dtype: Dtype = "auto",
    vectors: str | Path | None = None,
    on_progress: Progress = silent,
) -> Scores:
    """Return the retrieval scores of a model on a BEIR folder or a file of pairs.

    Args:
        model: a run folder, any other name of a model, or `bm25`.
        data: a BEIR folder, pairs, or whatever else `load_collection` reads.
        split: the split of a BEIR folder; `test` where there is one.
        dtype: precision. `auto`: bfloat16 where the hardware has it.
        vectors: folder to keep vectors in, so that a second evaluation costs seconds; a run keeps its own.
        on_progress: told of the work.

    Raises:
        InputError, ModelError: see `embedsmith.errors`.
    """
    collection = load_collection(data, split=split or _default_split(data))
    is_run = (Path(model) / "manifest.json").is_file()
    with tempfile.TemporaryDirectory(prefix="embedsmith-") as scratch:
        keep = Path(vectors) if vectors else Path(model) / "vectors" if is_run else Path(scratch)
        settings = TeacherSettings(dtype=dtype)
        teacher = open_teacher(
            str(model), collection.passages, vectors=keep, settings=settings, on_progress=on_progress
        )
        return evaluate_retrieval(teacher, collection)


def _default_split(data: str | Path) -> str | None:
    """Return `test` for a folder that has it."""
    return "test" if "test" in known_splits(data) else None
