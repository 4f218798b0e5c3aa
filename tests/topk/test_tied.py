"""The best of an exact search with ties at the last place: against all scores, sorted by score and draw."""

import numpy as np
import pytest

from embedsmith.data.ties import Ties
from embedsmith.topk import tied
from embedsmith.topk.exact import top_k
from embedsmith.topk.tied import drawn_top_k

IDS = [f"d{row}" for row in range(300)]


def vectors_with_ties(kinds: int) -> tuple[np.ndarray, list[str]]:
    """300 passages of so many vectors; the texts of those alike are alike too, for one in three."""
    rng = np.random.default_rng(kinds)
    kind = rng.integers(kinds, size=300)
    texts = [f"text {kind[row]}" if row % 3 == 0 else f"text {kind[row]} of {row}" for row in range(300)]
    return rng.standard_normal((kinds, 6)).astype(np.float32)[kind], texts


@pytest.mark.parametrize("kinds", [1, 2, 7, 60])
@pytest.mark.parametrize("k", [1, 5, 40, 299, 300, 1000])
def test_the_best_are_those_of_all_scores_sorted_by_score_and_draw(kinds, k, monkeypatch):
    monkeypatch.setattr(tied, "_AT_ONCE", 200)  # several groups of queries
    vectors, texts = vectors_with_ties(kinds)
    asked = np.random.default_rng(9).standard_normal((11, 6)).astype(np.float32)
    queries, ties = [f"query {n}" for n in range(11)], Ties(texts, IDS)
    rows, scores = drawn_top_k(
        lambda some, k: top_k(asked[some], np.split(vectors, [10, 100]), k=k), queries, k, total=300, ties=ties
    )
    every, all_scores = top_k(asked, vectors, k=300)
    order = ties.order(queries, every, all_scores)[:, :k]
    np.testing.assert_array_equal(rows, np.take_along_axis(every, order, axis=1))
    np.testing.assert_array_equal(scores, np.take_along_axis(all_scores, order, axis=1))


def test_a_search_without_ties_is_made_once_and_one_wider():
    asked, found = [], np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)

    def search(some, k):
        asked.append((len(some), k))
        return top_k(found[some], found, k=k)

    ties = Ties([], [])  # not one draw is made
    rows, _ = drawn_top_k(search, ["q"] * 20, 10, total=300, ties=ties)
    assert asked == [(20, 11)]
    np.testing.assert_array_equal(rows, top_k(found[:20], found, k=10)[0])


def test_so_many_ties_that_they_are_not_all_looked_at_are_drawn_from_the_first(monkeypatch):
    monkeypatch.setattr(tied, "_WIDEST", 64)
    same = np.ones((300, 2), np.float32)
    texts = [str(row) for row in range(300)]
    rows, _ = drawn_top_k(
        lambda some, k: top_k(same[some], same, k=k), ["a", "b"], 10, total=300, ties=Ties(texts, IDS)
    )
    assert rows.max() < 64 and all(len({*own}) == 10 for own in rows.tolist())
    assert sorted(rows[0]) != sorted(rows[1])
