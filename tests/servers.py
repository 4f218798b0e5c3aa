"""Servers of OpenAI's protocol on this machine: they give the answers that a test sets, and count requests."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

import pytest


class Server(ThreadingHTTPServer):
    """Answers every request as its kind does, unless other answers are set first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.first: list[tuple[int, dict[str, str], str]] = []
        """What is answered to the first requests: status, headers, body; no body for the usual one."""
        self.refuse: Callable[[dict[str, Any]], bool] = lambda body: False
        """Whether a request's texts are too long, which is a 413."""
        self.delay_s = 0.0
        self.requests: list[tuple[float, str, dict, dict]] = []
        """When, path, headers, body."""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1#toy/model"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return what is answered to a request."""
        raise NotImplementedError


class ChatServer(Server):
    """Answers every prompt with `say(prompt)`."""

    def __init__(self) -> None:
        super().__init__()
        self.say: Callable[[str], str] = lambda prompt: f"you said: {prompt}"
        self.finish_reason = "stop"

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for *_, body in self.requests]

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        return self.chat(body["messages"][0]["content"])

    def chat(self, prompt: str) -> dict[str, Any]:
        """Return an answer as OpenAI's protocol has it; a token is a word."""
        text = self.say(prompt)
        return {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": len((text or "").split())},
        }


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((time.monotonic(), self.path, dict(self.headers), body))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            status, headers, answer = server.first.pop(0) if server.first else (200, {}, None)
            if server.refuse(body):
                status, answer = 413, "too long"
        if server.delay_s:
            time.sleep(server.delay_s)
        if answer is None:
            answer = json.dumps(server.answer(body))
        with server.lock:
            server.at_once -= 1
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(answer.encode())


S = TypeVar("S", bound=Server)


@contextmanager
def serving(server: S) -> Iterator[S]:
    """Let a server answer for as long as the block takes."""
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def no_key(monkeypatch) -> None:
    """Take away whatever key or proxy the tester has."""
    for name in ("EMBEDSMITH_API_KEY", "EMBEDSMITH_API_HOSTS", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def chat_server(no_key) -> Iterator[ChatServer]:
    with serving(ChatServer()) as server:
        yield server
