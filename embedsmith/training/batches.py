"""Batches: which examples make a step, and what each query is contrasted with.

A plan is a pure function of (examples, settings, seed): the n-th batch is the same however often a run was cut
short. A passage that occurs twice in a batch is encoded once.

Shapes: B queries, U distinct passages of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from embedsmith.data.collection import normalised
from embedsmith.data.examples import Example, Passage


@dataclass(frozen=True)
class Source:
    """The examples of one data set, with what all of them share."""

    name: str
    examples: list[Example]
    prompt: str = ""
    """The instruction as it stands before the queries."""
    weight: float = 1.0
    """How often its examples are drawn, relative to the other data sets (times their number)."""


@dataclass(frozen=True)
class Batch:
    """Texts of one step, and which passage is what to which query."""

    queries: list[str]
    """B texts, each with its instruction."""
    prompt_chars: list[int]
    """B lengths of those instructions, in characters."""
    passages: list[str]
    """U texts, all different."""
    positive: Int64[np.ndarray, " B"]
    """The row of each query's positive."""
    allowed: Bool[np.ndarray, "B U"]
    """Which passages a query is contrasted with, its positive included."""


class BatchPlan:
    """The batches of a stage: item n is step n's.

    Args:
        sources: the data sets to blend. Batches mix all of them (NV-Embed, section 2.2: well-blended batches).
        steps: number of batches.
        batch_size: queries in a batch.
        hard_negatives: mined negatives for each query, at most.
        in_batch: whether the other queries' passages are negatives too.
        seed: of the order and of which positive and negatives are taken.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        steps: int,
        batch_size: int,
        hard_negatives: int,
        in_batch: bool,
        seed: int,
    ) -> None:
        self._rows = [(source, example) for source in sources for example in source.examples]
        self._answers_of = _answers_of([example for _, example in self._rows])
        self._order = _order(sources, steps * batch_size, seed)
        self._steps = steps
        self._batch_size = batch_size
        self._hard_negatives = hard_negatives
        self._in_batch = in_batch
        self._seed = seed

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self._steps:
            raise IndexError(step)
        rows = self._order[step * self._batch_size : (step + 1) * self._batch_size].tolist()
        draw = np.random.default_rng((self._seed, step))
        picked = [self._pick(row, draw) for row in rows]
        # By normalised text, not by id: the same text under two ids is the same passage.
        index: dict[str, int] = {}
        passages: list[str] = []
        for passage in (passage for own in picked for passage in own):
            if index.setdefault(normalised(passage.text), len(passages)) == len(passages):
                passages.append(passage.text)
        own = np.zeros((len(rows), len(passages)), dtype=bool)
        for b, texts in enumerate(picked):
            own[b, [index[normalised(passage.text)] for passage in texts]] = True
        positive = np.array([index[normalised(texts[0].text)] for texts in picked])
        allowed = np.ones_like(own) if self._in_batch else own
        answers = self._answers(rows, list(index))
        answers[np.arange(len(rows)), positive] = False
        return Batch(
            queries=[self._rows[row][0].prompt + self._rows[row][1].query for row in rows],
            prompt_chars=[len(self._rows[row][0].prompt) for row in rows],
            passages=passages,
            positive=positive,
            allowed=allowed & ~answers,
        )

    def _pick(self, row: int, draw: np.random.Generator) -> list[Passage]:
        """Return one positive, then the negatives of one example."""
        _, example = self._rows[row]
        positive = example.positives[int(draw.integers(len(example.positives)))]
        negatives = example.negatives
        if len(negatives) > self._hard_negatives:
            taken = sorted(draw.choice(len(negatives), self._hard_negatives, replace=False))
            negatives = [negatives[i] for i in taken]
        return [positive, *negatives]

    def _answers(self, rows: Sequence[int], passages: Sequence[str]) -> Bool[np.ndarray, "B U"]:
        """Return which passages (normalised) are known to answer which query of the batch."""
        answers = [self._answers_of[normalised(self._rows[row][1].query)] for row in rows]
        return np.array([[text in known for text in passages] for known in answers], dtype=bool)


def _answers_of(examples: Sequence[Example]) -> dict[str, set[str]]:
    """Return, for each query, the texts that answer it (all normalised).

    Queries with the same text share what answers them, in whichever data set and batch they stand.
    """
    answers: dict[str, set[str]] = {}
    for example in examples:
        answers.setdefault(normalised(example.query), set()).update(normalised(p.text) for p in example.positives)
    return answers


def _order(sources: Sequence[Source], count: int, seed: int) -> Int64[np.ndarray, " count"]:
    """Return which row each place of each batch takes: every source shuffled anew for each pass over it."""
    draw = np.random.default_rng((seed, 0x5EED))
    sizes = np.array([len(source.examples) for source in sources])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    mass = sizes * np.array([source.weight for source in sources])
    chosen = draw.choice(len(sources), size=count, p=mass / mass.sum()) if len(sources) > 1 else np.zeros(count, int)
    order = np.empty(count, dtype=np.int64)
    for number, size in enumerate(sizes):
        places = np.flatnonzero(chosen == number)
        passes = [draw.permutation(size) for _ in range(-(-len(places) // size))]
        if passes:
            order[places] = starts[number] + np.concatenate(passes)[: len(places)]
    return order
