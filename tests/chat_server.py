"""A chat server on this machine: it says what it is told to say, and counts what it is asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class ChatServer(ThreadingHTTPServer):
    """Answers every prompt with `say(prompt)`, unless it is told to give other answers first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say: Callable[[str], str] = lambda prompt: f"you said: {prompt}"
        self.first: list[tuple[int, dict[str, str], str]] = []
        """What is answered to the first requests: status, headers, body."""
        self.finish_reason = "stop"
        self.delay_s = 0.0
        self.requests: list[tuple[float, str, dict, dict]] = []
        """When, path, headers, body."""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1#toy/model"

    @property
    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for *_, body in self.requests]

    def chat(self, prompt: str) -> dict:
        """Return an answer as OpenAI's protocol has it; a token is a word."""
        text = self.say(prompt)
        return {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": self.finish_reason}],
            "usage": {"prompt_tokens": len(prompt.split()), "completion_tokens": len((text or "").split())},
        }


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

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
        if server.delay_s:
            time.sleep(server.delay_s)
        if answer is None:
            answer = json.dumps(server.chat(body["messages"][0]["content"]))
        with server.lock:
            server.at_once -= 1
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(answer.encode())


@pytest.fixture
def chat_server(monkeypatch) -> Iterator[ChatServer]:
    for name in ("EMBEDSMITH_API_KEY", "OPENAI_API_KEY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
