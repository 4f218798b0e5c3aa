"""The joined teacher against NumPy's own singular value decomposition."""

from __future__ import annotations

import numpy as np
import pytest

from embedsmith.errors import SettingsError
from embedsmith.teachers.joined import JoinedTeacher
from embedsmith.teachers.named import Teacher


class VectorTeacher(Teacher):
    """A teacher that is two tables: vectors of passages, in shards, and of the queries "0", "1"…"""

    proposes = True

    def __init__(self, name: str, passages: np.ndarray, queries: np.ndarray):
        self.name, self.contract = name, {"table": name}
        self.passages, self.queries = _unit(passages), _unit(queries)

    def search(self, queries, k):
        raise AssertionError("the joined teacher searches itself")

    def scores(self, queries, rows):
        raise AssertionError("the joined teacher scores itself")

    def moments(self, queries):
        raise AssertionError("the joined teacher knows its own")

    def similarities(self, rows, others):
        return None

    def vectors_of(self, queries):
        return self.queries[[int(query) for query in queries]], [self.passages[:7], self.passages[7:]]


class WordTeacher(VectorTeacher):
    """A teacher without vectors."""

    def vectors_of(self, queries):
        return None


def _unit(table: np.ndarray) -> np.ndarray:
    return (table / np.linalg.norm(table, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def teachers() -> list[Teacher]:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 9))
    noise = 0.05 * rng.standard_normal((40, 9))
    return [
        VectorTeacher("one", mixed + noise, rng.standard_normal((4, 9))),
        WordTeacher("words", np.ones((1, 1)), np.ones((1, 1))),
        VectorTeacher("two", rng.standard_normal((40, 5)), rng.standard_normal((4, 5))),
    ]


def by_hand(teachers: list[Teacher], variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the reduced vectors of queries and passages, by a singular value decomposition."""
    passages = np.concatenate([teachers[0].passages, teachers[2].passages], axis=1).astype(np.float64)
    queries = np.concatenate([teachers[0].queries, teachers[2].queries], axis=1).astype(np.float64)
    centre = passages.mean(axis=0)
    _, sizes, axes = np.linalg.svd(passages - centre, full_matrices=False)
    share = np.cumsum(sizes**2) / (sizes**2).sum()
    kept = axes[: int(np.searchsorted(share, variance)) + 1].T
    return _unit((queries - centre) @ kept), _unit((passages - centre) @ kept)


QUERIES = ["0", "1", "2", "3"]


@pytest.mark.parametrize("variance", [0.5, 0.95])
def test_scores_are_cosines_of_the_principal_components(teachers, variance, tmp_path):
    joined = JoinedTeacher(teachers, name="pca", variance=variance, folder=tmp_path)
    queries, passages = by_hand(teachers, variance)
    cosines = queries @ passages.T
    rows, scores = joined.search(QUERIES, 40)
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1), atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), scores, atol=1e-5)
    some = np.array([[3, 1], [0, 39], [5, 5], [7, 8]])
    np.testing.assert_allclose(joined.scores(QUERIES, some), np.take_along_axis(cosines, some, axis=1), atol=1e-5)
    mean, deviation = joined.moments(QUERIES)
    np.testing.assert_allclose(mean, cosines.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(deviation, cosines.std(axis=1), atol=1e-5)
    near = joined.similarities(np.array([4, 9]), np.array([[1, 4, 2], [9, 0, 3]]))
    expected = [[passages[4] @ passages[i] for i in (1, 4, 2)], [passages[9] @ passages[i] for i in (9, 0, 3)]]
    np.testing.assert_allclose(near, expected, atol=1e-5)


def test_another_order_of_the_same_passages_is_another_file(teachers, tmp_path):
    JoinedTeacher(teachers, name="pca", variance=0.9, folder=tmp_path)
    JoinedTeacher(teachers, name="pca", variance=0.9, folder=tmp_path)
    assert len(list(tmp_path.glob("joined-*.npy"))) == 1
    for teacher in (teachers[0], teachers[2]):
        teacher.passages = teacher.passages[::-1].copy()
    turned = JoinedTeacher(teachers, name="pca", variance=0.9, folder=tmp_path)
    assert len(list(tmp_path.glob("joined-*.npy"))) == 2
    queries, passages = by_hand(teachers, 0.9)
    _, scores = turned.search(QUERIES, 40)
    np.testing.assert_allclose(scores, -np.sort(-(queries @ passages.T), axis=1), atol=1e-5)


def test_teachers_without_vectors_cannot_be_joined(teachers, tmp_path):
    with pytest.raises(SettingsError, match=r"ensemble: pca: none of the teachers has vectors \(words\)"):
        JoinedTeacher(teachers[1:2], name="pca", variance=0.9, folder=tmp_path)
