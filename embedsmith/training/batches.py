"""Batches: which examples make a step, and which passages are in-batch negatives of which query.

A plan is a pure function of (examples, settings, seed): the n-th batch is the same however often a run was cut
short. A passage that occurs twice in a batch is encoded once.

Shapes: B queries, U distinct passages of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float32, Int64

from embedsmith.data.examples import Example, Passage
from embedsmith.data.normalised import normalised
from embedsmith.training.blend import draw_shares
from embedsmith.vectors.guide import Guide, above_ceiling

_Key = str | tuple[str, str]
"""What a passage is known by: its normalised text, or its data set and id."""

_VERSIONS = 2
"""Texts that one passage may have: as it was, and revised."""


@dataclass(frozen=True)
class Source:
    """The examples of one data set, with what all of them share."""

    name: str
    examples: list[Example]
    prompt: str | None = None
    """The instruction as it stands before the queries; None is the model's own."""
    weight: float = 1.0
    """How often its examples are drawn, relative to the other data sets (times their number)."""
    share: float | None = None
    """Its part of all draws, in place of a weight."""
    passage_prompt: str | None = None
    """What stands before the passages: the instruction too where both sides are alike; None is the model's own."""
    template: str | None = None
    """How an instruction that an example brings along stands before its texts; None leaves it aside."""
    in_batch: bool = True
    """Whether its queries are contrasted with other queries' passages, where the stage does that at all."""
    guide: Guide | None = None
    """The teacher's vectors of its texts."""

    def prompts_of(self, example: Example) -> tuple[str, str]:
        r"""Return what stands before an example's query, and before its passages.

        >>> source = Source("sts", [], template="Instruct: {instruction}\nQuery: ")
        >>> source.prompts_of(Example("q", "a cat", [], [], instruction="Find similar text", symmetric=True))
        ('Instruct: Find similar text\nQuery: ', 'Instruct: Find similar text\nQuery: ')
        >>> source.prompts_of(Example("q", "a cat", [], []))
        ('', '')
        """
        query, passage = self.prompt or "", self.passage_prompt or ""
        if self.template is not None and example.instruction is not None:
            query = self.template.format(instruction=example.instruction) if example.instruction else ""
        return query, query if example.symmetric else passage


@dataclass(frozen=True)
class Batch:
    """Texts of one step, with positives, negatives and masks."""

    number: int
    """Its place in the plan, from 0."""
    query_ids: list[str]
    """B ids, for messages."""
    queries: list[str]
    """B texts, each with its instruction."""
    prompt_chars: list[int]
    """B lengths of those instructions, in characters."""
    passages: list[str]
    """U texts, all different, each with its instruction or prompt."""
    passage_prompt_chars: list[int]
    """U lengths of those prompts, in characters."""
    positive: Int64[np.ndarray, " B"]
    """The row of each query's positive."""
    own: Bool[np.ndarray, "B U"]
    """Which passages are a query's own list: its positive and its mined negatives."""
    allowed: Bool[np.ndarray, "B U"]
    """Which passages are in a query's denominator, its positive included."""
    guided: Bool[np.ndarray, "B U"]
    """Which in-batch negatives were masked by the guide: the teacher scores them above the ceiling."""
    teacher_scores: Float32[np.ndarray, "B U"]
    """Mining's scores of a query's own list; NaN elsewhere, and where it noted none."""
    guides: list[Guide | None] = field(default_factory=list)
    """B teachers with stored vectors of the query."""

    @property
    def bare_queries(self) -> list[str]:
        """The queries without their instructions, as mining saw them."""
        return [text[chars:] for text, chars in zip(self.queries, self.prompt_chars, strict=True)]

    @property
    def bare_passages(self) -> list[str]:
        """The passages without their prompts."""
        return [text[chars:] for text, chars in zip(self.passages, self.passage_prompt_chars, strict=True)]

    def by_guide(self) -> Iterator[tuple[Guide, list[int]]]:
        """Yield each teacher with the rows of the queries that it has vectors of."""
        for guide in {id(guide): guide for guide in self.guides if guide}.values():
            yield guide, [row for row, other in enumerate(self.guides) if other is guide]


class BatchPlan:
    """The batches of a stage: item n is the n-th.

    Args:
        sources: the data sets.
        steps: number of batches.
        batch_size: queries in a batch.
        hard_negatives: mined negatives for each query, at most.
        in_batch: whether the other queries' passages are negatives too.
        seed: of the order and of which positive and negatives are taken.
        blend: mix all data sets in every batch (NV-Embed, section 2.2: well-blended batches), or take a batch from
            one of them.
        guide_margin: distance of the ceiling from the positive's score, both by the teacher's vectors; in-batch
            negatives above it are masked. None masks none.
        guide_relative: the margin is a share of the positive's score.
        once: every example once, whatever the data sets weigh; the last batch may be smaller.
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
        blend: bool = True,
        guide_margin: float | None = None,
        guide_relative: bool = False,
        once: bool = False,
    ) -> None:
        self._rows = [(source, example) for source in sources for example in source.examples]
        self._answers_of = _answers_of(self._rows)
        self._sizes = [len(source.examples) for source in sources]
        if once:
            self._order = np.random.default_rng((seed, 0x5EED)).permutation(len(self._rows))
        else:
            self._order = _order(sources, steps, batch_size, seed, blend=blend)
        self._steps = steps
        self._batch_size = batch_size
        self._hard_negatives = hard_negatives
        self._in_batch = in_batch
        self._seed = seed
        self._guide_margin = guide_margin
        self._guide_relative = guide_relative

    def __len__(self) -> int:
        return self._steps

    def drawn(self) -> list[int]:
        """Return how many queries of each data set are drawn in all batches."""
        ends = np.cumsum(self._sizes)
        counts = np.bincount(np.searchsorted(ends, self._order, side="right"), minlength=len(ends))
        return counts.tolist()

    def __getitem__(self, step: int) -> Batch:
        if not 0 <= step < self._steps:
            raise IndexError(step)
        rows = [self._rows[row] for row in self._order[step * self._batch_size :][: self._batch_size].tolist()]
        draw = np.random.default_rng((self._seed, step))
        picked = [self._pick(example, draw) for _, example in rows]
        prompts = [source.prompts_of(example) for source, example in rows]
        # By normalised text, not by id: the same text under two ids is the same passage.
        index: dict[tuple[str, str], int] = {}
        passages: list[str] = []
        ids: list[set[tuple[str, str]]] = []
        place = np.zeros((len(rows), max(map(len, picked))), dtype=np.int64)
        for b, ((source, _), texts) in enumerate(zip(rows, picked, strict=True)):
            before = prompts[b][1]
            for column, passage in enumerate(texts):
                key = (before, normalised(passage.text))
                if index.setdefault(key, len(passages)) == len(passages):
                    passages.append(before + passage.text)
                    ids.append(set())
                ids[index[key]].add((source.name, passage.id))
                place[b, column] = index[key]
        own = np.zeros((len(rows), len(passages)), dtype=bool)
        scores = np.full(own.shape, np.nan, np.float32)
        for b, texts in enumerate(picked):
            for column, passage in reversed(list(enumerate(texts))):  # the positive's score is the last to be written
                own[b, place[b, column]] = True
                scores[b, place[b, column]] = np.nan if passage.score is None else passage.score
        positive = place[:, 0]
        everywhere = np.array([self._in_batch and source.in_batch for source, _ in rows])
        answers = self._answers([example for _, example in rows], index, ids)
        answers[np.arange(len(rows)), positive] = False
        batch = Batch(
            number=step,
            query_ids=[example.query_id for _, example in rows],
            queries=[prompt + example.query for (prompt, _), (_, example) in zip(prompts, rows, strict=True)],
            prompt_chars=[len(prompt) for prompt, _ in prompts],
            passages=passages,
            passage_prompt_chars=[len(prompt) for prompt, _ in index],
            positive=positive,
            own=own & ~answers,
            allowed=(own | everywhere[:, None]) & ~answers,
            guided=np.zeros_like(own),
            teacher_scores=scores,
            guides=[source.guide for source, _ in rows],
        )
        if self._guide_margin is not None:
            self._mask_above_ceiling(batch)
        return batch

    def _mask_above_ceiling(self, batch: Batch) -> None:
        """Mask in-batch negatives that the teacher scores above the ceiling; the batch was just made."""
        assert self._guide_margin is not None
        for guide, rows in batch.by_guide():
            scores = guide.scores([batch.bare_queries[row] for row in rows], batch.bare_passages)
            above = above_ceiling(
                scores, batch.positive[rows], margin=self._guide_margin, relative=self._guide_relative
            )
            # Mined negatives stay: mining has applied the teacher's scores already, and other rules too.
            batch.guided[rows] = batch.allowed[rows] & above & ~batch.own[rows]
            batch.allowed[rows] &= ~batch.guided[rows]

    def _pick(self, example: Example, draw: np.random.Generator) -> list[Passage]:
        """Return one positive, then the negatives of one example."""
        positive = example.positives[int(draw.integers(len(example.positives)))]
        negatives = example.negatives
        if len(negatives) > self._hard_negatives:
            taken = sorted(draw.choice(len(negatives), self._hard_negatives, replace=False))
            negatives = [negatives[i] for i in taken]
        return [positive, *negatives]

    def _answers(
        self, examples: Sequence[Example], index: Mapping[tuple[str, str], int], ids: Sequence[set[tuple[str, str]]]
    ) -> Bool[np.ndarray, "B U"]:
        """Return which passages are known positives of which query, by text or by id, or equal its own text.

        Looked up per query, not per pair: a batch of thousands has millions of pairs.
        """
        places: dict[_Key, list[int]] = {}
        for (_, text), place in index.items():
            keys: tuple[_Key, ...] = (text, *ids[place])
            for key in keys:
                places.setdefault(key, []).append(place)
        found = np.zeros((len(examples), len(index)), dtype=bool)
        for b, example in enumerate(examples):
            query = normalised(example.query)
            texts, known = self._answers_of[query]
            answering: tuple[_Key, ...] = (query, *texts, *known)
            for key in answering:
                found[b, places.get(key, [])] = True
        return found


def _answers_of(rows: Sequence[tuple[Source, Example]]) -> dict[str, tuple[set[str], set[tuple[str, str]]]]:
    """Return, for each normalised query, its known positives: their normalised texts, and their ids with data sets.

    Queries with the same text share their positives, across data sets and batches. An id that stands for several texts
    is ignored: it numbers the passages of a row, not those of the data set.
    """
    texts_of: dict[tuple[str, str], set[str]] = {}
    for source, example in rows:
        for passage in (*example.positives, *example.negatives):
            texts_of.setdefault((source.name, passage.id), set()).add(normalised(passage.text))
    answers: dict[str, tuple[set[str], set[tuple[str, str]]]] = {}
    for source, example in rows:
        texts, ids = answers.setdefault(normalised(example.query), (set(), set()))
        texts.update(normalised(passage.text) for passage in example.positives)
        known = ((source.name, passage.id) for passage in example.positives)
        ids.update(key for key in known if len(texts_of[key]) <= _VERSIONS)
    return answers


def _order(
    sources: Sequence[Source], steps: int, batch_size: int, seed: int, *, blend: bool
) -> Int64[np.ndarray, " count"]:
    """Return the row of each place of each batch: every data set is reshuffled for each pass over it."""
    draw = np.random.default_rng((seed, 0x5EED))
    sizes = np.array([len(source.examples) for source in sources])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    shares = draw_shares(sizes.tolist(), [s.weight for s in sources], [s.share for s in sources])
    count = steps * batch_size
    drawn = count if blend else steps
    chosen = draw.choice(len(sources), size=drawn, p=shares) if len(sources) > 1 else np.zeros(drawn, int)
    if not blend:
        chosen = np.repeat(chosen, batch_size)
    order = np.empty(count, dtype=np.int64)
    for number, size in enumerate(sizes):
        places = np.flatnonzero(chosen == number)
        passes = [draw.permutation(size) for _ in range(-(-len(places) // size))]
        if passes:
            order[places] = starts[number] + np.concatenate(passes)[: len(places)]
    return order
