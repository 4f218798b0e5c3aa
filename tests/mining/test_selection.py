"""Selection against the rules applied one candidate at a time."""

import random

import numpy as np
import pytest

from embedsmith.data.collection import Collection, normalised
from embedsmith.mining.candidates import Candidates
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings

# Binary fractions, as the scores below: sums and products are exact, and ties with the ceiling are frequent.
SETTINGS = [
    SelectionSettings(method="naive", negatives=3),
    SelectionSettings(method="shifted", shift=2, negatives=3),
    SelectionSettings(method="abs", threshold=0.25, negatives=3),
    SelectionSettings(method="marginpos", margin=0.125, negatives=2),
    SelectionSettings(method="marginpos", margin=0.0, negatives=4),
    SelectionSettings(method="percpos", ratio=0.75, negatives=3),
    SelectionSettings(method="percpos", ratio=1.25, negatives=50),
]
WORDS = ["cat", "dog", "red", "tree"]


def random_case(seed: int) -> tuple[Candidates, Collection]:
    """Return texts with many copies under other ids and in other case, and scores with many ties, half below 0."""
    rng = random.Random(seed)
    passages = [" ".join(rng.choices(WORDS, k=rng.randint(1, 2))) for _ in range(24)]
    passages = [rng.choice([text, text.upper(), f"  {text} "]) for text in passages]
    queries = [" ".join(rng.choices(WORDS, k=rng.randint(1, 2))) for _ in range(10)]
    passage_ids = [f"d{row}" for row in range(len(passages))]
    query_ids = [f"q{row}" for row in range(len(queries))]
    qrels = {
        q: {d: rng.choice([0, 1, 2]) for d in rng.sample(passage_ids, 4)} | {rng.choice(passage_ids): 1}
        for q in query_ids
    }
    collection = Collection.of(
        name="toy", passage_ids=passage_ids, passages=passages, query_ids=query_ids, queries=queries, qrels=qrels
    )
    depth = rng.choice([5, 12, len(passages)])
    table = np.array([[rng.randint(-8, 8) / 8 for _ in passages] for _ in queries], np.float32)
    rows = np.argsort(-table, axis=1, kind="stable")[:, :depth]
    positives = [[collection.passage_index[p] for p in collection.positives(q)] for q in query_ids]
    width = max(map(len, positives))
    filled = np.array([own + [-1] * (width - len(own)) for own in positives])
    scores = np.where(filled < 0, np.float32(np.nan), np.take_along_axis(table, np.maximum(filled, 0), axis=1))
    return Candidates("toy-teacher", rows, np.take_along_axis(table, rows, axis=1), filled, scores), collection


def toy(passages: str, grades: dict[str, int]) -> Collection:
    """Return a passage for each letter, and one query."""
    return Collection.of(
        name="toy", passage_ids=passages, passages=passages, query_ids=["q"], queries=["?"], qrels={"q": grades}
    )


def answers_of(collection: Collection, query: str) -> set[str]:
    """Return the texts that answer a query, or another query of the same text, and the query's own text."""
    same = [i for i, text in zip(collection.query_ids, collection.queries, strict=True) if normalised(text) == query]
    texts = [collection.passages[collection.passage_index[p]] for i in same for p in collection.positives(i)]
    return {normalised(text) for text in texts} | {query}


def slow_ceiling(settings: SelectionSettings, positive: float) -> float:
    if settings.method == "percpos":
        return positive - (1 - settings.ratio) * abs(positive)
    return {"abs": settings.threshold, "marginpos": positive - settings.margin}.get(settings.method, float("inf"))


def slow_selection(candidates: Candidates, collection: Collection, settings: SelectionSettings) -> list[list[int]]:
    """Return each query's places among its candidates, one candidate at a time."""
    taken = []
    for q, query in enumerate(collection.queries):
        positive = min(float(score) for score in candidates.positive_scores[q] if not np.isnan(score))
        limit, left_out, places = slow_ceiling(settings, positive), 0, []
        for place, row in enumerate(candidates.rows[q]):
            if normalised(collection.passages[row]) in answers_of(collection, normalised(query)):
                continue
            if settings.method == "shifted" and left_out < settings.shift:
                left_out += 1
                continue
            if float(candidates.scores[q, place]) < limit and len(places) < settings.negatives:
                places.append(place)
        taken.append(places)
    return taken


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.method}-{s.negatives}")
@pytest.mark.parametrize("seed", range(12))
def test_negatives_equal_the_rules_applied_one_candidate_at_a_time(settings, seed):
    candidates, collection = random_case(seed)
    examples = select(candidates, collection, settings).examples
    expected = slow_selection(candidates, collection, settings)
    assert [[passage.rank - 1 for passage in example.negatives] for example in examples] == expected
    for q, (example, places) in enumerate(zip(examples, expected, strict=True)):
        rows = candidates.rows[q, places]
        assert [passage.id for passage in example.negatives] == [collection.passage_ids[row] for row in rows]
        assert [passage.text for passage in example.negatives] == [collection.passages[row] for row in rows]
        assert [passage.score for passage in example.negatives] == candidates.scores[q, places].tolist()
        assert {passage.teacher for passage in example.negatives} <= {"toy-teacher"}


@pytest.mark.parametrize("method", ["naive", "shifted", "abs", "marginpos", "percpos"])
@pytest.mark.parametrize("seed", range(12))
def test_a_negative_never_scores_at_or_above_the_ceiling_nor_answers_the_query(method, seed):
    rng = random.Random(seed)
    candidates, collection = random_case(100 + seed)
    settings = SelectionSettings(
        method=method,
        ratio=rng.uniform(0.1, 1.4),
        margin=rng.uniform(0, 0.5),
        threshold=rng.uniform(-1, 1),
        negatives=3,
    )
    for q, example in enumerate(select(candidates, collection, settings).examples):
        lowest = min(passage.score for passage in example.positives)
        assert all(passage.score < slow_ceiling(settings, lowest) + 1e-6 for passage in example.negatives)
        ids = {passage.id for passage in example.negatives}
        assert ids.isdisjoint(collection.positives(collection.query_ids[q]))
        texts = {normalised(passage.text) for passage in example.negatives}
        assert texts.isdisjoint(answers_of(collection, normalised(example.query)))
        ranks = [passage.rank for passage in example.negatives]
        assert ranks == sorted(set(ranks)) and len(ranks) <= 3


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.method}-{s.negatives}")
def test_every_candidate_is_counted_once(settings):
    """Candidates = excluded + dropped by the ceiling + dropped by the shift + negatives + those not needed."""
    candidates, collection = random_case(7)
    everything = settings.model_copy(update={"negatives": candidates.rows.shape[1]})
    counts = select(candidates, collection, everything).counts
    dropped = counts["excluded_as_positive"] + counts["dropped_by_ceiling"] + counts["dropped_by_shift"]
    assert counts["candidates"] == candidates.rows.size == dropped + counts["negatives"]
    fewer = select(candidates, collection, settings).counts
    assert {k: v for k, v in fewer.items() if k.startswith(("excl", "drop", "cand"))} == {
        k: v for k, v in counts.items() if k.startswith(("excl", "drop", "cand"))
    }
    assert fewer["negatives"] <= counts["negatives"]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s.method}-{s.negatives}")
def test_an_outcome_says_whether_a_query_has_all_the_negatives_asked_for(settings):
    candidates, collection = random_case(3)
    selection = select(candidates, collection, settings)
    outcomes = []
    for example in selection.examples:
        count = len(example.negatives)
        outcomes.append("full" if count == settings.negatives else "none" if count == 0 else "short")
        assert example.outcome == outcomes[-1]
    assert {name: selection.counts[name] for name in ("full", "short", "none")} == {
        name: outcomes.count(name) for name in ("full", "short", "none")
    }
    assert selection.counts["queries"] == len(outcomes)


def test_a_query_with_several_positives_is_held_to_the_worst_of_them():
    collection = toy("abcd", {"a": 1, "b": 1})
    candidates = Candidates(
        teacher="toy",
        rows=np.array([[0, 2, 1, 3]]),
        scores=np.array([[0.9, 0.6, 0.5, 0.4]], np.float32),
        positive_rows=np.array([[0, 1]]),
        positive_scores=np.array([[0.9, 0.5]], np.float32),
    )
    (example,) = select(candidates, collection, SelectionSettings(method="percpos", ratio=1.0)).examples
    assert [(passage.id, passage.rank) for passage in example.negatives] == [("d", 4)]
    assert [(passage.id, passage.score) for passage in example.positives] == [("a", 0.9), ("b", 0.5)]


def test_a_score_that_is_no_number_is_never_a_negative():
    collection = toy("ab", {"a": 1})
    nan = np.float32(np.nan)
    candidates = Candidates("toy", np.array([[1]]), np.array([[nan]]), np.array([[0]]), np.array([[0.5]], np.float32))
    assert select(candidates, collection, SelectionSettings(method="naive")).examples[0].outcome == "none"
