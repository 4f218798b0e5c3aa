"""Opening what a server serves: models by their names, and a corpus with its vectors."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedsmith.errors import SettingsError
from embedsmith.models.opening import load
from embedsmith.progress import Progress, silent
from embedsmith.runs.part import is_run
from embedsmith.serving.search import corpus_of_run
from embedsmith.serving.server.batching import Batcher
from embedsmith.serving.server.models import Models
from embedsmith.serving.server.named import CROSS_ENCODER, Served
from embedsmith.serving.server.reranking import Reranker
from embedsmith.serving.server.searched import SearchedCorpus
from embedsmith.serving.server.served import ServedModel
from embedsmith.serving.server.settings import ServeSettings
from embedsmith.system import resident_bytes, return_memory
from embedsmith.teachers.cross_encoder import CrossEncoderTeacher
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.vectors.cache import user_cache

if TYPE_CHECKING:
    from embedsmith.serving.server.metrics import Metrics  # of an extra: what is not installed is refused in a line

_BATCHES = 8
"""After which it is looked how much memory there is."""
_GROWN = 16 * 2**20
"""Bytes more than before, with which freed memory goes back to the system: batches of all sizes leave gaps that the
next ones do not fit."""


def open_models(served: Served, settings: ServeSettings, metrics: Metrics) -> Models:
    """Return the models, each of which has computed something.

    Raises:
        ModelError, SettingsError: see `embedsmith.errors`.
    """
    embedders: dict[str, tuple[ServedModel, Batcher]] = {}
    rerankers: dict[str, Any] = {}
    for name, model in zip(served.checked(), served.models, strict=True):
        if model.startswith(CROSS_ENCODER):
            teacher = CrossEncoderTeacher(model.removeprefix(CROSS_ENCODER), [], dtype=served.dtype)
            teacher.scores_of_pairs([("warm", "up")])
            rerankers[name] = Reranker(name, teacher)
            continue
        opened = ServedModel(name, load(model, dtype=served.dtype), batch_tokens=settings.batch_tokens)
        _warm(opened)
        embedders[name] = opened, _batcher(opened, metrics)
    return Models(embedders, rerankers)


def open_corpus(served: Served, models: Models, on_progress: Progress = silent) -> SearchedCorpus | None:
    """Return the corpus with its vectors, encoded where they are not kept already; None where none is named.

    Raises:
        RunError, InputError: it is missing, or cannot be read.
        SettingsError: no embedding model is served.
    """
    if served.corpus is None:
        return None
    if not models.embedders:
        raise SettingsError("--corpus needs an embedding model", hint="name one beside the cross-encoder")
    name, (first, _) = next(iter(models.embedders.items()))
    run = Path(next(model for model in served.models if not model.startswith(CROSS_ENCODER)))
    corpus = corpus_of_run(run, None if served.corpus == "run" else served.corpus)
    folder = run / "vectors" if is_run(run) else user_cache()
    index = DenseTeacher(first.model, corpus.texts, name=name, folder=folder, ties=corpus.ties, on_progress=on_progress)
    return SearchedCorpus(name, corpus, index)


def _batcher(served: ServedModel, metrics: Metrics) -> Batcher:
    """Return the queue of a model, which counts its batches."""
    batches, kept = itertools.count(1), Kept()

    def count(texts: int, tokens: int, seconds: float) -> None:
        if next(batches) % _BATCHES == 0:
            kept()
        metrics.batch_texts.labels(served.name).inc(texts)
        metrics.batch_seconds.labels(served.name).observe(seconds)
        metrics.batch_fill.labels(served.name).observe(tokens / served.batch_tokens)

    return Batcher(
        served.vectors,
        batch_tokens=served.batch_tokens,
        packs=served.packs,
        is_on_cpu=served.is_on_cpu,
        on_batch=count,
    )


class Kept:
    """Gives freed memory back to the system when a call finds that there is more than after the last time."""

    def __init__(self) -> None:
        self._least = 0

    def __call__(self) -> None:
        """Look at the memory."""
        found = resident_bytes()
        if found <= self._least + _GROWN:
            self._least = min(self._least, found)
            return
        return_memory()
        self._least = resident_bytes()


def _warm(served: ServedModel) -> None:
    """Compute a vector of each role: kernels are chosen and probed before the first request."""
    for role in ("query", "passage"):
        prompt = served.prompt(role, None)
        for text in ("a", "a longer text of some words, as they are asked" * 8):
            served.vectors(served.read([text], role, prompt))
