"""What is scored: a model, a baseline or a run file of TREC, opened once for all the data it is scored on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from embedsmith.data.collection import Collection
from embedsmith.data.trec import Ranking, read_ranking
from embedsmith.errors import SettingsError
from embedsmith.evaluation.retrieval import rank
from embedsmith.evaluation.settings import ScoringSettings
from embedsmith.progress import Progress, silent
from embedsmith.settings import fingerprint
from embedsmith.teachers.named import CROSS_ENCODER, Teacher, open_encoder, open_teacher
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
        vectors: Path | None = None,
        encoder: Any = None,
        on_progress: Progress = silent,
    ) -> None:
        """Take note of the name; nothing is opened yet.

        Args:
            reading: how the model reads texts.
            vectors: folder of the vectors; by default a run keeps its own, and the rest lies in the user's cache.
            encoder: the embedding model, where it is open already.
            on_progress: told of the work.
        """
        self.name = name
        self.reading = reading or TeacherSettings()
        is_run = (Path(name) / "manifest.json").is_file()
        self.vectors = vectors or (Path(name) / "vectors" if is_run else user_cache())
        self.on_progress = on_progress
        self._given = encoder

    @property
    def is_run_file(self) -> bool:
        """Whether the name is that of a file with a ranking."""
        return Path(self.name).is_file() and Path(self.name).suffix != ".gguf"

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
            return fingerprint({role: self.encoder.contract(role) for role in ("query", "passage")})
        if self.name.startswith(CROSS_ENCODER):
            teacher: Any = self._teacher([])
            return fingerprint(teacher.contract())
        fields = {"seed"} if self.name == "random" else {"bm25_stemmer", "bm25_stop_words"}
        return fingerprint([self.name, self.reading.model_dump(include=fields)])

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
        rescores = self.name.startswith(CROSS_ENCODER)
        if rescores and scoring.first_stage.startswith(CROSS_ENCODER):
            raise SettingsError(
                f"first_stage: {scoring.first_stage} does not search", hint="name a model that does, such as bm25"
            )
        first = Contender(scoring.first_stage, vectors=self.vectors, on_progress=self.on_progress)
        return rank(
            self._teacher(collection.passages),
            collection,
            depth=depth,
            first_stage=first._teacher(collection.passages) if rescores else None,
            drop_identical_ids=scoring.drop_identical_ids,
        )

    def _teacher(self, passages: Sequence[str]) -> Teacher:
        """Return it with passages indexed."""
        return open_teacher(
            self.name,
            passages,
            vectors=self.vectors,
            settings=self.reading,
            encoder=self.encoder,
            on_progress=self.on_progress,
        )
