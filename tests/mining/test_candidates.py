"""Candidates: what a teacher is asked, and a file that gives back every number or one clear error."""

import numpy as np
import pytest

from embedsmith.data.collection import Collection
from embedsmith.errors import InputError
from embedsmith.mining.candidates import NO_PASSAGE, Candidates, mine_candidates, read_candidates, write_candidates
from embedsmith.teachers.named import Teacher


class TableTeacher(Teacher):
    """A teacher whose scores are written down."""

    name = "table"
    proposes = True

    def __init__(self, table):
        self.table = np.array(table, np.float32)

    def search(self, queries, k):
        rows = np.argsort(-self.table, axis=1, kind="stable")[:, :k]
        return rows, np.take_along_axis(self.table, rows, axis=1)

    def scores(self, queries, rows):
        return np.take_along_axis(self.table, rows, axis=1)


@pytest.fixture
def mined() -> Candidates:
    collection = Collection.of(
        name="toy",
        passage_ids=["d1", "d2", "d3"],
        passages=["a", "b", "c"],
        query_ids=["q1", "q2"],
        queries=["?", "!"],
        qrels={"q1": {"d3": 1, "d1": 2, "d2": 0}, "q2": {"d2": 1}},
    )
    return mine_candidates(TableTeacher([[0.1, 0.5, 0.3], [-0.2, -0.4, -0.1]]), collection, depth=2)


def test_each_query_has_its_best_passages_and_the_scores_of_all_its_positives(mined):
    assert mined.teacher == "table"
    assert mined.rows.tolist() == [[1, 2], [2, 0]]
    np.testing.assert_array_equal(mined.scores, np.array([[0.5, 0.3], [-0.1, -0.2]], np.float32))
    assert mined.positive_rows.tolist() == [[0, 2], [1, NO_PASSAGE]]
    np.testing.assert_array_equal(mined.positive_scores, np.array([[0.1, 0.3], [-0.4, np.nan]], np.float32))
    np.testing.assert_array_equal(mined.lowest_positive, np.array([0.1, -0.4], np.float32))


def test_a_file_gives_back_every_number(mined, tmp_path):
    write_candidates(tmp_path / "candidates.npz", mined)
    again = read_candidates(tmp_path / "candidates.npz")
    assert again.teacher == mined.teacher
    for name in ("rows", "scores", "positive_rows", "positive_scores"):
        assert getattr(again, name).dtype == getattr(mined, name).dtype
        np.testing.assert_array_equal(getattr(again, name), getattr(mined, name))


def test_the_same_candidates_are_the_same_bytes(mined, tmp_path):
    for name in ("one.npz", "other.npz"):
        write_candidates(tmp_path / name, mined)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 500, -300, -22, -1])
def test_a_truncated_file_is_one_clear_error(mined, tmp_path, kept):
    path = tmp_path / "candidates.npz"
    write_candidates(path, mined)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"candidates\.npz: not a whole file of candidates") as caught:
        read_candidates(path)
    assert caught.value.hint == "mine again"


def test_a_missing_file_is_one_clear_error(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.npz: not a whole file of candidates"):
        read_candidates(tmp_path / "nowhere.npz")


def test_a_flipped_byte_is_one_clear_error(mined, tmp_path):
    path = tmp_path / "candidates.npz"
    write_candidates(path, mined)
    damaged = bytearray(path.read_bytes())
    place = bytes(damaged).index(mined.scores.tobytes())
    damaged[place] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="not a whole file of candidates"):
        read_candidates(path)


@pytest.mark.parametrize("content", ["array", "other names", "objects"])
def test_a_file_of_another_kind_is_one_clear_error(tmp_path, content):
    path = tmp_path / "candidates.npz"
    with open(path, "wb") as file:
        if content == "array":
            np.save(file, np.zeros(3))
        elif content == "other names":
            np.savez(file, teacher=np.array("x"), vectors=np.zeros(3))
        else:
            np.savez(file, teacher=np.array("x"), rows=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="not a whole file of candidates"):
        read_candidates(path)
