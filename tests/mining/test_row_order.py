"""The order of a corpus's rows decides nothing: candidates, negatives and metrics are the same after a shuffle."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.evaluation.metrics import score_run
from embedsmith.evaluation.retrieval import rank
from embedsmith.mining.candidates import NO_PASSAGE, mine_candidates
from embedsmith.mining.rows import examples
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.teachers.joined import JoinedTeacher
from embedsmith.teachers.named import Teacher

WORDS = ["cat", "dog", "owl", "bat", "the"]  # the last is a stop word of BM25


class CountingEncoder:
    """A model whose vectors count the words of a text: many have the same, and scores are sums without rounding."""

    device = "cpu"

    def embed(self, texts, role, *, tokens=None, on_done=None):
        counts = np.array([[text.split().count(word) for word in WORDS] for text in texts], np.float32)
        return counts.reshape(len(texts), len(WORDS)) / 4

    def embed_each(self, lists, role, *, tokens=None, on_done=None):
        for texts in lists:
            yield self.embed(texts, role)

    def spread(self, devices):
        raise AssertionError("one device is enough")

    def contracts(self):
        return {"query": {"role": "query"}, "passage": {"role": "passage"}}


class Rescorer:
    """Scores a passage by its number of words, and finds nothing."""

    name, proposes, contract = "lengths", False, {}

    def __init__(self, passages):
        self._lengths = np.array([len(text.split()) for text in passages], np.float32)

    def search(self, queries, k):
        raise AssertionError("it does not search")

    def moments(self, queries):
        raise AssertionError("it has not seen the corpus")

    def scores(self, queries, rows):
        return self._lengths[rows]

    def similarities(self, rows, others):
        return None

    def vectors_of(self, queries):
        return None


def texts_with_ties() -> list[str]:
    """80 texts of a few words; some are there several times, and most tie with others for every query."""
    rng = random.Random(5)
    return [" ".join(rng.choices([*WORDS[:4], "red", "old"], k=rng.randint(1, 3))) for _ in range(80)]


def collection(order: list[int], *, ids: str = "d") -> Collection:
    """The same passages in some order; the last query shares no word with any of them."""
    texts = texts_with_ties()
    rng = random.Random(6)
    queries = [f"{' '.join(rng.choices(WORDS[:4], k=2))} zebra{n}" for n in range(30)] + ["zebra"]
    # Those that share a word with the query, and for the last one any.
    answers = [[row for row in range(80) if {*query.split()} & {*texts[row].split()}] for query in queries[:30]]
    return Collection.of(
        name="ties",
        passage_ids=[f"{ids}{row}" for row in order],
        passages=[texts[row] for row in order],
        query_ids=[f"q{n}" for n in range(31)],
        queries=queries,
        qrels={f"q{n}": {f"{ids}{row}": 1 for row in rng.sample([*answers, range(80)][n], 2)} for n in range(31)},
    )


def teachers_on(data: Collection, kinds: list[str], folder: Path) -> list[Teacher]:
    """The teachers of some kinds, opened with the passages of a collection."""
    made: list[Teacher] = []
    for kind in kinds:
        if kind == "bm25":
            made.append(BM25(data.passages, BM25Settings(), ties=data.ties))
        elif kind == "dense":
            made.append(DenseTeacher(CountingEncoder(), data.passages, name="dense", folder=folder, ties=data.ties))
        elif kind == "joined":
            # All of the variance: an axis that is left out would round the ties away.
            made.append(JoinedTeacher(made, name="pca", variance=1.0, folder=folder, ties=data.ties))
        else:
            made.append(Rescorer(data.passages))
    return made


def mined(data: Collection, kinds: list[str], folder: Path, **settings) -> tuple[list, list]:
    """Each query's candidates, and its negatives with their scores and ranks, by id."""
    found = mine_candidates(teachers_on(data, kinds, folder), data, depth=9, block=16)
    ids = np.array([*data.passage_ids, ""])
    selected = select(found, SelectionSettings(negatives=5, **settings))
    written = examples(selected, found, data)
    return ids[found.rows].tolist(), [row.negatives for row in written]


@pytest.mark.parametrize(
    ("kinds", "settings"),
    [
        (["bm25"], {"method": "naive"}),
        (["bm25"], {"method": "percpos", "ratio": 1.5, "sampler": "top1"}),
        (["bm25", "lengths"], {"method": "naive", "ensemble": "fuse"}),
        (["dense"], {"method": "naive"}),
        (["dense", "bm25"], {"method": "naive", "ensemble": "rrf"}),
        (["bm25", "dense"], {"method": "naive", "ensemble": "rrf"}),
        (["bm25", "dense"], {"method": "percpos", "ratio": 1.5, "veto": True}),
        (["bm25", "dense"], {"method": "naive", "ensemble": "intra-dedup"}),
        (["dense", "bm25"], {"method": "naive", "ensemble": "cross", "sampler": "uniform"}),
    ],
    ids=str,
)
def test_candidates_and_negatives_are_the_same_in_every_order_of_the_rows(kinds, settings, tmp_path):
    plain = mined(collection(list(range(80))), kinds, tmp_path / "0", **settings)
    assert sum(map(len, plain[1])) > 20
    for seed in (1, 2):
        order = list(range(80))
        random.Random(seed).shuffle(order)
        assert mined(collection(order), kinds, tmp_path / str(seed), **settings) == plain


@pytest.mark.parametrize("kind", ["bm25", "dense", "lengths"])
def test_metrics_are_the_same_in_every_order_of_the_rows_and_under_every_name_of_the_ids(kind, tmp_path):
    def scores(number: int, order: list[int], ids: str) -> dict[str, dict[str, float]]:
        data = collection(order, ids=ids)
        first = None
        if kind == "lengths":
            (first,) = teachers_on(data, ["bm25"], tmp_path)
        (teacher,) = teachers_on(data, [kind], tmp_path / str(number))
        ranking = rank(teacher, data, depth=9, first_stage=first)
        return score_run(ranking, data.qrels, ["ndcg@3", "ndcg@10", "recall@10"]).per_query

    plain = scores(0, list(range(80)), "d")
    order = list(range(80))
    random.Random(3).shuffle(order)
    assert scores(1, order, "d") == plain
    assert len({value for metrics in plain.values() for value in metrics.values()}) > 5
    if kind != "dense":  # which finds passages for a query of none of its words, as every dense model does
        assert set(plain["q30"].values()) == {0}


def test_a_passage_that_a_teacher_did_not_find_gets_no_rank_points_from_it(tmp_path):
    data = collection(list(range(80)))
    found = mine_candidates(teachers_on(data, ["dense", "bm25"], tmp_path), data, depth=9)
    unfound = (found.scores[1] == 0) & (found.rows != NO_PASSAGE)
    assert unfound.any()
    for ensemble, views in (("rrf", 1), ("intra", 2), ("cross", 2)):
        selected = select(found, SelectionSettings(negatives=40, method="naive", ensemble=ensemble))
        if views == 2:
            row, column = np.nonzero((selected.places >= 0) & (selected.teacher == selected.teachers.index("bm25")))
            assert len(row) and not unfound[row, selected.places[row, column]].any()
        else:
            row, column = np.nonzero(selected.places >= 0)
            own = unfound[row, selected.places[row, column]]
            # By the dense teacher alone: at most 61 / 61, one of two halves.
            assert own.any() and selected.scores[row, column][own].max() <= 0.5


def test_a_passage_that_shares_no_word_is_not_vetoed_by_a_positive_that_shares_none_either(tmp_path):
    data = Collection.of(
        name="veto",
        passage_ids=["d1", "d2", "d3"],
        passages=["the cat", "red dog", "old bat"],
        query_ids=["q"],
        queries=["the dog"],
        qrels={"q": {"d1": 1}},
    )
    found = mine_candidates(teachers_on(data, ["dense", "bm25"], tmp_path), data, depth=3)
    assert found.pair_scores[1].tolist() == [0]
    selected = select(found, SelectionSettings(method="percpos", veto=True))
    assert [data.passage_ids[row] for row in selected.rows[0] if row != NO_PASSAGE] == ["d3"]


def test_queries_that_find_nothing_at_all_are_mined_without_a_negative(tmp_path):
    texts, queries = ["a cat", "a dog", "an owl"], ["zebra", "yak"]
    data = Collection.of(
        name="none",
        passage_ids=["d1", "d2", "d3"],
        passages=texts,
        query_ids=["q1", "q2"],
        queries=queries,
        qrels={"q1": {"d1": 1}, "q2": {"d2": 1}},
    )
    for kinds in (["bm25"], ["bm25", "lengths"]):
        for ensemble in ("first", "fuse", "rrf", "intra"):
            found = mine_candidates(teachers_on(data, kinds, tmp_path), data, depth=2)
            assert (found.rows == NO_PASSAGE).all() and not np.isnan(found.mean).any()
            selected = select(found, SelectionSettings(method="naive", ensemble=ensemble))
            assert selected.counts["none"] == 2 and selected.counts["candidates"] == 0
