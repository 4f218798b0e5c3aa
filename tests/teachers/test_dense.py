"""The dense teacher against a matrix of all cosines, and its stores: encoded once, and never for another contract."""

import queue
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from embedsmith.models.embedder import EmbeddingModel
from embedsmith.models.opening import build_student, load
from embedsmith.models.settings import StudentSettings
from embedsmith.teachers.dense import DenseTeacher

PASSAGES = [
    f"{subject} {verb} the {thing}"
    for subject in ("cat", "dog", "log")
    for verb in ("sat on", "ate")
    for thing in ("mat", "pear", "plum")
]
PASSAGES += ["the cat sat on the mat and the dog sat on the log, " * 4, PASSAGES[3], "🙂"]
QUERIES = ["who sat on the mat", "10 apples", " the log"]


@pytest.fixture(scope="module")
def model(tiny_llama) -> EmbeddingModel:
    settings = StudentSettings(
        name=str(tiny_llama), attention="bidirectional", pooling="mean", instruction="Find it", passage_max_tokens=20
    )
    return build_student(settings, device="cpu")


def test_no_queries_have_no_vectors_and_leave_no_store(model, tmp_path):
    teacher = DenseTeacher(model, PASSAGES, name="one", folder=tmp_path)
    queries, passages = teacher.vectors_of([])
    assert queries.shape == (0, 32)
    assert sum(map(len, passages)) == len(PASSAGES)
    assert len(list(tmp_path.iterdir())) == 1


def all_cosines(model: EmbeddingModel) -> np.ndarray:
    """Return the cosine of every query with every passage, one text at a time."""
    queries = [model.encode_query([text])[0] for text in QUERIES]
    passages = [model.encode_document([text])[0] for text in PASSAGES]
    return np.array([[q @ p / np.linalg.norm(q) / np.linalg.norm(p) for p in passages] for q in queries])


def test_search_and_scores_equal_a_matrix_of_all_cosines(model, tmp_path):
    teacher = DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path)
    cosines = all_cosines(model)
    rows, scores = teacher.search(QUERIES, 7)
    assert teacher.name == "toy"
    np.testing.assert_allclose(scores, -np.sort(-cosines, axis=1)[:, :7], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, rows, axis=1), scores, atol=1e-5)
    some = np.array([[0, 5], [20, 3], [7, 7]])
    np.testing.assert_allclose(teacher.scores(QUERIES, some), np.take_along_axis(cosines, some, axis=1), atol=1e-5)
    np.testing.assert_allclose(teacher.vectors(QUERIES), model.embed(QUERIES, "query"), atol=1e-6)


def test_a_passage_that_occurs_twice_comes_in_passage_order(model, tmp_path):
    rows, scores = DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path).search([PASSAGES[3]], len(PASSAGES))
    order = rows[0].tolist()
    copy = len(PASSAGES) - 2
    assert order.index(copy) == order.index(3) + 1
    assert scores[0, order.index(copy)] == scores[0, order.index(3)]


def test_a_second_opening_encodes_nothing(model, tmp_path, encoded):
    first = DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path)
    expected = first.search(QUERIES, 5)
    assert sorted(set(encoded)) == ["passage", "query"]
    encoded.clear()
    first.search(QUERIES, 3)
    again = DenseTeacher(model, PASSAGES, name="another name of the same model", folder=tmp_path)
    found = again.search(QUERIES, 5)
    assert encoded == []
    for got, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(got, right)


def test_a_model_opened_from_its_folder_uses_the_vectors_of_the_one_that_was_saved(model, tmp_path, encoded):
    DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path / "vectors").search(QUERIES, 5)
    model.save(str(tmp_path / "model"))
    encoded.clear()
    again = load(str(tmp_path / "model"), device="cpu")
    DenseTeacher(again, PASSAGES, name="toy", folder=tmp_path / "vectors").search(QUERIES, 5)
    assert encoded == []


def test_another_text_instruction_or_length_is_encoded_anew(model, tiny_llama, tmp_path, encoded):
    DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path).search(QUERIES, 5)
    encoded.clear()
    DenseTeacher(model, [*PASSAGES[:-1], "other"], name="toy", folder=tmp_path)
    assert sorted(set(encoded)) == ["passage"]

    other = StudentSettings(
        name=str(tiny_llama), attention="bidirectional", pooling="mean", instruction="Find that", passage_max_tokens=20
    )
    encoded.clear()
    DenseTeacher(build_student(other, device="cpu"), PASSAGES, name="toy", folder=tmp_path).search(QUERIES, 5)
    assert sorted(set(encoded)) == ["query"]

    longer = build_student(other.model_copy(update={"passage_max_tokens": 30}), device="cpu")
    encoded.clear()
    DenseTeacher(longer, PASSAGES, name="toy", folder=tmp_path).search(QUERIES, 5)
    assert sorted(set(encoded)) == ["passage"]


def test_progress_tells_what_is_encoded_and_ends_at_the_total(model, tmp_path):
    notes = []
    teacher = DenseTeacher(
        model, PASSAGES, name="toy", folder=tmp_path, on_progress=lambda *what, **more: notes.append(what[:3])
    )
    teacher.vectors(QUERIES)
    for what, texts in (("encode passages with toy", PASSAGES), ("encode queries with toy", QUERIES)):
        done = [told_done for told_what, told_done, total in notes if told_what == what and total == len(texts)]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, len(texts))
    assert {what for what, _, _ in notes} == {"encode passages with toy", "encode queries with toy"}


def test_the_moments_are_those_of_all_scores(model, tmp_path, monkeypatch):
    monkeypatch.setattr("embedsmith.teachers.dense._SHARD", 7)
    monkeypatch.setattr("embedsmith.vectors.moments._BLOCK", 3)
    teacher = DenseTeacher(model, PASSAGES, name="toy", folder=tmp_path)
    cosines = all_cosines(model)
    mean, deviation = teacher.moments(QUERIES)
    np.testing.assert_allclose(mean, cosines.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(deviation, cosines.std(axis=1), atol=1e-6)


def test_scores_that_are_all_the_same_have_no_deviation(model, tmp_path):
    teacher = DenseTeacher(model, ["the cat"] * 5, name="toy", folder=tmp_path)
    np.testing.assert_allclose(teacher.moments(QUERIES)[1], 0, atol=1e-6)


def test_similarities_are_the_cosines_of_passages(model, tmp_path):
    teacher = DenseTeacher(model, tuple(PASSAGES), name="toy", folder=tmp_path)
    queries, shards = teacher.vectors_of(QUERIES)
    vectors = np.concatenate(shards)
    rows, others = np.array([3, 0]), np.array([[len(PASSAGES) - 2, 1, 2], [0, 5, 7]])
    similarities = teacher.similarities(rows, others)
    np.testing.assert_allclose(similarities, np.einsum("sd,skd->sk", vectors[rows], vectors[others]), atol=1e-6)
    np.testing.assert_allclose(similarities[[0, 1], [0, 0]], 1, atol=1e-5)
    np.testing.assert_array_equal(queries, teacher.vectors(QUERIES))


class ThreadProcess(threading.Thread):
    """A thread that can be treated as a process: starting two of those takes half a minute."""

    def __init__(self, target, args, daemon):
        super().__init__(target=target, args=args, daemon=daemon)

    def terminate(self):
        pass

    def join(self):
        pass

    def close(self):
        pass


class ThreadQueue(queue.Queue):
    def cancel_join_thread(self):
        pass

    def close(self):
        pass


def test_several_devices_give_the_vectors_of_one(tiny_llama, tmp_path, monkeypatch):
    settings = StudentSettings(name=str(tiny_llama), attention="bidirectional", pooling="mean", instruction="Find it")
    model = build_student(settings, device="cpu")
    one = DenseTeacher(model, PASSAGES, name="one", folder=tmp_path / "one").store.matrix()
    threads = SimpleNamespace(Queue=ThreadQueue, Process=ThreadProcess)
    monkeypatch.setattr("sentence_transformers.base.model.mp.get_context", lambda method: threads)
    monkeypatch.setattr("embedsmith.teachers.dense._WORTH_SPREADING", 20)
    used = []
    both_at_once = threading.Barrier(2, timeout=20)
    inference = EmbeddingModel._inference

    def noting(self, texts, device=None, **arguments):
        used.append((len(texts), device))
        if len(used) <= 2:
            both_at_once.wait()
        return inference(self, texts, device=device, **arguments)

    monkeypatch.setattr(EmbeddingModel, "_inference", noting)
    several = DenseTeacher(model, PASSAGES, name="two", folder=tmp_path / "two", devices=["cpu", "cpu:0"])
    np.testing.assert_allclose(several.store.matrix(), one, atol=1e-6)
    assert {device for _, device in used} == {"cpu", "cpu:0"}
    assert sum(count for count, _ in used) == len(set(PASSAGES))
    spread = len(used)
    assert several.vectors(QUERIES).shape == (3, one.shape[1])
    assert len(used) == spread  # three are too few to spread
