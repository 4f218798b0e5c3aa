"""Scores of a ranking that is written down, worked out by hand."""

import math

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.evaluation.retrieval import evaluate_retrieval, rank
from embedsmith.teachers.bm25 import BM25, BM25Settings
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


class TiedTeacher(FixedTeacher):
    """Finds the first `found` passages, and scores all alike but the last one, which is best."""

    def __init__(self, passages: int, found: int) -> None:
        super().__init__({})
        self.row, self.best = np.arange(passages), found - 1

    def search(self, queries, k):
        rows = np.where(self.row <= self.best, self.row, -1)
        return np.tile(rows, (len(queries), 1)), np.tile(np.float32(self.row == self.best), (len(queries), 1))


def test_passages_with_the_same_score_stand_in_an_order_that_neither_rows_nor_ids_decide():
    texts, queries = [f"passage {n}" for n in range(8)], [f"query {n}" for n in range(300)]
    orders = []
    for rows, prefix in (([0, 1, 2, 3, 4, 5, 6, 7], "a"), ([6, 5, 4, 3, 2, 1, 0, 7], "z")):
        collection = Collection.of(
            name="ties",
            passage_ids=[f"{prefix}{len(texts) - row if prefix == 'z' else row}" for row in rows],
            passages=[texts[row] for row in rows],
            query_ids=queries,
            queries=queries,
            qrels={},
        )
        text_of = dict(zip(collection.passage_ids, collection.passages, strict=True))
        ranking = rank(TiedTeacher(8, 8), collection)
        orders.append([[text_of[passage] for passage, _ in ranking[query]] for query in queries])
    assert orders[0] == orders[1]
    assert {order[0] for order in orders[0]} == {texts[7]}
    seconds = [order[1] for order in orders[0]]
    assert all(30 < seconds.count(text) < 60 for text in texts[:7])  # 43 each, if each is as likely as any other


@pytest.mark.parametrize("found", [1, 3])
def test_what_a_teacher_did_not_find_is_not_ranked(found):
    ranking = rank(TiedTeacher(12, found), COLLECTION)
    assert {query: {passage for passage, _ in ranked} for query, ranked in ranking.items()} == {
        query: {f"d{row}" for row in range(found)} for query in COLLECTION.query_ids
    }
    reranked = rank(Rescorer(ORDERS), COLLECTION, first_stage=TiedTeacher(12, found))
    assert [passage for passage, _ in reranked["q1"]] == [f"d{row}" for row in reversed(range(found))]


def test_a_query_that_shares_no_word_with_any_passage_scores_nothing_and_counts():
    collection = Collection.of(
        name="words",
        passage_ids=["d1", "d2", "d3"],
        passages=["a cat", "a dog", "an owl"],
        query_ids=["q1", "q2"],
        queries=["zebra", "cat"],
        qrels={"q1": {"d1": 1}, "q2": {"d1": 1}},
    )
    teacher = BM25(collection.passages, BM25Settings())
    assert [passage for passage, _ in rank(teacher, collection)["q2"]] == ["d1"]
    scores = evaluate_retrieval(teacher, collection, ["ndcg@10", "recall@100"])
    assert scores.per_query["q1"] == {"ndcg@10": 0, "recall@100": 0}
    assert scores.mean == {"ndcg@10": 0.5, "recall@100": 0.5}


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
