"""The plan of a mining run: what will be encoded, how long that takes on this machine, and how much it fills.

Tokens are those of a sample, times the number of texts; the time is that of a part of the sample, which is encoded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.texts import Texts
from embedsmith.models.embedder import EmbeddingModel, Role
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.named import Teacher

_SAMPLE = 256
"""Texts whose tokens are counted."""

_ENOUGH_S = 0.5
"""A batch that takes this long tells the speed."""


@dataclass(frozen=True)
class Encoding:
    """What one embedding model on this machine has to do."""

    teacher: str
    texts: int
    tokens: int
    """Estimated, prompts included and cut where the model cuts."""
    seconds: float
    """Estimated, on one device."""
    vector_bytes: int
    """On disk, queries included."""
    model_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a mining run is going to do."""

    queries: int
    passages: int
    teachers: list[str]
    encodings: list[Encoding]
    """Of the teachers whose vectors are not there yet. A server is not asked for an estimate."""


def plan_of(teachers: Sequence[Teacher], collection: Collection) -> Plan:
    """Return the plan of mining a collection; a small part of it is encoded to see how long that takes."""
    encodings = [
        _encoding(teacher.name, teacher.model, collection)
        for teacher in teachers
        if isinstance(teacher, DenseTeacher) and isinstance(teacher.model, EmbeddingModel) and not teacher.is_encoded
    ]
    return Plan(len(collection.queries), len(collection.passages), [teacher.name for teacher in teachers], encodings)


def _encoding(name: str, model: EmbeddingModel, collection: Collection) -> Encoding:
    """Return what a model has to do."""
    sides: list[tuple[Role, Texts]] = [("passage", collection.passages), ("query", collection.queries)]
    samples = {role: _sample(texts) for role, texts in sides}
    share = {role: model.count_tokens(samples[role], role) / len(samples[role]) for role, _ in sides}
    texts = sum(len(texts) for _, texts in sides)
    tokens = sum(share[role] * len(texts) for role, texts in sides)
    rate, dimensions = _speed(model, samples["passage"])
    return Encoding(
        teacher=name,
        texts=texts,
        tokens=round(tokens),
        seconds=tokens / rate,
        vector_bytes=texts * dimensions * 4,
        model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in model.parameters()),
    )


def _sample(texts: Texts) -> list[str]:
    """Return texts at equal distances."""
    return texts.take(np.unique(np.linspace(0, len(texts) - 1, _SAMPLE).astype(np.int64)))


def _speed(model: EmbeddingModel, sample: list[str]) -> tuple[float, int]:
    """Return tokens a second and the dimensions, measured on batches that grow until one tells."""
    # A model's first call is slow, and a GPU is fast only with enough to do.
    model.embed(sample[:4], "passage", tokens=None)
    size = 16
    while True:
        some = sample[:size]
        started = time.perf_counter()
        vectors = model.embed(some, "passage", tokens=None)
        seconds = time.perf_counter() - started
        if seconds >= _ENOUGH_S or size >= len(sample):
            return model.count_tokens(some, "passage") / seconds, vectors.shape[1]
        size *= 4
