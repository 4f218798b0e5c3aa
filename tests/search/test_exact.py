"""Exact search against a stable sort of all scores."""

import tracemalloc

import numpy as np
import pytest

from embedsmith.errors import InputError
from embedsmith.search.exact import scores_of, top_k


def slow_top_k(queries, passages, k):
    scores = queries @ np.asarray(passages, np.float32).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def small_integers(seed, shape):
    """Vectors whose products are exact in float32, whatever the order of addition, and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, 60, 61, 200])
@pytest.mark.parametrize("shard_sizes", [[60], [1] * 60, [7] * 8 + [4], [59, 1], [20, 0, 40]], ids=str)
@pytest.mark.parametrize("memory_gib", [0.0, 1e-5, 1.0])
def test_rows_and_scores_equal_a_stable_sort_with_many_ties(k, shard_sizes, memory_gib):
    queries, passages = small_integers(0, (9, 5)), small_integers(1, (60, 5))
    shards = np.split(passages, np.cumsum(shard_sizes)[:-1])
    rows, scores = top_k(queries, shards, k=k, memory_gib=memory_gib)
    wanted_rows, wanted_scores = slow_top_k(queries, passages, k)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)
    assert rows.dtype == np.int64 and scores.dtype == np.float32


def test_more_queries_than_a_block_holds_are_all_answered():
    queries, passages = small_integers(0, (1100, 4)), small_integers(1, (50, 4))
    rows, scores = top_k(queries, passages, k=5, memory_gib=2e-4)
    wanted_rows, wanted_scores = slow_top_k(queries, passages, 5)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_scores_of_every_size_and_sign_come_back_bit_for_bit():
    passages = np.array([-3e38, -1.5, -1e-42, -0.0, 0.0, 1e-42, 1.5, 3e38], np.float32)[:, None]
    rows, scores = top_k(np.ones((1, 1), np.float32), passages, k=8)
    assert rows[0].tolist() == [7, 6, 5, 3, 4, 2, 1, 0]
    np.testing.assert_array_equal(scores[0], passages[rows[0], 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_shards_may_be_memory_maps(tmp_path, dtype):
    queries, passages = small_integers(0, (3, 5)), small_integers(1, (20, 5))
    for i, shard in enumerate(np.split(passages, [6, 13])):
        np.save(tmp_path / f"{i}.npy", shard.astype(dtype))
    shards = (np.load(tmp_path / f"{i}.npy", mmap_mode="r") for i in range(3))
    rows, scores = top_k(queries, shards, k=20)
    wanted_rows, wanted_scores = slow_top_k(queries, passages, 20)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)


def test_memory_stays_within_its_bound():
    queries, passages = small_integers(0, (300, 8)), small_integers(1, (40_000, 8))  # 24 MB of scores even in bfloat16
    top_k(queries[:1], passages[:1], k=1)  # torch and numpy get ready
    tracemalloc.start()
    top_k(queries, passages, k=10, memory_gib=2**-8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_no_queries_give_no_rows():
    rows, scores = top_k(np.empty((0, 5), np.float32), small_integers(1, (6, 5)), k=2)
    assert rows.shape == scores.shape == (0, 2)


def test_progress_counts_the_passages():
    seen = []
    shards = [small_integers(0, (4, 2)), small_integers(1, (3, 2))]
    top_k(shards[0], shards, k=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 7), (7, 7)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(value):
    good = np.ones((3, 2), np.float32)
    bad = good.copy()
    bad[1, 1] = value
    with pytest.raises(InputError, match="a passage vector among rows 3 to 5 is not finite"):
        top_k(good, [good, bad], k=1)
    with pytest.raises(InputError, match="the vector of query row 1 is not finite"):
        top_k(bad, good, k=1)


def test_queries_of_another_model_are_refused():
    with pytest.raises(InputError, match="queries have 3 dimensions, passages 2"):
        top_k(np.ones((1, 3), np.float32), np.ones((4, 2), np.float32), k=1)


@pytest.mark.parametrize("passages", [[], np.empty((0, 2), np.float32)], ids=["no shards", "an empty shard"])
def test_no_passages_are_refused(passages):
    with pytest.raises(InputError, match="no passages to search"):
        top_k(np.ones((1, 2), np.float32), passages, k=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_scores_of_given_rows_equal_the_products(dtype):
    queries, passages = small_integers(0, (9, 5)), small_integers(1, (60, 5)).astype(dtype)
    rows = np.random.default_rng(2).integers(0, 60, (9, 11))
    wanted = np.take_along_axis(queries @ passages.astype(np.float32).T, rows, axis=1)
    for given in (passages, np.split(passages, [1, 20, 20])):
        scores = scores_of(queries, given, rows)
        np.testing.assert_array_equal(scores, wanted)
        assert scores.dtype == np.float32


def test_a_row_that_does_not_exist_is_refused():
    vectors = np.ones((2, 2), np.float32)
    with pytest.raises(AssertionError, match=r"rows must be in \[0, 2\)"):
        scores_of(vectors, vectors, np.array([[0], [-1]]))
