"""The random teacher: uniform, and the same whatever else is asked."""

import numpy as np
import pytest

from embedsmith.errors import InputError
from embedsmith.teachers.chance import Chance

QUERIES = ["red cat", "sort", "red cat", "\ud800"]


def matrix(teacher: Chance, queries: list[str], passages: int) -> np.ndarray:
    return teacher.scores(queries, np.tile(np.arange(passages), (len(queries), 1)))


def test_search_scores_and_moments_agree():
    teacher = Chance(200, seed=3)
    table = matrix(teacher, QUERIES, 200)
    rows, scores = teacher.search(QUERIES, 7)
    np.testing.assert_array_equal(rows, np.argsort(-table, axis=1, kind="stable")[:, :7])
    np.testing.assert_array_equal(scores, np.take_along_axis(table, rows, axis=1))
    mean, deviation = teacher.moments(QUERIES)
    np.testing.assert_allclose(mean, table.astype(np.float64).mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(deviation, table.astype(np.float64).std(axis=1), rtol=1e-6)


def test_a_score_depends_on_seed_query_and_row_and_on_nothing_else():
    teacher = Chance(50, seed=0)
    table = matrix(teacher, QUERIES, 50)
    np.testing.assert_array_equal(table[0], table[2])
    np.testing.assert_array_equal(table[1:2], matrix(Chance(80, seed=0), QUERIES[1:2], 50))
    assert (table[0] != table[1]).any()
    assert (table != matrix(Chance(50, seed=1), QUERIES, 50)).any()


def test_scores_are_uniform_and_do_not_follow_the_row():
    table = matrix(Chance(1000, seed=0), [f"query {i}" for i in range(100)], 1000)
    assert table.min() >= 0 and table.max() < 1
    shares = np.histogram(table, bins=20, range=(0, 1))[0] / table.size
    np.testing.assert_allclose(shares, 0.05, atol=0.003)
    np.testing.assert_allclose(table.mean(axis=0).std(), np.sqrt(1 / 12 / 100), rtol=0.1)
    neighbours = np.corrcoef(table[:, :-1].ravel(), table[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.01


def test_more_passages_than_there_are_give_all_of_them():
    rows, _ = Chance(3, seed=0).search(["a"], 10)
    assert sorted(rows[0]) == [0, 1, 2]


def test_no_passages_are_refused():
    with pytest.raises(InputError, match="no passages to choose from"):
        Chance(0, seed=0)
