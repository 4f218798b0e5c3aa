"""The URL teacher against a real server on this machine, which is busy, broken, out of order or wrong."""

import hashlib
import time
import traceback
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from embedsmith.errors import EmbedsmithError, ModelError, SettingsError
from embedsmith.services.endpoint import endpoint
from embedsmith.teachers.named import open_teacher
from embedsmith.teachers.remote import RemoteModel
from embedsmith.teachers.settings import TeacherSettings
from tests.servers import Server, serving

KEY = "sk-never-to-be-seen"
TEXTS = ["a red cat", "", "two dogs", "how to sort", "a red cat", "ünïcode 🙂"]
FAST = TeacherSettings(request_texts=2, request_concurrency=3)


def vector_of(text: str) -> np.ndarray:
    """Return a vector that anybody can work out."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.int8) / 16.0


class EmbeddingServer(Server):
    """Answers every text with its vector, unless `change` makes something else of them."""

    def __init__(self) -> None:
        super().__init__()
        self.change = lambda data: data
        self.delay_s = 0.02

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        data = [{"index": i, "embedding": vector_of(text).tolist()} for i, text in enumerate(body["input"])]
        return {"data": self.change(data)}

    def model(self, **arguments) -> RemoteModel:
        return RemoteModel(endpoint(self.name), **{"texts": 2, "concurrency": 3, **arguments})


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with serving(EmbeddingServer()) as server:
        yield server


pytestmark = pytest.mark.usefixtures("no_key")


def expected(texts: list[str]) -> np.ndarray:
    vectors = np.stack([vector_of(text or " ") for text in texts])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_each_text_gets_its_vector_of_length_one(server):
    vectors = server.model().embed(TEXTS, "query")
    np.testing.assert_allclose(vectors, expected(TEXTS), atol=1e-6)
    assert [len(body["input"]) for *_, body in server.requests] == [2, 2, 2]
    _, path, headers, body = server.requests[0]
    assert path == "/v1/embeddings"
    assert body == {"model": "toy/model", "input": ["a red cat", " "], "encoding_format": "float"}
    assert "Authorization" not in headers


def test_vectors_go_by_their_index_not_by_their_place(server):
    server.change = lambda data: data[::-1]
    np.testing.assert_allclose(server.model(texts=4).embed(TEXTS, "query"), expected(TEXTS), atol=1e-6)


def test_requests_run_at_once_but_not_more_than_allowed(server):
    server.model(texts=1).embed([f"text {i}" for i in range(20)], "passage")
    assert server.most_at_once in (2, 3)


def test_a_busy_server_is_not_asked_again_before_it_said(server):
    server.first = [(429, {"Retry-After": "1"}, "slow down")]
    np.testing.assert_allclose(server.model().embed(TEXTS, "query"), expected(TEXTS), atol=1e-6)
    assert server.requests[1][0] - server.requests[0][0] >= 1


def test_a_server_that_fails_is_asked_again(server):
    server.first = [(500, {}, "oops"), (503, {"Retry-After": "0"}, "")]
    np.testing.assert_allclose(server.model().embed(TEXTS, "query"), expected(TEXTS), atol=1e-6)
    waits = np.diff([when for when, *_ in server.requests[:3]])
    assert waits[0] >= 0.25 and waits[1] >= 0.5  # half of 0.5 and of 1 second: the rest is chance


def test_a_server_that_keeps_failing_is_an_error_of_the_machine(server):
    server.first = [(500, {}, "oops")] * 9
    with pytest.raises(ConnectionError, match=r"#toy/model: HTTP 500, after 2 attempts"):
        server.model(retries=1).embed(TEXTS, "query")
    assert len(server.requests) == 2


def test_a_server_that_wants_to_be_left_alone_for_long_is_an_error(server):
    server.first = [(429, {"Retry-After": "7200"}, "")]
    with pytest.raises(ConnectionError, match="HTTP 429, come back in 2h 00m"):
        server.model().embed(TEXTS, "query")


def test_a_server_that_does_not_answer_in_time_is_an_error():
    with EmbeddingServer() as server, pytest.raises(ConnectionError, match="cannot be reached: timed out"):
        server.model(timeout_s=0.2).embed(TEXTS, "query")  # nobody serves


def test_a_host_that_cannot_be_reached_is_an_error_at_once():
    with EmbeddingServer() as server:
        name = server.name
    start = time.monotonic()
    with pytest.raises(ConnectionError, match=r"toy/model: cannot be reached: .*refused"):
        RemoteModel(endpoint(name)).embed(TEXTS, "query")
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "no vector with index 1"),
        (lambda data: [*data, {"index": 2, "embedding": [1.0]}], "got 3 vectors for 2 texts"),
        (lambda data: [{**row, "index": 0} for row in data], "no vector with index 1"),
        (lambda data: [{**row, "embedding": [float("nan")]} for row in data], "a vector is not finite"),
        (lambda data: [{**row, "embedding": [1e39]} for row in data], "a vector is not finite"),
        (lambda data: [{**row, "embedding": [None]} for row in data], "a vector is not finite"),
        (lambda data: [{**row, "embedding": ["x"]} for row in data], "not embeddings"),
        (lambda data: [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}], "not embeddings"),
        (lambda data: [{**row, "embedding": []} for row in data], r"has shape \(2, 0\)"),
        (lambda data: [{**row, "embedding": [0.0, 0.0]} for row in data], "a vector of zeros"),
        (lambda data: [*data, data[0]], "two vectors with one index"),
        (lambda data: None, "not embeddings"),
    ],
)
def test_an_answer_that_is_not_one_vector_a_text_is_refused(server, change, message):
    server.change = change
    with pytest.raises(ModelError, match=message):
        server.model().embed(TEXTS, "query")


def test_vectors_of_different_lengths_in_two_answers_are_refused(server):
    server.change = lambda data: [{**row, "embedding": [1.0] * (len(server.requests) > 1) + [1.0]} for row in data]
    with pytest.raises(ModelError, match="vectors of 1 and of 2 dimensions"):
        server.model(concurrency=1).embed(TEXTS, "query")


def test_what_is_not_json_is_refused(server):
    server.first = [(200, {}, "<html>")]
    with pytest.raises(ModelError, match="the answer for 2 texts: not embeddings"):
        server.model().embed(TEXTS, "query")


@pytest.mark.parametrize(
    ("status", "said", "hint"),
    [
        (404, "no such model", "check the URL"),
        (400, "too long", "check the URL"),
        (401, f"{KEY} is no key", "check the key of this URL"),
        (302, "", "redirects"),
    ],
)
def test_a_refusal_is_told_once_with_what_the_server_said(server, status, said, hint):
    server.first = [(status, {"Location": "http://127.0.0.1:1/"}, said)]
    with pytest.raises(ModelError, match=f"#toy/model: HTTP {status}") as caught:
        server.model(key=KEY).embed(TEXTS, "query")
    assert said.replace(KEY, "…") in str(caught.value)
    assert hint in caught.value.hint
    assert len(server.requests) == 1
    assert_no_key("".join(traceback.format_exception(caught.value)))


def test_a_teacher_of_a_url_ranks_by_cosine(server, tmp_path):
    teacher = open_teacher(server.name, TEXTS, vectors=tmp_path, settings=FAST)
    cosines = expected(["two dogs", "x"]) @ expected(TEXTS).T
    rows, scores = teacher.search(["two dogs", "x"], 6)
    np.testing.assert_array_equal(rows, np.argsort(-cosines, axis=1, kind="stable"))
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, rows, axis=1), atol=1e-5)
    assert teacher.name == server.name
    before = len(server.requests)
    open_teacher(server.name, TEXTS, vectors=tmp_path, settings=FAST).search(["two dogs", "x"], 2)
    assert len(server.requests) == before


def test_prompts_are_sent_and_part_of_the_fingerprint(server, tmp_path):
    settings = FAST.model_copy(update={"query_prompt": "find: ", "passage_prompt": "text: "})
    teacher = open_teacher(server.name, ["a"], vectors=tmp_path, settings=settings)
    teacher.search(["b"], 1)
    assert [body["input"] for *_, body in server.requests] == [["text: a"], ["find: b"]]
    open_teacher(server.name, ["a"], vectors=tmp_path, settings=FAST)
    assert server.requests[-1][3]["input"] == ["a"]


def test_the_key_of_the_environment_is_sent_and_written_nowhere(server, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EMBEDSMITH_API_HOSTS", "example.org, 127.0.0.1")
    monkeypatch.setenv("EMBEDSMITH_API_KEY", KEY)
    open_teacher(server.name, TEXTS, vectors=tmp_path, settings=FAST)
    assert {headers["Authorization"] for _, _, headers, _ in server.requests} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["shard-00000.npy", "store.json", "texts.npy"]
    for path in files:
        assert KEY.encode() not in path.read_bytes()
    assert_no_key(caplog.text)
    before = len(server.requests)
    monkeypatch.setenv("EMBEDSMITH_API_KEY", "a new key")
    open_teacher(server.name, TEXTS, vectors=tmp_path, settings=FAST)
    assert len(server.requests) == before  # the key is no part of the fingerprint


def test_a_key_that_no_header_can_hold_is_refused_without_being_told(server, tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDSMITH_API_HOSTS", "127.0.0.1")
    monkeypatch.setenv("EMBEDSMITH_API_KEY", f"{KEY}\nX: y")
    with pytest.raises(SettingsError, match="EMBEDSMITH_API_KEY: a key with a line break") as caught:
        open_teacher(server.name, TEXTS, vectors=tmp_path)
    assert_no_key("".join(traceback.format_exception(caught.value)))


def assert_no_key(text: str) -> None:
    assert KEY not in text


def test_what_was_encoded_before_a_failure_is_kept(server, tmp_path, monkeypatch):
    monkeypatch.setattr("embedsmith.teachers.dense._SHARD", 4)
    texts = [f"text {i}" for i in range(10)]
    asked = []

    def third_shard_fails(data):
        asked.append(len(data))
        return data if len(asked) <= 4 else None

    server.change = third_shard_fails
    with pytest.raises(ModelError, match="not embeddings"):
        open_teacher(server.name, texts, vectors=tmp_path, settings=FAST)
    server.change = lambda data: data
    before = len(server.requests)
    teacher = open_teacher(server.name, texts, vectors=tmp_path, settings=FAST)
    assert [body["input"] for *_, body in server.requests[before:]] == [["text 8", "text 9"]]
    np.testing.assert_allclose(teacher.store.matrix(), expected(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/v1", "no model"),
        ("https:///v1#model", "no host"),
        (f"https://me:{KEY}@example.org/v1#m", "with a user, a password or a query"),
        (f"https://example.org/v1?key={KEY}#m", "with a user, a password or a query"),
    ],
)
def test_a_url_without_a_model_or_with_a_secret_is_refused(name, message, tmp_path):
    with pytest.raises(EmbedsmithError, match=message) as caught:
        open_teacher(name, TEXTS, vectors=tmp_path)
    assert_no_key("".join(traceback.format_exception_only(caught.value)))
