"""Batches: a pure function of seed and step, in which nothing that answers a query is held against it."""

import random
from collections import Counter

import numpy as np
import pytest

from embedsmith.data.examples import Example, Passage
from embedsmith.data.normalised import normalised
from embedsmith.training.batches import BatchPlan, Source

WORDS = ["cat", "dog", "red", "tree", "log"]


def source(name: str, count: int, *, prompt: str = "", weight: float = 1.0) -> Source:
    """Return examples whose texts are all different."""
    examples = [
        Example(
            query_id=f"{name}-q{i}",
            query=f"{name} query {i}",
            positives=[Passage(f"{name}-p{i}", f"{name} positive {i}")],
            negatives=[Passage(f"{name}-n{i}-{j}", f"{name} negative {i} {j}") for j in range(3)],
        )
        for i in range(count)
    ]
    return Source(name, examples, prompt=prompt, weight=weight)


def crowded(seed: int) -> Source:
    """Return examples of few words: queries and passages meet again and again, in other case and under other ids."""
    rng = random.Random(seed)

    def text() -> str:
        words = " ".join(rng.choices(WORDS, k=rng.randint(1, 2)))
        return rng.choice([words, words.upper(), f" {words}  "])

    def passages(most: int) -> list[Passage]:
        return [Passage(str(rng.randrange(10**6)), text()) for _ in range(rng.randint(1, most))]

    return Source("crowded", [Example(f"q{i}", text(), passages(3), passages(4)) for i in range(30)])


def plan(*sources: Source, steps=6, batch_size=5, hard_negatives=2, in_batch=True, seed=0, **settings) -> BatchPlan:
    return BatchPlan(
        sources,
        steps=steps,
        batch_size=batch_size,
        hard_negatives=hard_negatives,
        in_batch=in_batch,
        seed=seed,
        **settings,
    )


def same(one, other) -> bool:
    return (
        (one.queries, one.prompt_chars, one.passages) == (other.queries, other.prompt_chars, other.passages)
        and np.array_equal(one.positive, other.positive)
        and np.array_equal(one.allowed, other.allowed)
    )


def test_a_batch_is_a_pure_function_of_seed_and_step():
    sources = source("a", 9), source("b", 4)
    assert len(plan(*sources)) == 6
    forwards = [plan(*sources, seed=3)[step] for step in range(6)]
    again = plan(*sources, seed=3)
    for step in [5, 0, 3, 3, 1, 2, 4]:  # as a resumed run would: in another order, some twice
        assert same(again[step], forwards[step])
    assert not any(same(plan(*sources, seed=4)[step], forwards[step]) for step in range(6))


@pytest.mark.parametrize("step", [-1, 6])
def test_a_step_outside_the_plan_does_not_exist(step):
    with pytest.raises(IndexError, match=str(step)):
        plan(source("a", 9))[step]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("in_batch", [True, False])
def test_what_answers_a_query_never_stands_as_its_negative(seed, in_batch):
    data = crowded(seed)
    answers: dict[str, set[str]] = {}
    for example in data.examples:
        answers.setdefault(normalised(example.query), set()).update(normalised(p.text) for p in example.positives)
    batches = plan(data, seed=seed, in_batch=in_batch)
    masked = 0
    for step in range(len(batches)):
        batch = batches[step]
        for b, query in enumerate(batch.queries):
            for u, passage in enumerate(batch.passages):
                if u != batch.positive[b] and normalised(passage) in answers[normalised(query)]:
                    assert not batch.allowed[b, u]
                    masked += 1
            assert normalised(batch.passages[batch.positive[b]]) in answers[normalised(query)]
            assert batch.allowed[b, batch.positive[b]]
    assert masked > 0


@pytest.mark.parametrize("seed", range(4))
def test_with_in_batch_negatives_everything_that_is_no_answer_is_contrasted(seed):
    data = crowded(seed)
    answers: dict[str, set[str]] = {}
    for example in data.examples:
        answers.setdefault(normalised(example.query), set()).update(normalised(p.text) for p in example.positives)
    batch = plan(data, seed=seed)[0]
    for b, query in enumerate(batch.queries):
        for u, passage in enumerate(batch.passages):
            is_answer = normalised(passage) in answers[normalised(query)] | {normalised(query)}
            assert batch.allowed[b, u] == (u == batch.positive[b] or not is_answer)


def test_without_in_batch_negatives_a_query_is_contrasted_with_its_own_only():
    batches = plan(source("a", 12), in_batch=False, hard_negatives=2)
    for step in range(len(batches)):
        batch = batches[step]
        for b, query in enumerate(batch.queries):
            number = query.rsplit(" ", 1)[1]
            seen = {passage for u, passage in enumerate(batch.passages) if batch.allowed[b, u]}
            own_negatives = {f"a negative {number} {j}" for j in range(3)}
            assert f"a positive {number}" in seen
            assert seen - {f"a positive {number}"} < own_negatives
            assert len(seen) == 3


@pytest.mark.parametrize("seed", range(4))
def test_the_passages_of_a_batch_are_all_different(seed):
    batches = plan(crowded(seed), seed=seed)
    for step in range(len(batches)):
        texts = [normalised(passage) for passage in batches[step].passages]
        assert len(set(texts)) == len(texts)
        assert batches[step].allowed.shape == (5, len(texts))


def test_one_answer_of_two_queries_is_encoded_once_and_is_the_positive_of_both():
    examples = [Example(f"q{i}", f"query {i}", [Passage(f"p{i}", " The Cat " * (i + 1))], []) for i in range(2)]
    examples[1] = Example("q1", "query 1", [Passage("p1", "the  cat")], [])
    batch = plan(Source("a", examples), steps=1, batch_size=2)[0]
    assert [normalised(passage) for passage in batch.passages] == ["the cat"]
    assert batch.positive.tolist() == [0, 0]
    assert batch.allowed.all()


@pytest.mark.parametrize("hard_negatives", [0, 1, 2, 5])
def test_no_more_negatives_are_taken_than_asked_for_and_all_get_their_turn(hard_negatives):
    batches = plan(source("a", 5), steps=100, batch_size=1, hard_negatives=hard_negatives, in_batch=False)
    seen = set()
    for step in range(100):
        negatives = [passage for passage in batches[step].passages if "negative" in passage]
        assert len(negatives) == min(hard_negatives, 3)
        seen.update(negatives)
    assert len(seen) == (15 if hard_negatives else 0)


def test_every_positive_gets_its_turn():
    example = Example("q", "query", [Passage(str(i), f"positive {i}") for i in range(3)], [])
    turns = []
    for seed in range(2):
        batches = plan(Source("a", [example]), steps=30, batch_size=1, seed=seed)
        turns.append([batches[step].passages[0] for step in range(30)])
        assert set(turns[seed]) == {"positive 0", "positive 1", "positive 2"}
    assert turns[0] != turns[1]


def test_every_example_is_seen_once_a_pass():
    batches = plan(source("a", 10), steps=8, batch_size=5)
    order = [query for step in range(8) for query in batches[step].queries]
    passes = [order[start : start + 10] for start in range(0, 40, 10)]
    for one in passes:
        assert sorted(one) == sorted(example.query for example in source("a", 10).examples)
    assert len({tuple(one) for one in passes}) == 4


def test_sources_are_drawn_by_size_times_weight_and_each_in_whole_passes():
    sources = source("a", 30), source("b", 10, weight=3.0), source("c", 20, weight=0.5)
    batches = plan(*sources, steps=100, batch_size=20)
    counts = Counter(query for step in range(100) for query in batches[step].queries)
    by_source = Counter()
    for query, count in counts.items():
        by_source[query[0]] += count
    for name, share in {"a": 30 / 70, "b": 30 / 70, "c": 10 / 70}.items():
        assert by_source[name] / 2000 == pytest.approx(share, abs=0.04)  # 3.6 standard deviations
        own = [count for query, count in counts.items() if query[0] == name]
        assert max(own) - min(own) <= 1


def test_a_query_carries_the_instruction_of_its_source_and_its_length():
    batches = plan(source("a", 6, prompt="Find: "), source("b", 6))
    for step in range(len(batches)):
        for query, chars in zip(batches[step].queries, batches[step].prompt_chars, strict=True):
            assert query[:chars] == ("Find: " if "a query" in query else "")
            assert query[chars:].startswith(("a query", "b query"))


def test_a_homogeneous_batch_is_of_one_source_and_every_source_gets_its_share():
    sources = source("a", 30), source("b", 10, weight=3.0)
    batches = plan(*sources, steps=200, batch_size=5, blend=False)
    of = []
    for step in range(200):
        (name,) = {query[0] for query in batches[step].queries}
        of.append(name)
    assert of.count("a") / 200 == pytest.approx(0.5, abs=0.13)  # 3.7 standard deviations
    counts = Counter(query for step in range(200) for query in batches[step].queries)
    for name in "ab":
        own = [count for query, count in counts.items() if query[0] == name]
        assert max(own) - min(own) <= 1


def test_a_source_without_in_batch_negatives_keeps_to_its_own_list_in_a_blended_batch():
    quiet = Source("b", source("b", 8).examples, in_batch=False)
    batches = plan(source("a", 8), quiet, steps=8)
    kinds = set()
    for step in range(8):
        batch = batches[step]
        for b, query in enumerate(batch.queries):
            assert np.array_equal(batch.allowed[b], batch.own[b] if query[0] == "b" else np.ones_like(batch.own[b]))
            kinds.add(query[0])
    assert kinds == {"a", "b"}


def test_a_passage_that_has_the_id_of_an_answer_is_no_negative_in_the_same_source():
    one = Example("q1", "query one", [Passage("p", "an answer")], [])
    two = Example("q2", "query two", [Passage("p", "an answer, revised")], [])
    batch = plan(Source("a", [one, two]), steps=1, batch_size=2)[0]
    assert batch.allowed.tolist() == [[True, False], [False, True]]
    batch = plan(Source("a", [one]), Source("b", [two]), steps=20, batch_size=2)
    both = [batch[step] for step in range(20) if len(set(batch[step].queries)) == 2]
    assert both
    assert all(one.allowed.all() for one in both)


def test_a_query_is_not_contrasted_with_its_own_text():
    pair = [Example("q1", "one", [Passage("1", "two")], []), Example("q2", "Two", [Passage("2", "one ")], [])]
    batch = plan(Source("a", pair), steps=1, batch_size=2)[0]
    assert sorted(batch.passages) == ["one ", "two"]
    assert (batch.allowed == np.eye(2, dtype=bool)[batch.positive]).all()


def test_what_stands_before_passages_is_theirs_and_parts_equal_texts_of_two_sources():
    examples = [Example("q", "query", [Passage("p", "passage")], [])]
    both = Source("a", examples, prompt="Find: ", passage_prompt="Find: "), Source("b", examples)
    batch = next(b for b in plan(*both, steps=20, batch_size=2) if len(b.passages) == 2)
    assert sorted(zip(batch.passages, batch.passage_prompt_chars, strict=True)) == [
        ("Find: passage", 6),
        ("passage", 0),
    ]
    assert batch.bare_passages == ["passage", "passage"]
    assert batch.allowed.tolist() == np.eye(2, dtype=bool)[batch.positive].tolist()


def test_the_scores_of_a_querys_own_list_are_those_of_its_example():
    examples = [
        Example(f"q{i}", f"q {i}", [Passage(f"p{i}", f"p {i}", 0.9 - i / 10)], [Passage(f"n{i}", f"n {i}", i / 10)])
        for i in range(4)
    ]
    batch = plan(Source("a", examples), steps=1, batch_size=4)[0]
    for b, query in enumerate(batch.queries):
        number = int(query[-1])
        listed = {text: float(batch.teacher_scores[b, u]) for u, text in enumerate(batch.passages) if batch.own[b, u]}
        assert listed == pytest.approx({f"p {number}": 0.9 - number / 10, f"n {number}": number / 10})
        assert np.isnan(batch.teacher_scores[b][~batch.own[b]]).all()


def test_an_id_that_numbers_the_passages_of_each_row_masks_nothing():
    examples = [Example(f"q{i}", f"query {i}", [Passage("0", f"positive {i}")], []) for i in range(6)]
    assert plan(Source("a", examples), steps=1, batch_size=6)[0].allowed.all()
