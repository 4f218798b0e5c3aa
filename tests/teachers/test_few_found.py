"""A search that finds fewer passages than it was asked for: what is missing is never taken for a passage."""

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.data.ties import NO_PASSAGE
from embedsmith.evaluation.retrieval import evaluate_retrieval, rank
from embedsmith.mining.candidates import mine_candidates
from embedsmith.mining.selection import select
from embedsmith.mining.settings import SelectionSettings
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.dense import DenseTeacher
from embedsmith.topk.approximate import ApproximateIndex, ApproximateSettings

COUNT, DEPTH = 400, 200


class NumberEncoder:
    """A model whose vectors are drawn by the number that a text ends with."""

    def embed(self, texts, role, *, tokens=None, on_done=None):
        vectors = np.stack([np.random.default_rng(int(text.split()[-1])).standard_normal(8) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def embed_each(self, lists, role, *, tokens=None, on_done=None):
        for texts in lists:
            yield self.embed(texts, role)

    def contracts(self):
        return {"query": {"role": "query"}, "passage": {"role": "passage"}}

    def spread(self, devices):
        raise AssertionError("one device is enough")


class Rescorer:
    """Scores a passage by its row, and refuses one that is not there."""

    name, proposes, contract = "rows", False, {}

    def search(self, queries, k):
        raise AssertionError("it does not search")

    def moments(self, queries):
        raise AssertionError("it has not seen the corpus")

    def scores(self, queries, rows):
        assert rows.min() >= 0 and rows.max() < COUNT
        return rows.astype(np.float32)

    def similarities(self, rows, others):
        return None

    def vectors_of(self, queries):
        return None


@pytest.fixture(scope="module")
def data() -> Collection:
    return Collection.of(
        name="few",
        passage_ids=[f"d{n}" for n in range(COUNT)],
        passages=[f"passage {n}" for n in range(COUNT)],
        query_ids=[f"q{n}" for n in range(20)],
        queries=[f"query {n}" for n in range(20)],
        qrels={f"q{n}": {f"d{n}": 1} for n in range(20)},
    )


@pytest.fixture(params=["ivf", "hnsw", "bm25"])
def teacher(request, data, tmp_path, monkeypatch):
    """Teachers that find a few passages only: one list of ten, a graph hardly walked, those that share a word."""
    if request.param == "bm25":
        return BM25(data.passages, BM25Settings(), ties=data.ties)
    pytest.importorskip("faiss")
    hasty = ApproximateSettings(index=request.param, probes=1, effort=1, links=2)
    monkeypatch.setattr(
        "embedsmith.teachers.dense.ApproximateIndex", lambda shards, settings: ApproximateIndex(shards, hasty)
    )
    return DenseTeacher(
        NumberEncoder(), data.passages, name="few", folder=tmp_path, search=request.param, ties=data.ties
    )


def test_gaps_stand_behind_what_was_found(teacher, data):
    rows, scores = teacher.search(data.queries, DEPTH)
    gaps = rows == NO_PASSAGE
    assert gaps.any() and not gaps.all()
    assert (np.diff(gaps, axis=1) >= 0).all() and np.isneginf(scores[gaps]).all()
    found = np.where(gaps, 0, rows)
    np.testing.assert_array_equal(scores[~gaps], teacher.scores(data.queries, found)[~gaps])


def test_rankings_hold_what_was_found_and_nothing_else(teacher, data):
    rows, _ = teacher.search(data.queries, DEPTH)
    found = [{f"d{row}" for row in own.tolist() if row != NO_PASSAGE} for own in rows]
    for ranking in (rank(teacher, data, depth=DEPTH), rank(Rescorer(), data, depth=DEPTH, first_stage=teacher)):
        assert [{passage for passage, _ in ranking[query]} for query in data.query_ids] == found
    scores = evaluate_retrieval(teacher, data, ["recall@100"], depth=100)
    assert scores.mean["recall@100"] == pytest.approx(np.mean([f"d{n}" in found[n] for n in range(20)]))


def test_negatives_are_among_what_was_found(teacher, data):
    rows, _ = teacher.search(data.queries, DEPTH)
    for teachers in ([teacher], [teacher, Rescorer()]):
        mined = mine_candidates(teachers, data, depth=DEPTH)
        for query in range(20):
            own = mined.rows[query][mined.rows[query] != NO_PASSAGE]
            assert {*own.tolist()} == {*rows[query].tolist()} - {NO_PASSAGE}
        selected = select(mined, SelectionSettings(method="naive", negatives=150))
        for query in range(20):
            taken = {*selected.rows[query].tolist()} - {NO_PASSAGE}
            assert taken <= {*rows[query].tolist()} - {query}
        assert selected.counts["negatives"] == int((rows != NO_PASSAGE).sum()) - int(
            (rows == np.arange(20)[:, None]).sum()
        )
