"""A teacher's name is all that it takes to open it."""

import numpy as np
import pytest

from embedsmith.data.ties import NO_PASSAGE
from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers import named
from embedsmith.teachers.bm25 import BM25, BM25Settings
from embedsmith.teachers.named import Teacher, open_teacher
from embedsmith.teachers.settings import TeacherSettings

PASSAGES = ["the cat sat on the mat", "a red apple", "the dog ate the red pear", "how to sort a list"]
QUERIES = ["red cat", "sort"]
FLOAT32 = TeacherSettings(dtype="float32")


def test_bm25_ranks_as_the_index_does_and_writes_nothing(tmp_path):
    teacher = open_teacher("bm25", PASSAGES, vectors=tmp_path / "vectors")
    index = BM25(PASSAGES, BM25Settings())
    assert teacher.name == "bm25"
    for got, right in zip(teacher.search(QUERIES, 3), index.search(QUERIES, 3), strict=True):
        np.testing.assert_array_equal(got, right)
    rows = np.array([[0, 3], [3, 1]])
    np.testing.assert_array_equal(teacher.scores(QUERIES, rows), index.scores(QUERIES, rows))
    assert not (tmp_path / "vectors").exists()


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "model"
    build_student(StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="mean")).save(str(path))
    return path


def test_a_folder_is_a_dense_teacher_called_by_the_name_given(folder, tmp_path):
    teacher = open_teacher(str(folder), PASSAGES, vectors=tmp_path / "vectors", settings=FLOAT32, device="cpu")
    assert teacher.name == str(folder)
    rows, scores = teacher.search(PASSAGES, 4)
    assert rows[:, 0].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-5)
    np.testing.assert_allclose(teacher.scores(PASSAGES, rows), scores, atol=1e-6)


def test_a_text_is_read_up_to_max_tokens(folder, tmp_path):
    texts = ["the cat sat on the mat", "the cat sat on the log"]

    def scores(max_tokens):
        settings = TeacherSettings(dtype="float32", max_tokens=max_tokens)
        teacher = open_teacher(str(folder), texts, vectors=tmp_path, settings=settings, device="cpu")
        return teacher.scores(texts[:1], np.array([[0, 1]]))[0]

    np.testing.assert_allclose(scores(3), [1, 1], atol=1e-5)
    assert scores(None)[1] < 0.999


def test_more_tokens_than_the_model_has_positions_is_an_error(folder, tmp_path):
    with pytest.raises(SettingsError, match="129 tokens, but the model ends at 128"):
        open_teacher(str(folder), PASSAGES, vectors=tmp_path, settings=TeacherSettings(max_tokens=129))


def test_the_settings_of_bm25_reach_the_index(tmp_path):
    passages = ["the sorted list", "a dog"]
    settings = TeacherSettings(bm25_stemmer="english", bm25_stop_words="none")
    stemmed = open_teacher("bm25", passages, vectors=tmp_path, settings=settings)
    plain = open_teacher("bm25", passages, vectors=tmp_path)
    some = np.array([[0, 1]])
    assert stemmed.scores(["sorting"], some)[0, 0] > 0 == plain.scores(["sorting"], some)[0, 0]
    assert stemmed.scores(["the"], some)[0, 0] > 0 == plain.scores(["the"], some)[0, 0]


def test_a_prompt_of_the_settings_stands_before_every_text(folder, tmp_path):
    plain = open_teacher(str(folder), ["list: a b", "a b"], vectors=tmp_path, settings=FLOAT32, device="cpu")
    settings = TeacherSettings(dtype="float32", query_prompt="find: ", passage_prompt="list: ")
    prompted = open_teacher(str(folder), ["a b"], vectors=tmp_path, settings=settings, device="cpu")
    expected = plain.scores(["find: b"], np.array([[0, 1]]))[0]
    assert abs(expected[0] - expected[1]) > 1e-3
    np.testing.assert_allclose(prompted.scores(["b"], np.array([[0]]))[0, 0], expected[0], atol=1e-5)


@pytest.mark.parametrize("name", ["bm25", "random", "a folder"])
def test_a_teacher_that_proposes_answers_every_question(name, folder, tmp_path):
    name = str(folder) if name == "a folder" else name
    passages = tuple(PASSAGES)  # any sequence will do
    teacher = open_teacher(name, passages, vectors=tmp_path, settings=FLOAT32, device="cpu")
    assert isinstance(teacher, Teacher) and teacher.proposes and teacher.name == name
    every = np.tile(np.arange(4), (2, 1))
    all_scores = teacher.scores(QUERIES, every).astype(np.float64)
    rows, scores = teacher.search(QUERIES, 4)
    found = rows != NO_PASSAGE
    assert found.all() == (name != "bm25")  # which finds what shares a word
    np.testing.assert_allclose(scores[found], np.take_along_axis(all_scores, rows, axis=1)[found], atol=1e-6)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    mean, deviation = teacher.moments(QUERIES)
    np.testing.assert_allclose(mean, all_scores.mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(deviation, all_scores.std(axis=1), atol=1e-5)


def test_several_gpus_are_used_unless_one_is_named(monkeypatch):
    monkeypatch.setattr("embedsmith.models.devices.has_cuda", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert named._devices(None) == ["cuda:0", "cuda:1"]
    assert named._devices("cuda:1") == named._devices("cpu") == []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert named._devices(None) == []


def test_a_teacher_that_does_not_exist_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        open_teacher(str(tmp_path / "nowhere"), PASSAGES, vectors=tmp_path)
