"""How long a recipe takes on this machine: its texts counted, and a sample of them encoded and trained on.

Counted are the texts that each model encodes, and the tokens that each step reads. Measured are a second of encoding
with each model, and one chunk of training. What a model behind a URL or a cross-encoder takes is not known beforehand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

import numpy as np
from jaxtyping import Int64

from embedsmith.data.collection import Collection
from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student
from embedsmith.recipes.plan import ReadData
from embedsmith.recipes.recipe import Recipe
from embedsmith.teachers.named import has_vectors, open_encoder
from embedsmith.training.cost import Cost, cost_of
from embedsmith.training.memory import enough_memory
from embedsmith.training.plan import plan_of
from embedsmith.training.settings import StageSettings
from embedsmith.training.student import student_of
from embedsmith.training.train import sources_of, with_prompts

_SAMPLE = 512
"""Texts whose tokens are counted, and of which as many are encoded as a second allows."""
_MEASURED_S = 1.0
_OPERATIONS_A_SECOND = 2e10
"""Of exact search, in float32: a low guess, for it is a small part where texts have to be encoded."""
_WORDS_S = 5e-4
"""Seconds that BM25 takes for a text."""
_FIXED_S = 10.0
"""Libraries, models that are opened several times, reports."""


@dataclass(frozen=True)
class Texts:
    """How long texts are, by a sample of them."""

    lengths: Int64[np.ndarray, " n"]
    """In tokens, of the sample."""
    count: int
    """Of all texts."""

    def tokens(self, most: int | None) -> float:
        """Return the tokens of all texts, each truncated to some length.

        >>> Texts(np.array([2, 10]), count=100).tokens(4)
        300.0
        """
        lengths = self.lengths if most is None else np.minimum(self.lengths, most)
        return float(lengths.mean()) * self.count if len(lengths) else 0.0


@dataclass(frozen=True)
class Side:
    """The texts of one side of a data set."""

    queries: Texts
    passages: Texts

    def tokens(self, query: int | None, passage: int | None) -> float:
        """Return the tokens of all texts, truncated to some lengths."""
        return self.queries.tokens(query) + self.passages.tokens(passage)


@dataclass(frozen=True)
class Estimate:
    """What a recipe takes, in seconds."""

    reading: float
    mining: float
    training: float
    scoring: float
    steps: tuple[int, ...]
    """Of each stage."""
    seconds_a_step: tuple[float, ...]
    memory_gib: float
    """The most that a stage takes."""

    @property
    def total(self) -> float:
        """All of it."""
        return _FIXED_S + self.reading + self.mining + self.training + self.scoring


@dataclass(frozen=True)
class MeasuredStage:
    """A stage as it was measured."""

    cost: Cost
    texts: Side
    """Of a batch."""
    lengths: tuple[int, int]
    """At which queries and passages were truncated."""
    steps: int


class Speed:
    """What was counted and measured once, to estimate variants of a recipe with other lengths and steps."""

    def __init__(self, recipe: Recipe, read: ReadData, *, reading_s: float) -> None:
        """Count and measure.

        Args:
            read: the recipe's data.
            reading_s: how long it took to read them.

        Raises:
            ModelError: a model cannot be opened.
            SettingsError: a first chunk of a stage does not fit in memory.
        """
        self._reading_s = reading_s
        student = student_of(recipe.student, recipe.stages, seed=recipe.seed)
        self._tokenizer = student.tokenizer
        self.mined = {name: self._side(collection) for name, collection in read.mined.items()}
        self.tests = {name: self._side(collection) for name, collection in read.tests.items()}
        self.elsewhere = None if read.elsewhere is None else self._side(read.elsewhere)
        self.own = {name: self._side(collection) for name, collection in read.own.items()}
        self._known = {name: _known(read.mined[name], test) for name, test in read.tests.items() if name in read.mined}
        sample = [text for one in (*read.mined.values(), *read.tests.values()) for text in _some(one.passages)]
        teachers = {name: open_encoder(name, recipe.mining.teacher_settings) for name in _encoders(recipe)}
        first = teachers.get(recipe.mining.teachers[0])
        # Scores are made in a precision of their own, twice as fast as training's where the hardware has it.
        scored = build_student(recipe.student, seed=recipe.seed).use_dtype(recipe.evaluation.dtype)
        self._is_teacher = isinstance(first, EmbeddingModel) and first.contracts() == scored.contracts()
        """Whether the untrained student's vectors are the teacher's, and are copied."""
        self._tokens_a_second = {name: self._measured(model, sample) for name, model in teachers.items()}
        self._student = self._measured(scored, sample)
        del scored
        self._stages = [
            self._measured_stage(student, read, recipe, stage, recipe.seed + number)
            for number, stage in enumerate(recipe.stages)
        ]

    def estimate(self, recipe: Recipe, *, share: float = 1.0) -> Estimate:
        """Return what a variant of the recipe takes: other lengths and steps, the same models.

        Args:
            share: of the texts, where a variant has fewer.
        """
        reading, student = recipe.mining.teacher_settings.max_tokens, recipe.student
        # In chunks all of a passage is read.
        is_cut = recipe.evaluation.chunk
        lengths = student.query_max_tokens, None if is_cut else student.passage_max_tokens
        mining = scoring = 0.0
        for teacher in recipe.mining.teachers:
            speed = self._tokens_a_second.get(teacher, math.inf)
            mining += sum(side.tokens(reading, reading) for side in self.mined.values()) / speed
        mining += sum(map(_search, self.mined.values()))
        if "bm25" in (*recipe.mining.teachers, *recipe.evaluation.baselines):
            scoring += sum(_words(side) for side in (*self.tests.values(), *self.own.values()))
        models = 1 * (recipe.evaluation.before and not self._is_teacher) + len(recipe.stages)
        for name, side in self.tests.items():
            scoring += models * side.tokens(*lengths) / self._student + (models + 2) * _search(side)
            for teacher in {recipe.mining.teachers[0], *recipe.evaluation.baselines} & self._tokens_a_second.keys():
                known = 0.0 if is_cut else self._known.get(name, 0.0)
                passages = side.passages.tokens(None if is_cut else reading)
                new = side.queries.tokens(reading) + (1 - known) * passages
                scoring += new / self._tokens_a_second[teacher]
        scoring += self._own_queries(recipe, models) + self.seconds_elsewhere(recipe)
        if recipe.evaluation.hybrid:
            scoring += sum(_words(side) + _search(side) for side in (*self.tests.values(), *self.own.values()))
        seconds = tuple(self._stage(recipe, *one) for one in zip(recipe.stages, self._stages, strict=True))
        # Passes over fewer texts are fewer steps.
        steps = tuple(
            stage.steps or max(stage.least_steps or 1, round(share * one.steps))
            for stage, one in zip(recipe.stages, self._stages, strict=True)
        )
        return Estimate(
            reading=self._reading_s,
            mining=share * mining,
            training=sum(map(mul, steps, seconds)),
            scoring=share * scoring,
            steps=steps,
            seconds_a_step=seconds,
            memory_gib=max(stage.cost.bytes for stage in self._stages) / 2**30,
        )

    def seconds_elsewhere(self, recipe: Recipe) -> float:
        """Return the seconds of seeing what the student has lost, before training and after each stage."""
        if self.elsewhere is None or recipe.evaluation.elsewhere is None:
            return 0.0
        passage = None if recipe.evaluation.chunk else recipe.student.passage_max_tokens
        lengths = recipe.student.query_max_tokens, passage
        return (1 + len(recipe.stages)) * (self.elsewhere.tokens(*lengths) / self._student + _search(self.elsewhere))

    def _own_queries(self, recipe: Recipe, models: int) -> float:
        """Return the seconds of scoring users' own queries; the vectors of their passages are stored by then."""
        seconds = 0.0
        for side in self.own.values():
            seconds += models * side.queries.tokens(recipe.student.query_max_tokens) / self._student
            seconds += (models + 2) * _search(side)
            for teacher in {recipe.mining.teachers[0], *recipe.evaluation.baselines} & self._tokens_a_second.keys():
                tokens = side.queries.tokens(recipe.mining.teacher_settings.max_tokens)
                seconds += tokens / self._tokens_a_second[teacher]
        return seconds

    def _stage(self, recipe: Recipe, stage: StageSettings, measured: MeasuredStage) -> float:
        """Return the seconds of a step of a variant of a stage, by its tokens."""
        now = measured.texts.tokens(*_lengths_of(recipe, stage))
        return measured.cost.seconds_a_batch * stage.accumulation * now / measured.texts.tokens(*measured.lengths)

    def _measured_stage(
        self, student: EmbeddingModel, read: ReadData, recipe: Recipe, stage: StageSettings, seed: int
    ) -> MeasuredStage:
        """Measure a stage as the recipe has it."""
        sources = with_prompts(sources_of(stage, read.sources), student)
        plan = plan_of(sources, stage, seed)
        with enough_memory(lambda: f"stage {stage.name}: a first chunk", student.device):
            cost = cost_of(student, plan, stage)
        batch = plan[0]
        texts = Side(self._texts(batch.queries), self._texts(batch.passages))
        return MeasuredStage(cost, texts, _lengths_of(recipe, stage), len(plan) // stage.accumulation)

    def _side(self, collection: Collection) -> Side:
        """Return the lengths of a collection's texts."""
        return Side(self._texts(collection.queries), self._texts(collection.passages))

    def _texts(self, texts: Sequence[str]) -> Texts:
        """Return how long texts are."""
        return Texts(np.array([*self._lengths(_some(texts))], dtype=np.int64), len(texts))

    def _lengths(self, texts: Sequence[str]) -> Iterator[int]:
        """Yield the tokens of each text."""
        if texts:
            yield from map(len, self._tokenizer(list(texts), truncation=False, padding=False)["input_ids"])

    def _measured(self, model: Any, sample: Sequence[str]) -> float:
        """Return the tokens that a model encodes in a second once it is warm; infinity where there is no text."""
        if not sample or not isinstance(model, EmbeddingModel):
            return math.inf
        most = getattr(model, "max_seq_length", None)
        model.embed(sample[:8], "passage")  # the first time is slow
        count, seconds = 8, 0.0
        while seconds < _MEASURED_S and count < len(sample):
            count = min(4 * count, len(sample))
            started = time.monotonic()
            model.embed(sample[:count], "passage")
            seconds = time.monotonic() - started
        # Kernels are made when the first text of a length comes, which takes as long as a few hundred texts.
        started = time.monotonic()
        model.embed(sample[:count], "passage")
        seconds = min(seconds, time.monotonic() - started) if seconds else time.monotonic() - started
        return Texts(np.array([*self._lengths(sample[:count])]), count).tokens(most) / max(seconds, 1e-6)


def _lengths_of(recipe: Recipe, stage: StageSettings) -> tuple[int, int]:
    """Return the tokens at which a stage truncates queries and passages."""
    student = recipe.student
    return stage.query_max_tokens or student.query_max_tokens, stage.passage_max_tokens or student.passage_max_tokens


def _encoders(recipe: Recipe) -> list[str]:
    """Return the names of the models that encode texts beside the student."""
    return [
        name for name in dict.fromkeys((*recipe.mining.teachers, *recipe.evaluation.baselines)) if has_vectors(name)
    ]


def _some(texts: Sequence[str]) -> list[str]:
    """Return texts at equal distances."""
    return [texts[place] for place in range(0, len(texts), max(1, len(texts) // _SAMPLE))][:_SAMPLE]


def _known(train: Collection, test: Collection) -> float:
    """Return the share of a test side's passages that are in the training side too."""
    known = set(train.passages)
    return sum(text in known for text in test.passages) / max(1, len(test.passages))


def _words(side: Side) -> float:
    """Return the seconds that BM25 takes for a side."""
    return (side.queries.count + side.passages.count) * _WORDS_S


def _search(side: Side) -> float:
    """Return the seconds of an exact search, for vectors of about a thousand dimensions."""
    return 2.0 * side.queries.count * side.passages.count * 1024 / _OPERATIONS_A_SECOND
