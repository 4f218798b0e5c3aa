"""Settings of what a chat model writes and judges; importing them loads no library of tables or models."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from embedsmith.errors import did_you_mean
from embedsmith.models.settings import MINILM
from embedsmith.settings import Seed, Settings
from embedsmith.teachers.settings import TeacherSettings

KINDS = ("short-long", "long-short", "short-short")
"""Kinds of synthetic tasks, by the lengths of query and positive."""


class WriterSettings(Settings):
    """Who writes."""

    url: str | None = None
    """Chat model that writes, as https://HOST/v1#MODEL."""
    generators: list[str] = []
    """Language model that writes in this process: a hub id, a folder, package:NAME/path or a GGUF file. Give it again
    for several, which take turns; one may be a URL."""

    @property
    def writers(self) -> list[str]:
        """The names of all that write."""
        return [*([self.url] if self.url else []), *self.generators]

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that name nobody."""
        if not self.writers:
            raise ValueError("nobody writes: name a chat model by --url, or a model of this machine by --generator")


class QuerySettings(WriterSettings):
    """Which queries are written, and which of them are kept."""

    teacher: str = MINILM
    """Model that must find the passage again, named as in `mine --teacher`."""
    passages: int | None = Field(None, gt=0)
    """Passages that queries are written for, drawn at random; all by default."""
    passage_characters: int = Field(2000, gt=0)
    """A longer passage is cut at the ends of sentences into passages of at most this length (about 500 English tokens),
    each with an id of its own, so that neither model sees only its beginning."""
    queries: int = Field(2, gt=0)
    """Queries for each passage."""
    found_within: int = Field(3, gt=0)
    """Keep a query whose passage is among this many that the teacher finds for it in the whole corpus. Promptagator
    takes 1, which a near copy of the passage defeats."""
    near_duplicates: float = Field(0.8, ge=0, le=1)
    """Drop a query that shares this part of its 3-word shingles (Jaccard) with one that is kept.
    0 for none: then only the same words, in whatever case, are one query."""
    temperature: float = Field(0.7, ge=0)
    """Of the chat model."""
    max_tokens: int = Field(256, gt=0)
    """Tokens of an answer, a thinking model's thoughts included."""
    seed: Seed = 0
    """Seed of what is drawn at random, and the chat model's own."""
    teacher_settings: TeacherSettings = TeacherSettings()
    """How the teacher reads texts."""


class TaskSettings(WriterSettings):
    """Which tasks are thought of, and how many examples of each are written."""

    kinds: list[str] = list(KINDS)
    """Kind of task: short-long, a short query and a longer passage; long-short, a longer text and its label;
    short-short, two short texts. Give it again for several; all by default."""
    tasks: int = Field(100, gt=0)
    """Different tasks of each kind. NV-Embed's data have 20,000."""
    examples: int = Field(2, gt=0)
    """Examples of each task: 2 as in NV-Embed's data."""
    tasks_at_once: int = Field(20, gt=0)
    """Tasks that one request asks for."""
    near_duplicates: float = Field(0.8, ge=0, le=1)
    """Drop a task, or an example's query, that shares this part of its 3-word shingles (Jaccard) with one that is kept.
    0 for none: then only the same words, in whatever case, are one."""
    temperature: float = Field(1.0, ge=0)
    """Of the chat model."""
    max_tokens: int = Field(1500, gt=0)
    """Tokens of an answer, a thinking model's thoughts included."""
    seed: Seed = 0
    """Seed of what is drawn at random, and the chat model's own."""

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, value: list[str]) -> list[str]:
        """Refuse a kind that does not exist."""
        for name in value:
            if name not in KINDS:
                raise ValueError(f'no kind "{name}"{did_you_mean(name, KINDS)}; there are {", ".join(KINDS)}')
        return list(dict.fromkeys(value))


class JudgeSettings(Settings):
    """Who judges, and what is judged."""

    url: str
    """Chat model that judges, as https://HOST/v1#MODEL."""
    queries: int | None = Field(None, gt=0)
    """Queries whose negatives are judged, drawn at random; all by default."""
    positives: int = Field(100, ge=0)
    """Known positives that are judged too, drawn at random: they measure the judge's recall."""
    passage_characters: int = Field(8000, gt=0)
    """Characters of a passage that the judge reads, to the end of a sentence."""
    max_tokens: int = Field(16, gt=0)
    """Tokens of an answer; give a thinking model as many as it thinks with."""
    temperature: float = Field(0.0, ge=0)
    """Of the chat model."""
    seed: Seed = 0
    """Seed of what is drawn at random, and the chat model's own."""
