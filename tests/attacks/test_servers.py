"""Servers that misbehave: they never end, send too much or too slowly, or repeat the key that they were given."""

import contextlib
import gzip
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile

import pytest

from embedsmith.errors import EmbedsmithError, ModelError
from embedsmith.services.chat import Chat, Question, ServerSettings
from embedsmith.services.endpoint import endpoint
from embedsmith.services.requests import Failing, Refused, Service
from embedsmith.teachers.remote import RemoteModel

pytestmark = pytest.mark.usefixtures("no_key")

KEY = "sk-" + "0123456789abcdef" * 10
OK = b"HTTP/1.1 200 OK\r\n"
TIMEOUT_S = 0.5

Speak = Callable[[socket.socket], None]


@contextmanager
def speaking(speak: Speak) -> Iterator[str]:
    """Yield the URL of a server that reads each request, and then says whatever it likes."""
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = connection.makefile("rb")
            head = b"".join(takewhile(bytes.strip, request)).lower()
            if head:
                request.read(int(head.partition(b"content-length:")[2].split()[0]))
                speak(connection)

    def serve() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                threading.Thread(target=one, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1#toy"
    finally:
        over.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname(), timeout=1).close()
        listener.close()
        thread.join(5)


def drip(connection: socket.socket, head: bytes, byte: bytes) -> None:
    """Send a head, and then a byte now and then, for longer than any test waits."""
    connection.sendall(head)
    for _ in range(200):
        connection.sendall(byte)
        time.sleep(0.05)


SLOW: dict[str, Speak] = {
    "says nothing": lambda connection: time.sleep(5),
    "a header byte by byte": lambda connection: drip(connection, OK + b"X-Slow: ", b"x"),
    "headers without end": lambda connection: drip(connection, OK, b"X-More: 1\r\n"),
    "a body byte by byte": lambda connection: drip(connection, OK + b"Content-Length: 999\r\n\r\n", b" "),
    "a body without length": lambda connection: drip(connection, OK + b"\r\n", b" "),
    "chunks without end": lambda connection: drip(
        connection, OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"
    ),
    "100 Continue without end": lambda connection: drip(connection, b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a refusal byte by byte": lambda connection: drip(
        connection, b"HTTP/1.1 400 No\r\nContent-Length: 999\r\n\r\n", b" "
    ),
}


@pytest.mark.parametrize("speak", SLOW.values(), ids=SLOW)
def test_a_request_ends_at_its_deadline_whatever_comes_meanwhile(speak):
    with speaking(speak) as name:
        service = Service(endpoint(name), "embeddings", timeout_s=TIMEOUT_S, retries=0)
        began = time.monotonic()
        with pytest.raises(Failing, match="timed out"):
            service.ask({}, threading.Event())
        assert time.monotonic() - began < TIMEOUT_S + 2


def flood(connection: socket.socket, head: bytes) -> None:
    """Send a gigabyte, unless the other side hangs up."""
    connection.sendall(head)
    for _ in range(1024):
        connection.sendall(b" " * 2**20)


@pytest.mark.parametrize("head", [OK + b"\r\n", OK + b"Content-Length: 1073741824\r\n\r\n"])
def test_an_answer_larger_than_any_answer_is_refused_before_it_is_read(head):
    sent = []

    def speak(connection):
        with contextlib.suppress(OSError):
            flood(connection, head)
            sent.append("all of it")

    with speaking(speak) as name:
        service = Service(endpoint(name), "embeddings", timeout_s=30, most_bytes=2**22)
        with pytest.raises(Refused, match="an answer of more than 4,194,304 bytes"):
            service.ask({}, threading.Event())
    assert not sent


def test_a_refusal_of_any_size_is_read_no_further_than_it_is_told():
    with speaking(lambda connection: flood(connection, b"HTTP/1.1 400 No\r\n\r\n")) as name:
        service = Service(endpoint(name), "embeddings", timeout_s=30)
        with pytest.raises(Refused, match=r"HTTP 400$"):
            service.ask({}, threading.Event())


def test_headers_larger_than_any_headers_end_the_request():
    head = OK + b"X: " + b"x" * 2**24
    with (
        speaking(lambda connection: connection.sendall(head)) as name,
        pytest.raises(Failing, match="cannot be reached"),
    ):
        Service(endpoint(name), "embeddings", timeout_s=30).ask({}, threading.Event())


def answering(body: bytes, status: bytes = b"200 OK", headers: bytes = b"") -> Speak:
    """Return a server that gives one answer."""
    head = b"HTTP/1.1 " + status + b"\r\nConnection: close\r\n" + headers
    return lambda connection: connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)


def test_a_compressed_answer_is_not_inflated():
    bomb = gzip.compress(b" " * 10_000_000)
    with (
        speaking(answering(bomb, headers=b"Content-Encoding: gzip\r\n")) as name,
        pytest.raises(ModelError, match="not embeddings"),
    ):
        RemoteModel(endpoint(name)).embed(["a"], "query")


def test_a_redirect_is_not_followed():
    asked = []
    with speaking(lambda connection: asked.append(connection)) as other:
        to = f"Location: {other.partition('#')[0]}\r\n".encode()
        for status in (b"301 Moved", b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"):
            with speaking(answering(b"", status, to)) as name, pytest.raises(Refused, match="HTTP 30"):
                RemoteModel(endpoint(name), key=KEY).embed(["a"], "query")
    assert not asked


@pytest.mark.parametrize("depth", [10**3, 10**5])
@pytest.mark.parametrize("kind", ["[", '{"data":'])
def test_an_answer_of_any_depth_is_no_embedding_and_no_chat(tmp_path, depth, kind):
    with speaking(answering(kind.encode() * depth)) as name:
        with pytest.raises(ModelError, match="not embeddings"):
            RemoteModel(endpoint(name)).embed(["a"], "query")
        with pytest.raises(ModelError, match="not a chat answer"):
            Chat(endpoint(name), tmp_path / "answers").ask([Question(f"{i}", max_tokens=1) for i in range(9)])


REPEATED = {
    "plain": KEY,
    "JSON": json.dumps({"error": f"{KEY} is no key"}),
    "beyond the cut": "x" * 250 + KEY,
    "across the cut": "x" * 200 + KEY,
    "across the end of what is read": " " * (2**16 - 20) + KEY * 9,
    "in a URL": f"https://a.org?key={KEY.replace('-', '%2D')}",
}


@pytest.mark.parametrize("said", REPEATED.values(), ids=REPEATED)
@pytest.mark.parametrize("status", [b"401 No", b"400 No", b"503 Busy"])
def test_no_part_of_a_key_that_a_server_repeats_is_told(tmp_path, said, status):
    with speaking(answering(said.encode(), status)) as name, pytest.raises((EmbedsmithError, Failing)) as caught:
        RemoteModel(endpoint(name), key=KEY, retries=0).embed(["a"], "query")
    notes = "".join(traceback.format_exception(caught.value))
    assert not any(KEY[start : start + 12] in notes for start in range(0, len(KEY) - 12, 4))


@pytest.mark.parametrize("key", [KEY, 'sk-"quoted"-key', "sk-slash/plus+key"])
def test_a_key_in_an_answer_is_stored_nowhere(tmp_path, key):
    answer = {"choices": [{"message": {"content": f"your key is {key}!"}}]}
    with speaking(answering(json.dumps(answer).encode())) as name:
        chat = Chat(endpoint(name), tmp_path / "answers", key=key, settings=ServerSettings(retries=0))
        [said] = chat.ask([Question("what?", max_tokens=9)])
    assert said is not None
    assert said.text == "your key is …!"
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes()


@pytest.mark.parametrize("wait", ["31536000", "inf", "1e400"])
def test_a_server_that_asks_to_wait_for_a_year_is_an_error(wait):
    with (
        speaking(answering(b"", b"429 Busy", f"Retry-After: {wait}\r\n".encode())) as name,
        pytest.raises(Failing, match="HTTP 429, come back in"),
    ):
        Service(endpoint(name), "embeddings", timeout_s=5).ask({}, threading.Event())
