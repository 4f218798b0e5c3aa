"""Approximate search: an honest recall, exact scores, and the exact result where the index leaves nothing out."""

import sys

import numpy as np
import pytest

from embedsmith.errors import InputError, SettingsError
from embedsmith.topk.approximate import ApproximateIndex, ApproximateSettings
from embedsmith.topk.exact import scores_of, top_k

pytest.importorskip("faiss")


def unit_vectors(seed, count, dimensions=16):
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


QUERIES, PASSAGES = unit_vectors(0, 50), unit_vectors(1, 4000)
THOROUGH = {"ivf": {"probes": 1000}, "hnsw": {"effort": 4000}}
HASTY = {"ivf": {"probes": 1}, "hnsw": {"effort": 1, "links": 2}}


@pytest.mark.slow
@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_a_thorough_index_finds_what_the_exact_search_finds(index):
    found = ApproximateIndex(PASSAGES, ApproximateSettings(index=index, **THOROUGH[index])).search(QUERIES, 10)
    rows, scores = top_k(QUERIES, PASSAGES, k=10)
    assert found.recall == 1
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.scores, scores)


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_the_recall_of_a_hasty_index_is_what_a_count_by_hand_gives(index):
    settings = ApproximateSettings(index=index, sample=50, **HASTY[index])
    found = ApproximateIndex(np.split(PASSAGES, [1, 1000]), settings).search(QUERIES, 10)
    exact, _ = top_k(QUERIES, PASSAGES, k=10)
    by_hand = np.mean(
        [len({*one} & {*other}) / 10 for one, other in zip(found.rows.tolist(), exact.tolist(), strict=True)]
    )
    assert found.recall == pytest.approx(by_hand)
    assert 0 < found.recall < 1
    there = found.rows >= 0
    products = scores_of(QUERIES, PASSAGES, np.maximum(found.rows, 0))
    np.testing.assert_array_equal(found.scores[there], products[there])
    assert np.isneginf(found.scores[~there]).all()
    assert (np.diff(np.where(there, found.scores, -2), axis=1) <= 0).all()


def test_two_searches_find_the_same():
    first, second = (ApproximateIndex(PASSAGES).search(QUERIES, 10) for _ in range(2))
    np.testing.assert_array_equal(first.rows, second.rows)
    assert first.recall == second.recall


def test_a_handful_of_passages_is_searched_all_the_same():
    found = ApproximateIndex(PASSAGES[:3]).search(QUERIES, 10)
    np.testing.assert_array_equal(found.rows, top_k(QUERIES, PASSAGES[:3], k=10)[0])


def test_without_faiss_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingsError, match="approximate search needs the package faiss") as raised:
        ApproximateIndex(PASSAGES).search(QUERIES, 10)
    assert raised.value.hint == 'pip install "embedsmith[faiss]"'


def test_passages_of_another_model_are_refused():
    with pytest.raises(InputError, match="queries have 16 dimensions, passages 8"):
        ApproximateIndex(PASSAGES[:, :8]).search(QUERIES, 10)
