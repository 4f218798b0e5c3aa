"""What a server answers beside vectors, what it refuses, and that it goes on living."""

import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedsmith.models.opening import load
from embedsmith.serving.server.protocol import BODIES

PASSAGES = ["the cat sat on the mat", "the dog sat on the log", "an owl"]


def code_of(answer):
    return answer.status, answer.body["error"]["code"]


def test_models_say_how_they_read_texts(server, plain):
    found = {model["id"]: model for model in server.get("/v1/models").body["data"]}
    assert list(found) == ["plain", "plain:query", "plain:passage", "latent", "latent:query", "latent:passage"]
    assert found["plain"]["roles"]["query"] == {"prompt": "query: ", "max_tokens": 12}
    assert (found["plain"]["takes_instructions"], found["latent"]["takes_instructions"]) == (False, True)
    assert found["plain"]["dimensions"] == load(str(plain)).get_embedding_dimension()


def test_tokens_that_are_not_pooled_are_marked(server, instructed):
    (row,) = server.post("/v1/tokenize", input="the cat", model="latent", input_type="query").body["data"]
    bare = server.post("/v1/tokenize", input="the cat", model="latent").body["data"][0]
    assert row["count"] == len(row["ids"]) == len(row["pooled"]) > bare["count"]
    assert row["pooled"][0] is False and row["pooled"][-1] is True
    assert sum(row["pooled"]) <= bare["count"] == sum(bare["pooled"])


def test_documents_are_ranked_by_cosine(server, plain):
    model = load(str(plain))
    cosines = model.embed(["the cat"], "query") @ model.embed(PASSAGES, "passage").T
    answer = server.post("/v1/rerank", model="plain", query="the cat", documents=[*PASSAGES[:2], {"text": PASSAGES[2]}])
    order = [row["index"] for row in answer.body["results"]]
    assert order == np.argsort(-cosines[0]).tolist()
    np.testing.assert_allclose([row["relevance_score"] for row in answer.body["results"]], cosines[0][order], atol=1e-6)
    two = server.post("/rerank", model="plain", query="the cat", documents=PASSAGES, top_n=2, return_documents=True)
    assert [row["document"]["text"] for row in two.body["results"]] == [PASSAGES[place] for place in order[:2]]
    found = server.post("/v1/similarity", model="plain", queries=["the cat", "an owl"], passages=PASSAGES)
    assert np.shape(found.body["similarities"]) == (2, 3)
    np.testing.assert_allclose(found.body["similarities"][0], cosines[0], atol=1e-6)


def test_passages_of_a_corpus_are_found(serving, plain, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": f"p{n}", "text": text}) + "\n" for n, text in enumerate(PASSAGES)))
    model = load(str(plain))
    scores = (model.embed(["the dog"], "query") @ model.embed(PASSAGES, "passage").T)[0]
    with serving(plain, corpus=str(corpus)) as server:
        hits = server.post("/v1/search", query="the dog", top_n=2).body["data"]
        assert [hit["id"] for hit in hits] == [f"p{place}" for place in np.argsort(-scores)[:2]]
        assert hits[0]["text"] == PASSAGES[int(np.argmax(scores))]
        np.testing.assert_allclose([hit["score"] for hit in hits], np.sort(scores)[::-1][:2], atol=1e-5)
        assert len(server.post("/v1/search", query="the dog", top_n=1000).body["data"]) == 3


def test_a_server_without_a_corpus_says_so(server):
    assert code_of(server.post("/v1/search", query="a")) == (404, "no_corpus")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 400, "invalid_input"),
        ({"input": []}, 400, "invalid_input"),
        ({"input": [[]]}, 400, "invalid_input"),
        ({"input": 5}, 400, "invalid_input"),
        ({"input": ["a", 5]}, 400, "invalid_input"),
        ({"input": {"text": "a"}}, 400, "invalid_input"),
        ({"input": [-1]}, 400, "invalid_input"),
        ({"input": [2**40]}, 400, "invalid_input"),
        ({"input": [1.5]}, 400, "invalid_input"),
        ({"input": "a", "model": "other"}, 404, "model_not_found"),
        ({"input": "a", "model": "x" * 10**5}, 404, "model_not_found"),
        ({"input": "a", "model": 5}, 400, "invalid_value"),
        ({"input": "a", "dimensions": 0}, 400, "invalid_value"),
        ({"input": "a", "dimensions": "4"}, 400, "invalid_value"),
        ({"input": "a", "encoding_format": "hex"}, 400, "invalid_value"),
        ({"input": "a", "input_type": "questions"}, 400, "invalid_value"),
        ({"input": "a", "instruction": ""}, 400, "invalid_value"),
        ({"input": "a", "unknown": 1}, 400, "unknown_field"),
        ({"input": ["a"] * 10_001}, 400, "too_many_inputs"),
    ],
)
def test_a_wrong_field_is_named(server, body, status, code):
    answer = server.request("POST", "/v1/embeddings", body)
    assert code_of(answer) == (status, code)
    assert set(answer.body["error"]) == {"message", "type", "param", "code"}
    assert len(answer.body["error"]["message"]) < 400


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 10**5, b'{"input": "\xff"}', b'{"input": "\\ud800"}', b"null", b"[]", b'{"input": NaN}', b"\0"],
)
@pytest.mark.parametrize("path", BODIES)
def test_what_is_no_json_object_is_refused(server, path, body):
    answer = server.request("POST", path, body)
    assert answer.status == 400 and answer.body["error"]["type"] == "invalid_request_error"


def test_other_paths_methods_and_types_are_refused(server):
    assert code_of(server.get("/v1/nothing")) == (404, "http_404")
    assert code_of(server.get("/v1/embeddings")) == (405, "http_405")
    answer = server.request("POST", "/v1/embeddings", b"{}", **{"Content-Type": "text/plain"})
    assert code_of(answer) == (415, "wrong_content_type")


def test_limits_are_kept(serving, plain):
    with serving(plain, max_inputs=3, max_request_tokens=20, max_body_mib=0.001) as server:
        assert code_of(server.post("/v1/embeddings", input=["a"] * 4)) == (400, "too_many_inputs")
        assert code_of(server.post("/v1/embeddings", input=["the cat sat on the mat"] * 3)) == (400, "too_many_tokens")
        assert code_of(server.post("/v1/embeddings", input="a" * 2000)) == (413, "body_too_large")
        assert code_of(server.post("/v1/rerank", query="a", documents=["a"] * 4)) == (400, "too_many_inputs")
        assert server.post("/v1/embeddings", input=["a"] * 3).status == 200


def test_a_body_without_a_length_is_counted_as_it_comes(serving, plain):
    with serving(plain, max_body_mib=0.01) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
        for _ in range(4):
            client.sendall(chunk)
        assert b" 413 " in client.recv(4096)


def test_a_body_that_does_not_come_and_an_answer_that_does_not_are_given_up(serving, plain):
    with serving(plain, timeout_s=0.3) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: 50\r\n\r\n{{".encode())
            assert b" 408 " in client.recv(4096)
        batcher = server.service.models.embedders["plain"][1]
        compute, batcher._compute = batcher._compute, lambda texts: time.sleep(1) or compute(texts)
        assert code_of(server.post("/v1/embeddings", input="a")) == (503, "timeout")
        batcher._compute = compute
        time.sleep(1.2)
        assert server.post("/v1/embeddings", input="a").status == 200
        assert batcher.waiting == 0


def test_more_requests_than_may_wait_get_429(serving, plain):
    go = threading.Event()
    with serving(plain, max_waiting=2) as server:
        batcher = server.service.models.embedders["plain"][1]
        compute, batcher._compute = batcher._compute, lambda texts: go.wait(30) and compute(texts)
        with ThreadPoolExecutor(8) as clients:
            asked = [clients.submit(server.post, "/v1/embeddings", input="a") for _ in range(8)]
            while sum(one.done() for one in asked) < 6:
                time.sleep(0.01)
            refused = [one.result() for one in asked if one.done()]
            go.set()
            answers = [one.result() for one in asked]
        assert {code_of(answer) for answer in refused} == {(429, "queue_full")}
        assert all(answer.headers["retry-after"] == "1" for answer in refused)
        assert sorted(answer.status for answer in answers) == [200] * 2 + [429] * 6
        assert server.get("/health").status == 200


def test_a_client_that_leaves_takes_its_texts_out_of_the_queue(serving, plain):
    go, computed = threading.Event(), []
    with serving(plain) as server:
        batcher = server.service.models.embedders["plain"][1]
        compute = batcher._compute

        def slow(texts):
            computed.append(len(texts))
            go.wait(30)
            return compute(texts)

        batcher._compute = slow
        with ThreadPoolExecutor(1) as clients:
            first = clients.submit(server.post, "/v1/embeddings", input="a")
            while not computed:
                time.sleep(0.01)
            body = json.dumps({"input": ["the cat sat"] * 50}).encode()
            head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                while batcher.waiting < 50:
                    time.sleep(0.01)
            while "499" not in server.get("/metrics").body:
                time.sleep(0.01)
            go.set()
            assert first.result().status == 200
        assert server.post("/v1/embeddings", input="b").status == 200
    assert sum(computed) == 2


def test_a_model_that_fails_is_status_500_and_the_next_request_is_answered(serving, plain, caplog):
    with serving(plain) as server:
        batcher = server.service.models.embedders["plain"][1]
        compute = batcher._compute

        words = "a secret text"

        def broken(texts):
            raise ZeroDivisionError(words)

        batcher._compute = broken
        answer = server.post("/v1/embeddings", input=words)
        assert code_of(answer) == (500, "internal")
        assert "secret" not in answer.body["error"]["message"]
        assert "ZeroDivisionError" in caplog.text and words not in caplog.text
        batcher._compute = lambda texts: compute(texts) * np.nan
        assert code_of(server.post("/v1/embeddings", input="a")) == (500, "not_finite")
        batcher._compute = lambda texts: (_ for _ in ()).throw(MemoryError())
        assert code_of(server.post("/v1/embeddings", input="a")) == (503, "out_of_memory")
        batcher._compute = compute
        assert server.post("/v1/embeddings", input="a").status == 200


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": "secret"}, 401),
        ({"Authorization": "Basic secret"}, 401),
        ({"Authorization": "Bearer secret"}, 200),
        ({"authorization": "bearer secret"}, 200),
    ],
)
def test_a_key_is_asked_for_where_texts_and_models_are(serving, plain, header, status):
    with serving(plain, key="secret") as server:
        for path in ("/v1/models", "/metrics"):
            assert server.get(path, **header).status == status
        assert server.request("POST", "/v1/embeddings", {"input": "a"}, **header).status == status
        for path in ("/health", "/ready", "/", "/openapi.json"):
            assert server.get(path).status == 200


def test_a_page_of_another_name_cannot_read_a_local_server(server):
    for host, status in {"localhost": 200, "127.0.0.1:8000": 200, "[::1]:8": 200, "evil.example": 421, "": 421}.items():
        assert server.get("/v1/models", Host=host).status == status


def test_metrics_count_what_was_done(serving, plain):
    with serving(plain) as server:
        answer = server.post("/v1/embeddings", input=["the cat", "the dog sat on the log, " * 20])
        server.post("/v1/embeddings", input=[])
        server.get("/wp-login.php")
        text = server.get("/metrics").body

        def value(name):
            (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
            return float(found)

        assert value('embedsmith_tokens_total{model="plain"}') == answer.body["usage"]["total_tokens"]
        assert value('embedsmith_truncated_inputs_total{model="plain"}') == 1
        assert value('embedsmith_batched_texts_total{model="plain"}') == 2
        assert value('embedsmith_requests_total{path="/v1/embeddings",status="200"}') == 1
        assert value('embedsmith_errors_total{kind="invalid_input"}') == 1
        assert value('embedsmith_requests_total{path="other",status="404"}') == 1
        assert value('embedsmith_queue_seconds_count{model="plain"}') == 1


def test_the_document_describes_every_path_that_reads_a_body(server):
    document = server.get("/openapi.json").body
    assert set(BODIES) | {"/v1/models", "/health", "/ready", "/rerank"} == set(document["paths"])
    for path in BODIES:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["$ref"].removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_the_page_sends_nothing_elsewhere(server):
    answer = server.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "<form" in answer.body and not re.search(r'(src|href)="(https?:)?//', answer.body)


def test_a_hundred_megabytes_are_refused_before_they_are_read(server):
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {100 * 2**20}\r\n\r\n".encode() + b" " * 65536)
        assert b" 413 " in client.recv(4096)
    assert server.get("/health").status == 200


def test_a_client_that_does_not_read_holds_up_nobody(server):
    """Its answer of some megabytes waits; others are answered meanwhile, and then it gets all of it."""
    body = json.dumps({"input": ["the cat"] * 2000, "model": "plain"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)
        for _ in range(20):
            assert server.post("/v1/embeddings", input="a").status == 200
        parts = list(iter(lambda: client.recv(65536), b""))
    answer = json.loads(b"".join(parts).partition(b"\r\n\r\n")[2])
    assert len(answer["data"]) == 2000
