"""Scores of a ranking that is written down, worked out by hand."""

import math

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.evaluation.retrieval import evaluate_retrieval, rank
from embedsmith.teachers.named import Teacher


class FixedTeacher(Teacher):
    """Ranks the passages in an order that is written down, with scores that fall."""

    name = "fixed"
    proposes = True

    def __init__(self, orders: dict[str, list[int]]) -> None:
        self.orders = orders
        self.asked: list[tuple[list[str], int]] = []

    def search(self, queries, k):
        self.asked.append((queries, k))
        rows = np.array([self.orders[query][:k] for query in queries])
        return rows, np.tile(-np.arange(rows.shape[1], dtype=np.float32), (len(rows), 1))

    def scores(self, queries, rows):
        raise AssertionError("evaluation ranks; it asks for no other scores")


class Rescorer(FixedTeacher):
    """Scores a passage by its row, the last highest, and does not search."""

    proposes = False

    def search(self, queries, k):
        raise AssertionError("it does not search")

    def scores(self, queries, rows):
        return rows.astype(np.float32)


COLLECTION = Collection.of(
    name="toy",
    passage_ids=[f"d{row}" for row in range(12)],
    passages=[f"passage {row}" for row in range(12)],
    query_ids=["q1", "q2", "q3"],
    queries=["first", "second", "third"],
    qrels={"q1": {"d4": 1}, "q2": {"d0": 2, "d7": 1, "d1": 0}, "q3": {"d9": 1}},
)
ORDERS = {
    "first": [3, 4, *[row for row in range(12) if row not in (3, 4)]],  # its answer second
    "second": [7, 1, 0, *[row for row in range(12) if row not in (7, 1, 0)]],  # its answers first and third
    "third": [row for row in range(12) if row != 9] + [9],  # its answer last, behind the first ten
}


def test_the_scores_are_those_worked_out_by_hand():
    teacher = FixedTeacher(ORDERS)
    scores = evaluate_retrieval(teacher, COLLECTION)
    log = math.log2
    ideal = 2 / log(2) + 1 / log(3)
    expected = {
        "q1": {"ndcg@10": 1 / log(3), "recall@10": 1, "mrr@10": 1 / 2, "map@100": 1 / 2, "recall@100": 1},
        "q2": {
            "ndcg@10": (1 / log(2) + 2 / log(4)) / ideal,
            "recall@10": 1,
            "mrr@10": 1,
            "map@100": (1 / 1 + 2 / 3) / 2,
            "recall@100": 1,
        },
        "q3": {"ndcg@10": 0, "recall@10": 0, "mrr@10": 0, "map@100": 1 / 12, "recall@100": 1},
    }
    assert scores.per_query.keys() == expected.keys()
    for query, metrics in expected.items():
        assert scores.per_query[query] == pytest.approx(metrics)
    for metric in expected["q1"]:
        assert scores.mean[metric] == pytest.approx(np.mean([metrics[metric] for metrics in expected.values()]))
    assert teacher.asked == [(COLLECTION.queries, 100)]


def test_a_passage_below_the_depth_is_not_found():
    scores = evaluate_retrieval(FixedTeacher(ORDERS), COLLECTION, depth=11)
    assert scores.per_query["q3"]["recall@100"] == 0
    assert scores.per_query["q1"]["recall@100"] == 1


def test_passages_with_the_same_score_stand_in_trec_evals_order():
    ids = ["d9", "d10", "é", "D9", "d1"]
    collection = Collection.of(
        name="ties", passage_ids=ids, passages=ids, query_ids=["q"], queries=["q"], qrels={"q": {"d9": 1}}
    )
    teacher = FixedTeacher({"q": [0, 1, 2, 3, 4]})
    teacher.search = lambda queries, k: (np.array([[0, 1, 2, 3, 4]]), np.array([[1, 1, 1, 1, 2]], np.float32))
    assert rank(teacher, collection) == {"q": [("d1", 2.0), ("é", 1.0), ("d9", 1.0), ("d10", 1.0), ("D9", 1.0)]}


def test_a_model_that_only_rescores_orders_what_the_first_stage_found():
    ranking = rank(Rescorer(ORDERS), COLLECTION, depth=4, first_stage=FixedTeacher(ORDERS))
    assert [passage for passage, _ in ranking["q1"]] == ["d4", "d3", "d1", "d0"]


def test_the_passage_with_the_querys_own_id_is_dropped_and_the_depth_filled_up():
    collection = Collection.of(
        name="arguana",
        passage_ids=["a", "b", "c"],
        passages=["a", "b", "c"],
        query_ids=["a", "q"],
        queries=["a", "q"],
        qrels={"a": {"b": 1}, "q": {"b": 1}},
    )
    teacher = FixedTeacher({"a": [0, 1, 2], "q": [0, 1, 2]})
    ranking = rank(teacher, collection, depth=2, drop_identical_ids=True)
    assert {query: [passage for passage, _ in ranked] for query, ranked in ranking.items()} == {
        "a": ["b", "c"],
        "q": ["a", "b"],
    }
    assert evaluate_retrieval(teacher, collection, ["mrr@10"]).per_query["a"]["mrr@10"] == 0.5


def test_the_depth_follows_the_deepest_metric():
    teacher = FixedTeacher(ORDERS)
    evaluate_retrieval(teacher, COLLECTION, ["ndcg@10", "recall@250"])
    assert [k for _, k in teacher.asked] == [250]
