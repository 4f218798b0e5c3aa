"""What is checked of every request: its key, host, body size and deadline, and the number of requests at once."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from embedsmith.serving.server.metrics import Metrics
from embedsmith.serving.server.problems import Refused, overloaded
from embedsmith.serving.server.settings import ServeSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = frozenset({"/health", "/ready", "/", "/openapi.json"})
"""Paths that need no key: they say nothing of texts and models."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_access = logging.getLogger("embedsmith.access")


class Gone(Exception):
    """The client has closed the connection."""


class Guard:
    """An ASGI application that lets requests through to another.

    Args:
        app: the application.
        settings: limits.
        key: that clients must send as `Authorization: Bearer KEY`; empty for none.
        paths: that exist; others are counted together.
        is_local: whether only this machine can connect: then the Host of a request must be this machine too, or a
            page in a browser could read the server under a name of its own.
        metrics: are counted into.
        logs: whether each request is a line of the access log.
    """

    def __init__(
        self,
        app: App,
        *,
        settings: ServeSettings,
        key: str,
        paths: frozenset[str],
        is_local: bool,
        metrics: Metrics,
        logs: bool = False,
    ) -> None:
        self._app, self._settings, self._key, self._paths = app, settings, key.encode(), paths
        self._checks_host = is_local and not key
        self._metrics, self._logs = metrics, logs
        self._at_once = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._at_once += 1
        self._metrics.in_flight.inc()
        try:
            await self._guarded(scope, receive, noted)
        except Gone:
            status = 499
        finally:
            self._at_once -= 1
            self._metrics.in_flight.dec()
            self._count(scope, status, time.perf_counter() - began)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Carry out a request within its deadline."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
            body = b""
            if scope["method"] == "POST":
                body = await self._body(headers, receive)
            scope["state"] = {**scope.get("state", {}), "body": body}
            await self._until_gone(scope, receive, send)
        except Refused as refused:
            self._metrics.errors.labels(refused.code).inc()
            await respond(send, refused.status, refused.body, refused.headers)

    def _check(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Refuse a request without the key, or for another host, or one too many."""
        if self._checks_host and _host(headers.get(b"host", b"")) not in _LOCAL:
            raise Refused("the Host of the request is another machine", status=421, code="wrong_host")
        path = scope["path"]
        if self._key and path not in OPEN:
            given = headers.get(b"authorization", b"")
            scheme, _, given = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                raise Refused(
                    "no key, or another one: send `Authorization: Bearer KEY`", status=401, code="invalid_api_key"
                )
        if scope["method"] == "POST" and self._at_once > self._settings.max_waiting:
            raise overloaded(f"{self._settings.max_waiting:,} requests wait already: try again", code="queue_full")

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Return the body of a request.

        Raises:
            Refused: it is no JSON by its header, too large, or too slow.
            Gone: the client has left.
        """
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refused("Content-Type: wanted application/json", status=415, code="wrong_content_type")
        most = int(self._settings.max_body_mib * 2**20)
        large = Refused(
            f"the body is larger than {self._settings.max_body_mib:g} MiB", status=413, code="body_too_large"
        )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > most:
            raise large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise large
                    if not message.get("more_body"):
                        return b"".join(parts)
        except TimeoutError:
            raise Refused("the body did not come in time", status=408, code="timeout") from None

    async def _until_gone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Work on a request until it is answered, its client leaves, or its time is over."""

        async def nothing_more() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        work = asyncio.ensure_future(self._app(scope, nothing_more, send))
        watch = asyncio.ensure_future(_gone(receive))
        try:
            done, _ = await asyncio.wait(
                {work, watch}, timeout=self._settings.timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if work in done:
                work.result()
                return
            work.cancel()
            await asyncio.wait({work})
            if watch in done:
                raise Gone
            raise overloaded(f"no answer in {self._settings.timeout_s:g} seconds: try again", code="timeout")
        finally:
            for task in (work, watch):
                task.cancel()

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        if self._logs:
            client = (scope.get("client") or ("",))[0]
            row = {"time": time.time(), "client": client, "method": scope["method"], "path": path, "status": status}
            _access.info(json.dumps({**row, "seconds": round(seconds, 6)}, allow_nan=False))


async def respond(send: Send, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    """Send a JSON object."""
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    more = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    length = (b"content-length", str(len(content)).encode())
    start = {"status": status, "headers": [(b"content-type", b"application/json"), length, *more]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": content})


async def _gone(receive: Receive) -> None:
    """Return when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _host(header: bytes) -> str:
    """Return the name in a Host header, without its port.

    >>> _host(b"LOCALHOST:8000"), _host(b"[::1]:8000"), _host(b"127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    host = header.decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
