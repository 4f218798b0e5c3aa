"""The plan of a mining run: what will be encoded, how long that takes on this machine, and how much it fills.

Tokens are those of a sample, times the number of texts; the time is that of a part of the sample, which is encoded.
Memory is what the process has filled by then, models and texts among it, and what search and candidates will add.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedsmith.data.collection import Collection
from embedsmith.data.texts import Texts
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.settings import Role
from embedsmith.system import peak_bytes
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.named import Teacher

_SAMPLE = 256
"""Texts whose tokens are counted."""

_ENOUGH_S = 0.5
"""Seconds of a batch from which on the speed is measured well enough."""

_COPIES = 3
"""Times that the candidates are in memory: in blocks, as one, and what selection makes of them."""

_SEARCH_BYTES = 225_000_000
"""What exact search fills where it may: blocks of passages, and the best passages so far of a block of queries."""


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


@dataclass(frozen=True)
class Plan:
    """What a mining run is going to do."""

    queries: int
    passages: int
    teachers: list[str]
    encodings: list[Encoding]
    """Of the teachers whose vectors are not there yet. A server is not asked for an estimate."""
    memory_bytes: int
    """Estimated, at the peak."""


def plan_of(teachers: Sequence[Teacher], collection: Collection, *, depth: int, search_bytes: int) -> Plan:
    """Return the plan of mining a collection; a small part of it is encoded to see how long that takes.

    Args:
        depth: candidates of each teacher for each query.
        search_bytes: the most that exact search may fill.
    """
    encodings = [
        _encoding(teacher.name, teacher.model, collection)
        for teacher in teachers
        if isinstance(teacher, DenseTeacher) and isinstance(teacher.model, EmbeddingModel) and not teacher.is_encoded
    ]
    needed = candidate_bytes(
        queries=len(collection.queries),
        pairs=len(collection.positive_pairs()[0]),
        places=min(depth * sum(teacher.proposes for teacher in teachers), len(collection.passages)),
        teachers=len(teachers),
        with_vectors=sum(isinstance(teacher, DenseTeacher) for teacher in teachers),
    )
    dense = any(isinstance(teacher, DenseTeacher) for teacher in teachers)
    found = min(search_bytes, _SEARCH_BYTES) if dense else 0
    return Plan(
        queries=len(collection.queries),
        passages=len(collection.passages),
        teachers=[teacher.name for teacher in teachers],
        encodings=encodings,
        memory_bytes=peak_bytes() + max(found, _COPIES * needed),
    )


def candidate_bytes(*, queries: int, pairs: int, places: int, teachers: int, with_vectors: int) -> int:
    """Return what the arrays of all candidates fill.

    Args:
        places: candidates of a query at most.
        with_vectors: teachers that give cosines with the positives.

    >>> candidate_bytes(queries=1000, pairs=1000, places=100, teachers=1, with_vectors=1)
    1600000
    """
    return queries * places * (8 + 4 * teachers) + pairs * places * 4 * with_vectors


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
    )


def _sample(texts: Texts) -> list[str]:
    """Return texts at equal distances."""
    return texts.take(np.unique(np.linspace(0, len(texts) - 1, _SAMPLE).astype(np.int64)))


def _speed(model: EmbeddingModel, sample: list[str]) -> tuple[float, int]:
    """Return tokens a second and the dimensions, measured on batches that grow until one takes long enough."""
    # A model's first call is slow, and a GPU is fast only with enough to do.
    model.embed(sample[:4], "passage", tokens=None)
    best, size = 0.0, 16
    while True:
        some = sample[:: max(1, len(sample) // size)]
        started = time.perf_counter()
        vectors = model.embed(some, "passage", tokens=None)
        seconds = time.perf_counter() - started
        # What else the machine does can only make a batch slower.
        is_second = best > 0
        best = max(best, model.count_tokens(some, "passage") / seconds)
        if (seconds >= _ENOUGH_S and is_second) or size >= len(sample):
            return best, vectors.shape[1]
        size *= 4
