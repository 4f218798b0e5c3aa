"""Servers on this machine, in a thread of the test's process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn

from embedsmith.models.opening import build_student
from embedsmith.models.settings import StudentSettings
from embedsmith.serving.server.named import Served
from embedsmith.serving.server.running import Factory
from embedsmith.serving.server.settings import ServeSettings

LATENT = {"pooling": "latent", "latents": 4, "heads": 2, "head_width": 8, "instruction": "Find the code"}


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Server:
    """A server that listens, and what it answers."""

    def __init__(self, port: int, service: Any) -> None:
        self.port, self.service, self.url = port, service, f"http://127.0.0.1:{port}"

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if content is not None:
            headers = {"Content-Type": "application/json", **headers}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() == "application/json"
            return Answer(answer.status, json.loads(text) if is_json else text.decode(), dict(answer.headers.items()))
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> Answer:
        return self.request("POST", path, body)

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def vectors(self, texts: Any, **body: Any) -> list[list[float]]:
        answer = self.post("/v1/embeddings", input=texts, **body)
        assert answer.status == 200, answer.body
        return [row["embedding"] for row in answer.body["data"]]


Serving = Callable[..., Any]


@pytest.fixture(scope="session")
def serving() -> Serving:
    """Start a server within a block."""

    @contextmanager
    def started(
        *models: Path | str, names: tuple[str, ...] = (), corpus: str | None = None, key: str = "", **limits: Any
    ) -> Iterator[Server]:
        served = Served(tuple(map(str, models)), names, "float32", corpus)
        factory = Factory(served, ServeSettings(**limits), key, is_local=True)
        guard = factory()
        config = uvicorn.Config(
            guard, host="127.0.0.1", port=0, lifespan="on", log_config=None, timeout_graceful_shutdown=10, ws="none"
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            service = guard._app.state.service
            while not server.started or (service.models is None and not factory.failures):
                assert thread.is_alive()
                time.sleep(0.01)
            yield Server(server.servers[0].sockets[0].getsockname()[1], service)
        finally:
            server.should_exit = True
            thread.join()

    return started


@pytest.fixture(scope="session")
def plain(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads queries and passages at lengths of their own."""
    folder = tmp_path_factory.mktemp("served") / "plain"
    model = build_student(StudentSettings(name=str(tiny_bert)), device="cpu")
    model.set_prompt("query", "query: ")
    model.set_prompt("passage", "passage: ")
    model.set_max_tokens(query=12, passage=24)
    model.save(str(folder))
    return folder


@pytest.fixture(scope="session")
def instructed(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder with latent attention, and an instruction that is not pooled."""
    folder = tmp_path_factory.mktemp("served") / "instructed"
    build_student(StudentSettings(name=str(tiny_llama), **LATENT), device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="session")
def server(serving: Serving, plain: Path, instructed: Path) -> Iterator[Server]:
    """A server of both."""
    with serving(plain, instructed, names=("plain", "latent")) as started:
        yield started
