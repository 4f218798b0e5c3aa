"""Requests with retries: exponential back-off, and never before the time in `Retry-After`.

A server may be slow, broken or hostile. Each request has one deadline, from the connection to the last byte, and each
answer a largest size. Redirects are not followed, and compressed answers are not inflated.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import threading
import time
import weakref
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx2

from embedsmith.errors import ModelError, SettingsError
from embedsmith.progress import duration
from embedsmith.services.endpoint import Endpoint, current_caller, remedy_without_key
from embedsmith.version import __version__

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed later."""

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 300.0
_MOST_BYTES = 64 * 2**20
_ERROR_BYTES = 64 * 2**10
"""Read of an answer that refuses a request."""
_SHORTEST_SECRET = 8
"""Characters. Shorter keys are placeholders for servers that want none, and may be words of an answer."""


class Refused(ModelError):
    """A request that the server will not take, however often it is sent."""

    def __init__(self, message: str, *, status: int, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Failing(ConnectionError):
    """A server that was busy, failing or out of reach for too long."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """What it answered last; None where it did not answer."""


class _Answer(NamedTuple):
    """What came back for one request."""

    status: int
    body: bytes
    retry_after: str | None


class Service:
    """One path of a server, which takes and gives JSON."""

    def __init__(
        self,
        where: Endpoint,
        path: str,
        *,
        key: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 6,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        """Take note of the server; nothing is sent yet.

        Args:
            path: below the endpoint's URL, such as `embeddings`.
            key: sent as a bearer token, and written nowhere.
            timeout_s: seconds after which a request counts as lost, whatever has come by then.
            retries: times that a request is sent again.
            most_bytes: of an answer.
        """
        self.where = where
        self.has_answered = False
        """Whether the server has said anything yet."""
        self._path = path
        self._key = key
        self._key_pattern = _pattern_of(key) if key and len(key) >= _SHORTEST_SECRET else None
        self._timeout_s = timeout_s
        self._retries = retries
        self._most_bytes = most_bytes
        self._on_contact = current_caller().on_contact
        self._lock = threading.Lock()
        self._connections: _Connections | None = None

    def ask(self, body: dict[str, Any], given_up: threading.Event) -> bytes:
        """Return the answer to one request, sent as often as it takes; a key that the server repeats is taken out.

        Args:
            given_up: ends the waiting, because another request has failed for good.

        Raises:
            Refused: the server does not take the request, or its answer is too large.
            Failing: it cannot be reached, or is busy or failing for too long.
        """
        name, status = self.where.name, None
        content = json.dumps(body).encode()
        for attempt in range(self._retries + 1):
            try:
                answer = self._connected().post(content)
            except (OSError, TimeoutError, httpx2.HTTPError) as error:
                problem, wait_s, status = self._without_key(_problem(error)), 0.0, None
                # A host that was never heard of is rather a wrong URL than a moment of weakness.
                if not self.has_answered:
                    raise Failing(f"{name}: cannot be reached: {problem}") from None
            else:
                if answer.status < 300:
                    self.has_answered = True
                    return self._without_key(answer.body.decode("utf-8", "replace")).encode()
                if answer.status not in _BUSY:
                    raise self._refusal(answer)
                status, wait_s = answer.status, _retry_after_s(answer.retry_after)
                problem = f"HTTP {status}"
            self.has_answered = True
            if wait_s > _LONGEST_WAIT_S:
                raise Failing(f"{name}: {problem}, come back in {duration(wait_s)}", status=status)
            backoff_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
            # The jitter keeps requests that failed together from coming back together.
            if attempt < self._retries and given_up.wait(wait_s + backoff_s * random.uniform(0.5, 1)):
                break
        raise Failing(f"{name}: {problem}, after {self._retries + 1} attempts", status=status)

    def _connected(self) -> _Connections:
        """Return the connections; the first time, tell the user where the texts go."""
        with self._lock:
            if self._connections is None:
                if not self.where.is_here:
                    key = "with your key" if self._key else "without a key"
                    self._on_contact(f"texts are sent to {self.where.host} ({self.where.name}), {key}")
                self._connections = _Connections(
                    self.where,
                    self._path,
                    key=self._key,
                    timeout_s=self._timeout_s,
                    most_bytes=self._most_bytes,
                )
            return self._connections

    def _without_key(self, said: str) -> str:
        """Return what a server said without the key, which some servers repeat."""
        return self._key_pattern.sub("…", said) if self._key_pattern else said

    def _refusal(self, answer: _Answer) -> Refused:
        """Return what a server means that will not take the request."""
        # First the key is taken out, then the text is cut: the other way round would keep half of a key.
        said = " ".join(self._without_key(answer.body.decode("utf-8", "replace")).split())[:300]
        if answer.status in (401, 403):
            hint = "check the key of this URL" if self._key else remedy_without_key(self.where)
        elif 300 <= answer.status < 400:
            hint = "name the URL that it redirects to"
        else:
            hint = "check the URL, the model's name and the length of the texts"
        message = f"{self.where.name}: HTTP {answer.status}{f': {said}' if said else ''}"
        return Refused(message, status=answer.status, hint=hint)


class _Connections:
    """Connections to one server, kept open between requests, on an event loop of their own.

    An event loop can end a request at any moment: of a connection, a header or a body that comes byte by byte. The
    timeouts of sockets begin anew with every byte.
    """

    def __init__(self, where: Endpoint, path: str, *, key: str | None, timeout_s: float, most_bytes: int) -> None:
        self._url = f"{where.url}/{path}"
        self._name = where.name
        self._timeout_s = timeout_s
        self._most_bytes = most_bytes
        self._key_bytes = 6 * len(key or "")  # where each character is escaped
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"embedsmith/{__version__}",
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        try:
            # A request to this machine goes through no proxy: it may carry a key, and no network lies between.
            self._client = httpx2.AsyncClient(
                headers=headers, timeout=None, follow_redirects=False, trust_env=not where.is_here
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise SettingsError(
                f"the proxy of the environment cannot be used: {str(error).splitlines()[0]}",
                hint="set HTTPS_PROXY and HTTP_PROXY to http://HOST:PORT, or unset them",
            ) from None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name=f"requests to {where.host}", daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def post(self, content: bytes) -> _Answer:
        """Return what comes back for one request.

        Raises:
            Refused: the answer is too large.
            TimeoutError: the deadline passed.
            httpx2.HTTPError: there is no answer.
        """
        return asyncio.run_coroutine_threadsafe(self._post(content), self._loop).result()

    async def _post(self, content: bytes) -> _Answer:
        async with (
            asyncio.timeout(self._timeout_s),
            self._client.stream("POST", self._url, content=content) as response,
        ):
            is_answer = response.status_code < 300
            most = self._most_bytes if is_answer else _ERROR_BYTES
            body = bytearray()
            # As it came: a compressed body may inflate to any size.
            async for part in response.aiter_raw():
                body += part
                if len(body) > most:
                    break
            if len(body) > most and is_answer:
                raise Refused(
                    f"{self._name}: an answer of more than {most:,} bytes",
                    status=response.status_code,
                    hint="check that the URL is that of a model",
                )
            if len(body) > most:
                del body[most - self._key_bytes :]  # the end may be the beginning of the key
            return _Answer(response.status_code, bytes(body), response.headers.get("Retry-After"))


def _pattern_of(key: str) -> re.Pattern[str]:
    """Return what finds a key in a text, in JSON and in URLs too, where any of its characters may be escaped.

    >>> _pattern_of("sk-1/2").sub("…", r"sk-1/2 sk%2d1%2F2 sk\\u002d1\\/2 sk-12")
    '… … … sk-12'
    """
    forms = (rf"(?:\\?{re.escape(sign)}|%(?i:{ord(sign):02x})|\\u(?i:{ord(sign):04x}))" for sign in key)
    return re.compile("".join(forms))


def _problem(error: BaseException) -> str:
    """Return why there is no answer, in the words of the innermost error, which names the cause."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    if isinstance(error, BaseExceptionGroup):  # one for each address of a host
        return _problem(error.exceptions[0])
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return "timed out"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _retry_after_s(header: str | None) -> float:
    """Return the seconds that a `Retry-After` asks for, as a number or as a date; 0 without one.

    >>> _retry_after_s("2.5"), _retry_after_s(None), _retry_after_s("soon"), _retry_after_s("nan")
    (2.5, 0.0, 0.0, 0.0)
    >>> _retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT")
    0.0
    """
    if not header:
        return 0.0
    try:
        seconds = float(header)
        return seconds if seconds > 0 else 0.0  # not a number is no time
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
