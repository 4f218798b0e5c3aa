"""A teacher's name is all that it takes to open it."""

import numpy as np
import pytest

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.settings import StudentSettings
from embedsmith.models.student import build_student
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.named import open_teacher

PASSAGES = ["the cat sat on the mat", "a red apple", "the dog ate the red pear", "how to sort a list"]
QUERIES = ["red cat", "sort"]


def test_bm25_ranks_as_the_index_does_and_writes_nothing(tmp_path):
    teacher = open_teacher("bm25", PASSAGES, vectors=tmp_path / "vectors")
    index = BM25(PASSAGES, BM25Settings())
    assert teacher.name == "bm25"
    for got, right in zip(teacher.search(QUERIES, 3), index.search(QUERIES, 3), strict=True):
        np.testing.assert_array_equal(got, right)
    rows = np.array([[0, 3], [3, 1]])
    expected = [index.scores(query, some) for query, some in zip(QUERIES, rows, strict=True)]
    np.testing.assert_array_equal(teacher.scores(QUERIES, rows), expected)
    assert not (tmp_path / "vectors").exists()


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model"
    build_student(StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="mean")).save(str(path))
    return path


def test_a_folder_is_a_dense_teacher_called_by_the_name_given(folder, tmp_path):
    teacher = open_teacher(str(folder), PASSAGES, vectors=tmp_path / "vectors", dtype="float32", device="cpu")
    assert teacher.name == str(folder)
    rows, scores = teacher.search(PASSAGES, 4)
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(teacher.scores(PASSAGES, rows), scores, atol=1e-6)


def test_a_text_is_read_up_to_max_tokens(folder, tmp_path):
    texts = ["the cat sat on the mat", "the cat sat on the log"]

    def scores(max_tokens):
        teacher = open_teacher(
            str(folder), texts, vectors=tmp_path, dtype="float32", max_tokens=max_tokens, device="cpu"
        )
        return teacher.scores(texts[:1], np.array([[0, 1]]))[0]

    np.testing.assert_allclose(scores(3), [1, 1], atol=1e-5)
    assert scores(None)[1] < 0.999


def test_more_tokens_than_the_model_has_positions_is_an_error(folder, tmp_path):
    with pytest.raises(SettingsError, match="129 tokens, but the model ends at 128"):
        open_teacher(str(folder), PASSAGES, vectors=tmp_path, max_tokens=129)


def test_a_teacher_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        open_teacher(str(tmp_path / "nowhere"), PASSAGES, vectors=tmp_path)
