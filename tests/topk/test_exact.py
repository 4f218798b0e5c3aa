"""Exact search against a stable sort of all scores."""

import itertools
import tracemalloc

import numpy as np
import pytest
import torch

from embedsmith.errors import InputError
from embedsmith.topk import exact
from embedsmith.topk.exact import scores_of, top_k


def slow_top_k(queries, passages, k):
    scores = queries @ np.asarray(passages, np.float32).T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def small_integers(seed, shape):
    """Vectors whose products are exact in float32, whatever the order of addition, and tie often."""
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, 7, 60, 61, 200])
@pytest.mark.parametrize("shard_sizes", [[60], [1] * 60, [7] * 8 + [4], [59, 1], [20, 0, 40]], ids=str)
@pytest.mark.parametrize(("memory_gib", "count"), [(0.0, 2), (1e-5, 9), (1.0, 9)])
def test_rows_and_scores_equal_a_stable_sort_with_many_ties(k, shard_sizes, memory_gib, count):
    queries, passages = small_integers(0, (count, 5)), small_integers(1, (60, 5))
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


def most_bytes_of_torch(work) -> int:
    """Return the most bytes that torch had allocated at once during some work; tracemalloc sees numpy's only."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = profile.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


def test_memory_stays_within_its_bound():
    queries, passages = small_integers(0, (300, 8)), small_integers(1, (40_000, 8))  # 24 MB of scores even in bfloat16
    top_k(queries[:1], passages[:1], k=1)  # torch and numpy get ready
    of_torch = most_bytes_of_torch(lambda: top_k(queries, passages, k=10, memory_gib=2**-8))
    tracemalloc.start()  # not within the profile, whose own objects would count
    top_k(queries, passages, k=10, memory_gib=2**-8)
    of_numpy = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert of_torch > 0
    assert of_torch + of_numpy < 2**22
    assert most_bytes_of_torch(lambda: top_k(queries, passages, k=10, memory_gib=1.0)) > 2**22


def test_no_queries_give_no_rows():
    rows, scores = top_k(np.empty((0, 5), np.float32), small_integers(1, (6, 5)), k=2)
    assert rows.shape == scores.shape == (0, 2)


def test_progress_counts_the_passages_after_each_block_and_a_block_may_span_shards(monkeypatch):
    monkeypatch.setitem(exact._PASSAGES, True, 5)
    seen = []
    shards = [small_integers(0, (4, 2)), small_integers(1, (3, 2))]
    top_k(shards[0], shards, k=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 7), (7, 7)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(value):
    good = np.ones((3, 2), np.float32)
    bad = good.copy()
    bad[1, 1] = value
    with pytest.raises(InputError, match="the vector of passage row 4 is not finite"):
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


def unit_vectors(seed, count, dimensions=24):
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def true_scores(queries, passages):
    """The products that float64 gives, rounded once."""
    return (queries.astype(np.float64) @ passages.astype(np.float64).T).astype(np.float32)


@pytest.mark.usefixtures("bfloat16_or_not")
class TestTheTwoPasses:
    """The first pass is rough; what comes out is not."""

    @pytest.mark.parametrize("k", [1, 10, 100])
    @pytest.mark.parametrize(("memory_gib", "count"), [(1e-5, 150), (1e-3, 3000), (1.0, 3000)])
    def test_rows_and_scores_are_those_of_float64(self, k, memory_gib, count):
        queries, passages = unit_vectors(0, 50), unit_vectors(1, count)
        rows, scores = top_k(queries, passages, k=k, memory_gib=memory_gib)
        wanted = true_scores(queries, passages)
        wanted_rows = np.argsort(-wanted, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(rows, wanted_rows)
        np.testing.assert_array_equal(scores, np.take_along_axis(wanted, wanted_rows, axis=1))

    def test_passages_closer_together_than_bfloat16_can_tell_are_told_apart(self):
        queries = unit_vectors(0, 20)
        # A thousand copies of each query, a hair apart: every one of them has the same rough score.
        noise = np.random.default_rng(1).standard_normal((20, 1000, 24)).astype(np.float32) * 1e-5
        passages = (queries[:, None] + noise).reshape(-1, 24)
        rows, scores = top_k(queries, passages, k=10, memory_gib=1e-3)
        wanted = true_scores(queries, passages)
        wanted_rows = np.argsort(-wanted, axis=1, kind="stable")[:, :10]
        np.testing.assert_array_equal(rows, wanted_rows)
        np.testing.assert_array_equal(scores, np.take_along_axis(wanted, wanted_rows, axis=1))

    @pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e3, 1e18, 1e25])
    def test_the_scale_of_the_vectors_does_not_matter(self, scale):
        queries, passages = unit_vectors(0, 5), unit_vectors(1, 500)
        scaled = passages * np.float32(scale)
        rows, _ = top_k(queries * np.float32(scale if scale <= 1e18 else 1), scaled, k=7, memory_gib=1e-4)
        wanted = queries.astype(np.float64) @ scaled.astype(np.float64).T
        np.testing.assert_array_equal(rows, np.argsort(-wanted, axis=1)[:, :7])

    @pytest.mark.parametrize("k", [1, 5, 300])
    def test_passages_that_only_get_better_or_worse_are_all_seen(self, k):
        rising = np.linspace(-1, 1, 2000, dtype=np.float32)[:, None]
        queries = np.array([[1.0], [-1.0]], np.float32)
        rows, _ = top_k(queries, rising, k=k, memory_gib=1e-4)
        np.testing.assert_array_equal(rows, [np.arange(1999, 1999 - k, -1), np.arange(k)])

    def test_the_scores_of_given_rows_are_bit_for_bit_those_of_the_search(self):
        queries, passages = unit_vectors(0, 30), unit_vectors(1, 700)
        rows, scores = top_k(queries, passages, k=20)
        np.testing.assert_array_equal(scores_of(queries, np.split(passages, [1, 300]), rows), scores)


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kth_best_rough_product_is_found_whatever_its_sign(shift, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    rough = (torch.randn(50, 400, generator=torch.Generator().manual_seed(0)) + shift).bfloat16()
    wanted = rough.float().sort(dim=1, descending=True).values
    for k in (1, 30, 399):
        assert torch.equal(exact._kth_best(rough, k), wanted[:, k - 1])


def test_queries_whose_best_passages_do_not_fit_the_memory_are_searched_in_groups():
    queries, passages = small_integers(0, (40, 4)), small_integers(1, (50, 4))
    seen = []
    memory = 10 * 5 * 4 * exact._BYTES_PER_KEY / 2**30  # of 10 queries
    rows, scores = top_k(queries, passages, k=5, memory_gib=memory, on_progress=lambda *done: seen.append(done))
    assert [done for done in seen if done[0] % 50 == 0] == [(50, 200), (100, 200), (150, 200), (200, 200)]
    wanted_rows, wanted_scores = slow_top_k(queries, passages, 5)
    np.testing.assert_array_equal(rows, wanted_rows)
    np.testing.assert_array_equal(scores, wanted_scores)
