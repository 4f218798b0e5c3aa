"""Teachers by name: anything that can rank or rescore passages for queries, a trained model as well as BM25.

bm25                      words
random                    chance, the baseline
cross-encoder:MODEL       rescores what another teacher found
https://HOST/v1#MODEL     embeddings from a server
anything else             an embedding model, as in `embedsmith.models.names`

Shapes: Q queries, N passages, n passages of a shard, K candidates, P positives, S passages, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Int64

from embedsmith.data.ties import Ties
from embedsmith.progress import Progress, silent
from embedsmith.teachers.settings import TeacherSettings

CROSS_ENCODER = "cross-encoder:"


def is_rescorer(name: str) -> bool:
    """Return whether the teacher of a name scores what others found, and proposes nothing."""
    return name.startswith(CROSS_ENCODER)


def has_vectors(name: str) -> bool:
    """Return whether the teacher of a name makes vectors.

    >>> [has_vectors(name) for name in ("bm25", "cross-encoder:x", "static:package:wordllama")]
    [False, False, True]
    """
    return name not in ("bm25", "random") and not is_rescorer(name)


def matches_words(name: str) -> bool:
    """Return whether the teacher of a name finds only passages that share a word with the query, and scores others 0.

    >>> matches_words("bm25"), matches_words("random")
    (True, False)
    """
    return name == "bm25"


class Teacher(Protocol):
    """Ranks or rescores the passages that it was opened with."""

    name: str

    proposes: bool
    """False for a teacher that only rescores: `search` and `moments` raise SettingsError."""

    contract: Any
    """Everything besides the texts that determines the scores, as plain values; of an embedding model, by role."""

    def search(self, queries: Sequence[str], k: int) -> tuple[Int64[np.ndarray, "Q K"], Float32[np.ndarray, "Q K"]]:
        """Return the rows and the scores of the k best passages of each query, best first, ties by draw.

        Where fewer are found `NO_PASSAGE` fills up, whose scores mean nothing.
        """

    def scores(self, queries: Sequence[str], rows: Int64[np.ndarray, "Q P"]) -> Float32[np.ndarray, "Q P"]:
        """Return the scores of given passages."""

    def moments(self, queries: Sequence[str]) -> tuple[Float32[np.ndarray, " Q"], Float32[np.ndarray, " Q"]]:
        """Return the mean and the standard deviation of each query's scores over all passages."""

    def similarities(
        self, rows: Int64[np.ndarray, " S"], others: Int64[np.ndarray, "S K"]
    ) -> Float32[np.ndarray, "S K"] | None:
        """Return the cosine of each passage with passages of its own; None where the teacher has no vectors."""

    def vectors_of(
        self, queries: Sequence[str]
    ) -> tuple[Float32[np.ndarray, "Q D"], list[Float32[np.ndarray, "_ D"]]] | None:
        """Return the vectors of queries and, as shards in passage order, of all passages; None without vectors."""


def open_teacher(
    name: str,
    passages: Sequence[str],
    *,
    vectors: Path,
    settings: TeacherSettings | None = None,
    device: str | None = None,
    lazy: bool = False,
    ties: Ties | None = None,
    encoder: Any = None,
    on_progress: Progress = silent,
) -> Teacher:
    """Return the teacher of a name with the passages indexed.

    Args:
        name: see above.
        vectors: folder of the vector stores; a teacher without vectors writes nothing.
        settings: how it reads texts.
        device: a torch device; default: every GPU of the machine, or the processor.
        lazy: an embedding model encodes the passages when they are first needed, not now.
        ties: the draws among passages that score alike, such as the collection's; by default by the texts.
        encoder: what `open_encoder` gave for the name, so that a model is opened once for several corpora.

    Raises:
        ModelError: there is no such model.
        SettingsError: a setting does not fit the model.
    """
    settings = settings or TeacherSettings()
    if name == "bm25":
        from embedsmith.teachers.bm25 import BM25

        return BM25(passages, settings.bm25, ties=ties, on_progress=on_progress)
    if name == "random":
        from embedsmith.teachers.chance import Chance

        return Chance(len(passages), seed=settings.seed)
    if is_rescorer(name):
        from embedsmith.teachers.cross_encoder import CrossEncoderTeacher

        return CrossEncoderTeacher(
            name.removeprefix(CROSS_ENCODER),
            passages,
            dtype=settings.dtype,
            max_tokens=settings.max_tokens,
            query_prompt=settings.query_prompt or "",
            passage_prompt=settings.passage_prompt or "",
            batch_size=settings.batch_size,
            device=device,
            devices=_devices(device),
            on_progress=on_progress,
        )
    from embedsmith.services.endpoint import is_url
    from embedsmith.teachers.dense import DenseTeacher

    return DenseTeacher(
        open_encoder(name, settings, device=device) if encoder is None else encoder,
        passages,
        name=name,
        folder=vectors,
        batch_tokens=settings.batch_tokens,
        search=settings.search,
        memory_gib=settings.memory_gib,
        devices=() if is_url(name) else _devices(device),
        ties=ties,
        lazy=lazy,
        on_progress=on_progress,
    )


def open_encoder(name: str, settings: TeacherSettings, *, device: str | None = None) -> Any:
    """Return the embedding model of a name; None for a name that ranks without one.

    Raises:
        ModelError: there is no such model.
        SettingsError: a setting does not fit the model.
    """
    if name in ("bm25", "random") or is_rescorer(name):
        return None
    from embedsmith.services.endpoint import is_url

    return _remote(name, settings) if is_url(name) else _local(name, settings, device)


def _remote(name: str, settings: TeacherSettings) -> Any:
    """Return the model behind a URL."""
    from embedsmith.services.endpoint import endpoint, key_for
    from embedsmith.teachers.remote import RemoteModel

    where = endpoint(name)
    return RemoteModel(
        where,
        key=key_for(where),
        query_prompt=settings.query_prompt or "",
        passage_prompt=settings.passage_prompt or "",
        texts=settings.request_texts,
        concurrency=settings.request_concurrency,
        timeout_s=settings.request_timeout_s,
        retries=settings.request_retries,
    )


def _local(name: str, settings: TeacherSettings, device: str | None) -> Any:
    """Return an embedding model of this machine."""
    from embedsmith.models.opening import load

    model = load(name, dtype=settings.dtype, device=device, compile=settings.compile)
    if settings.max_tokens:
        model.set_max_tokens(query=settings.max_tokens, passage=settings.max_tokens)
    if settings.query_prompt is not None:
        model.set_prompt("query", settings.query_prompt)
    if settings.passage_prompt is not None:
        model.set_prompt("passage", settings.passage_prompt)
    return model


def _devices(device: str | None) -> list[str]:
    """Return every GPU of a machine that has several, unless one device was asked for."""
    from embedsmith.models.devices import gpus

    found = gpus() if device is None else []
    return found if len(found) > 1 else []
