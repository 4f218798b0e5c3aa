"""Metrics against formulas written out, on small graded data."""

import math
import random

import pytest

from embedsmith.errors import InputError, SettingsError
from embedsmith.evaluation.metrics import DEFAULT_METRICS, score_run


def slow_metric(name: str, ranked: list[str], grades: dict[str, int]) -> float:
    kind, cutoff = name.split("@")
    top = ranked[: int(cutoff)]
    relevant = {passage for passage, grade in grades.items() if grade > 0}
    hits = [passage in relevant for passage in top]
    if kind == "recall":
        return sum(hits) / len(relevant)
    if kind == "precision":
        return sum(hits) / int(cutoff)
    if kind == "mrr":
        return next((1 / place for place, hit in enumerate(hits, 1) if hit), 0.0)
    if kind == "map":
        return sum(sum(hits[:place]) / place for place, hit in enumerate(hits, 1) if hit) / len(relevant)
    ideal = sorted(grades.values(), reverse=True)[: int(cutoff)]
    gains = [grades.get(passage, 0) for passage in top]
    discounted = [sum(g / math.log2(place + 1) for place, g in enumerate(list_, 1)) for list_ in (gains, ideal)]
    return discounted[0] / discounted[1]


@pytest.mark.parametrize("name", [*DEFAULT_METRICS, "ndcg@3", "recall@1", "mrr@2", "map@5", "precision@4"])
def test_every_metric_equals_its_formula_on_graded_data_with_ties(name):
    rng = random.Random(0)
    passages = [f"d{i}" for i in range(15)]
    qrels, ranking = {}, {}
    for query in (f"q{i}" for i in range(60)):
        qrels[query] = {passage: rng.choice([0, 0, 1, 2, 3]) for passage in rng.sample(passages, 6)}
        qrels[query][rng.choice(passages)] = 1
        ranked = rng.sample(passages, rng.randint(1, 15))
        ranking[query] = [(passage, rng.choice([0.25, 0.5])) for passage in ranked]
    scores = score_run(ranking, qrels, [name])
    wanted = {q: slow_metric(name, [p for p, _ in ranking[q]], qrels[q]) for q in qrels}
    assert {q: by_name[name] for q, by_name in scores.per_query.items()} == pytest.approx(wanted, abs=1e-6)
    assert scores.mean[name] == pytest.approx(sum(wanted.values()) / 60, abs=1e-6)


@pytest.mark.parametrize("first", ["a", "b"])
def test_the_order_given_decides_between_equal_scores(first):
    second = "b" if first == "a" else "a"
    scores = score_run({"q": [(first, 0.5), (second, 0.5)]}, {"q": {first: 1}}, ["mrr@10", "ndcg@1"])
    assert scores.mean == {"mrr@10": 1.0, "ndcg@1": 1.0}


def test_a_judged_query_without_ranking_counts_zero():
    scores = score_run({"q1": [("d1", 1.0)], "q2": []}, {"q1": {"d1": 1}, "q2": {"d1": 1}, "q3": {"d1": 1}})
    assert scores.mean == pytest.approx(dict.fromkeys(DEFAULT_METRICS, 1 / 3))
    assert list(scores.per_query) == ["q1", "q2", "q3"]
    assert scores.per_query["q2"] == scores.per_query["q3"] == dict.fromkeys(DEFAULT_METRICS, 0.0)


def test_a_query_that_nobody_judged_is_ignored():
    scores = score_run({"q1": [("d1", 1.0)], "q9": [("d1", 1.0)]}, {"q1": {"d1": 1}}, ["ndcg@10"])
    assert scores.per_query == {"q1": {"ndcg@10": 1.0}}


def test_a_query_without_a_relevant_passage_is_left_out_of_the_mean():
    scores = score_run({"q1": [("d1", 1.0)], "q2": [("d1", 1.0)]}, {"q1": {"d1": 1}, "q2": {"d1": 0}}, ["ndcg@10"])
    assert scores.mean == {"ndcg@10": 1.0}
    assert list(scores.per_query) == ["q1"]


def test_metrics_come_in_the_order_asked_for():
    scores = score_run({"q": [("d", 1.0)]}, {"q": {"d": 1}}, ["recall@10", "mrr@10", "ndcg@10"])
    assert list(scores.mean) == list(scores.per_query["q"]) == ["recall@10", "mrr@10", "ndcg@10"]


def test_judgements_and_ranking_are_not_written_into():
    ranking, qrels = {"q": [("d", 0.1)]}, {"q": {"d": 1, "e": 0}, "r": {"d": 0}}
    score_run(ranking, qrels)
    assert ranking == {"q": [("d", 0.1)]} and qrels == {"q": {"d": 1, "e": 0}, "r": {"d": 0}}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndgc@10", r'unknown metric "ndgc@10" \(did you mean "ndcg@10"\?\)'),
        ("ndcg", r'unknown metric "ndcg" \(did you mean "ndcg@10"\?\)'),
        ("recall@0", 'unknown metric "recall@0"'),
        ("accuracy@1", 'unknown metric "accuracy@1"'),
    ],
)
def test_an_unknown_metric_is_refused_with_the_nearest_name(name, message):
    with pytest.raises(SettingsError, match=message):
        score_run({"q": [("d", 1.0)]}, {"q": {"d": 1}}, [name])


def test_a_passage_ranked_twice_is_refused():
    with pytest.raises(InputError, match='query "q": passage "d" is ranked twice'):
        score_run({"q": [("d", 1.0), ("d", 0.5)]}, {"q": {"d": 1}})


@pytest.mark.parametrize("qrels", [{}, {"q": {"d": 0}}])
def test_judgements_without_a_relevant_passage_are_refused(qrels):
    with pytest.raises(InputError, match="has a relevant passage"):
        score_run({"q": [("d", 1.0)]}, qrels)
