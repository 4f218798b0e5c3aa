"""What is scored: a model, a baseline or a run file of TREC, opened once for all the data it is scored on.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.data.collection import Collection
from embedsmith.data.ties import Ties
from embedsmith.data.trec import Ranking, read_ranking
from embedsmith.errors import SettingsError
from embedsmith.evaluation.retrieval import rank
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.models.settings import ChunkSettings, Role
from embedsmith.progress import Progress, silent
from embedsmith.settings import fingerprint
from embedsmith.teachers.bm25 import contract_of_words
from embedsmith.teachers.chance import contract_of_chance
from embedsmith.teachers.kept import KeptScores
from embedsmith.teachers.named import Teacher, is_rescorer, open_encoder, open_teacher
from embedsmith.teachers.settings import TeacherSettings
from embedsmith.vectors.cache import user_cache


class Contender:
    """A named model or baseline.

    Its name is any of `embedsmith.teachers.named`, or a run file of TREC, which holds what some system ranked.
    """

    def __init__(
        self,
        name: str,
        *,
        reading: TeacherSettings | None = None,
        first_reading: TeacherSettings | None = None,
        vectors: Path | None = None,
        encoder: Any = None,
        on_progress: Progress = silent,
    ) -> None:
        """Take note of the name; nothing is opened yet.

        Args:
            reading: how the model reads texts.
            first_reading: how the model reads texts that finds passages for a cross-encoder.
            vectors: folder of the vectors; by default a run keeps its own, and the rest lies in the user's cache.
            encoder: the embedding model, where it is open already.
            on_progress: called with the progress of the work.
        """
        self.name = name
        self.reading = reading or TeacherSettings()
        self.first_reading = first_reading
        is_run = (Path(name) / "manifest.json").is_file()
        self.vectors = vectors or (Path(name) / "vectors" if is_run else user_cache())
        self.on_progress = on_progress
        self._given = encoder
        self._contract: dict[str, Any] | None = None

    @property
    def is_run_file(self) -> bool:
        """Whether the name is that of a file with a ranking."""
        return self._given is None and Path(self.name).is_file() and Path(self.name).suffix != ".gguf"

    @cached_property
    def encoder(self) -> Any:
        """The embedding model, None where there is none.

        Raises:
            ModelError: it cannot be opened.
        """
        if self._given is not None:
            return self._given
        return None if self.is_run_file else open_encoder(self.name, self.reading)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen digits that depend on all that determines the scores beside the data.

        A model behind a URL may change without it.
        """
        if self.is_run_file:
            return hashlib.sha256(Path(self.name).read_bytes()).hexdigest()[:16]
        if self.encoder is not None:
            contracts, search = self.encoder.contracts(), self.reading.search
            return fingerprint(contracts if search == "exact" else [contracts, search])
        if is_rescorer(self.name):
            return fingerprint(self._contract or self._contract_of(self._open([], lazy=True)))
        is_random = self.name == "random"
        contract = contract_of_chance(self.reading.seed) if is_random else contract_of_words(self.reading.bm25)
        return fingerprint([self.name, contract])

    def ranking_of_file(self, scoring: ScoringSettings) -> Ranking:
        """Return what a run file holds."""
        found = read_ranking(self.name)
        if not scoring.drop_identical_ids:
            return found
        return {query: [pair for pair in ranked if pair[0] != query] for query, ranked in found.items()}

    def ranking(self, collection: Collection, scoring: ScoringSettings, *, depth: int) -> Ranking:
        """Return the passages that it ranks highest for each query of a collection."""
        if self.is_run_file:
            return self.ranking_of_file(scoring)
        rescores = is_rescorer(self.name)
        if rescores and is_rescorer(scoring.first_stage):
            raise SettingsError(
                f"first_stage: {scoring.first_stage} does not search", hint="name a model that does, such as bm25"
            )
        first = Contender(
            scoring.first_stage, reading=self.first_reading, vectors=self.vectors, on_progress=self.on_progress
        )
        return rank(
            self._in_chunks(collection, scoring)
            if scoring.chunks.chunk
            else self._teacher(collection.passages, ties=collection.ties),
            collection,
            depth=depth,
            first_stage=first._teacher(collection.passages, ties=collection.ties) if rescores else None,
            drop_identical_ids=scoring.drop_identical_ids,
        )

    def _in_chunks(self, collection: Collection, scoring: ScoringSettings) -> Teacher:
        """Return it as it reads passages in chunks."""
        from embedsmith.teachers.chunked import open_chunked

        return open_chunked(
            self.name,
            self.encoder,
            collection.passages,
            vectors=self.vectors,
            settings=self.reading,
            chunks=scoring.chunks,
            score=scoring.chunk_score,
            ties=collection.ties,
            on_progress=self.on_progress,
        )

    def mteb_model(self, template: str | None = None) -> Any:
        """Return it as mteb sees it.

        Args:
            template: how a task's instruction stands before a text, with {instruction} in it; by default as in the
                model's own query prompt.

        Raises:
            SettingsError: there is no place for the instruction in the template.
        """
        from embedsmith.evaluation.mteb_model import MtebEncoder, MtebRanker
        from embedsmith.models.instructions import template_of

        if template is not None and "{instruction}" not in template:
            raise SettingsError(
                f"template: {template!r} has no {{instruction}} in it",
                hint=r"write it as 'Instruct: {instruction}\nQuery: '",
            )
        if self.encoder is None:
            return MtebRanker(self._teacher, name=self.name, revision=self.fingerprint)
        own = getattr(self.encoder, "prompts", {})
        roles = {"query": "query", "document": "passage"}
        given = {name: self.encoder.prompt_of(role) for name, role in roles.items()} if own else {}
        template = template or template_of(given.get("query", ""))
        return MtebEncoder(
            self._embed,
            name=self.name,
            revision=fingerprint([self.fingerprint, own, template]),
            prompts={**own, **given},
            template=template,
        )

    def _embed(self, texts: Sequence[str], prompt: str, are_queries: bool) -> Float32[np.ndarray, "N D"]:
        """Return the vectors of texts behind a prompt, from the store where they are kept."""
        from sentence_transformers.sentence_transformer.modules import Normalize

        from embedsmith.evaluation.mteb_model import prompted
        from embedsmith.models.embedder import EmbeddingModel
        from embedsmith.teachers.dense import fill
        from embedsmith.vectors.store import VectorStore

        role: Role = "query" if are_queries else "passage"
        if not isinstance(self.encoder, EmbeddingModel):
            return self._stored(texts, role)
        with prompted(self.encoder, **{role: prompt}):
            if any(isinstance(module, Normalize) for module in self.encoder):
                return self._stored(texts, role)
            # Classifiers and clusterings see how long a vector is.
            contract = {**self.encoder.contract(role), "length": "as it is"}
            store = VectorStore.open_or_create(self.vectors, contract=contract, texts=texts)
            return fill(
                store, self.encoder, role, name=self.name, on_progress=self.on_progress, normalize=False
            ).matrix()

    def _stored(self, texts: Sequence[str], role: Role) -> Float32[np.ndarray, "N D"]:
        """Return the vectors of length 1 of texts in a role."""
        teacher: Any = self._teacher(texts, lazy=True)
        return teacher.vectors(texts) if role == "query" else teacher.store.matrix()

    def _teacher(self, passages: Sequence[str], *, ties: Ties | None = None, lazy: bool = False) -> Teacher:
        """Return it with passages indexed, or to be indexed when they are first needed."""
        teacher = self._open(passages, ties=ties, lazy=lazy)
        if not is_rescorer(self.name):
            return teacher
        contract = self._contract_of(teacher)
        return KeptScores(teacher, passages, contract=contract, folder=self.vectors, on_progress=self.on_progress)

    def _contract_of(self, teacher: Any) -> dict[str, Any]:
        """Return all that determines a cross-encoder's scores beside the texts; note it for the fingerprint."""
        self._contract = dict(teacher.contract)
        return self._contract

    def _open(self, passages: Sequence[str], *, ties: Ties | None = None, lazy: bool) -> Teacher:
        """Return the teacher of the name."""
        return open_teacher(
            self.name,
            passages,
            vectors=self.vectors,
            settings=self.reading,
            encoder=self.encoder,
            ties=ties,
            lazy=lazy,
            on_progress=self.on_progress,
        )


def readable(contender: Contender, scoring: ScoringSettings) -> ScoringSettings:
    """Return settings without chunks for what cannot read passages so: no embedding model of this machine."""
    if not scoring.chunks.chunk:
        return scoring
    from embedsmith.models.embedder import EmbeddingModel

    if isinstance(contender.encoder, EmbeddingModel):
        return scoring
    return scoring.model_copy(update={"chunks": ChunkSettings(), "chunk_score": "max"})
