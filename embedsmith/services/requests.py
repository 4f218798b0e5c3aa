"""Patient requests: a server that is busy or fails is asked again, later each time and never before it says."""

from __future__ import annotations

import json
import random
import threading
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from embedsmith.errors import ModelError
from embedsmith.services.endpoint import KEYS, Endpoint

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed later."""

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 300.0


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


class Service:
    """One path of a server, which takes and gives JSON."""

    def __init__(
        self, where: Endpoint, path: str, *, key: str | None = None, timeout_s: float = 60.0, retries: int = 6
    ) -> None:
        """Take note of the server; nothing is sent yet.

        Args:
            path: below the endpoint's URL, such as `embeddings`.
            key: sent as a bearer token, and written nowhere.
            timeout_s: seconds after which a request counts as lost.
            retries: times that a request is sent again.
        """
        self.where = where
        self.has_answered = False
        """Whether the server has said anything yet."""
        self._path = path
        self._key = key
        self._timeout_s = timeout_s
        self._retries = retries
        # A redirect would carry the key to another host.
        self._opener = build_opener(_NoRedirect)

    def ask(self, body: dict[str, Any], given_up: threading.Event) -> bytes:
        """Return the answer to one request, sent as often as it takes.

        Args:
            given_up: ends the waiting, because another request has failed for good.

        Raises:
            Refused: the server does not take the request.
            Failing: it cannot be reached, or is busy or failing for too long.
        """
        name, status = self.where.name, None
        for attempt in range(self._retries + 1):
            try:
                answer = self._post(json.dumps(body).encode())
            except HTTPError as error:
                with error:
                    if error.code not in _BUSY:
                        raise self._refusal(error) from None
                    status, wait_s = error.code, _retry_after_s(error.headers.get("Retry-After"))
                    problem = f"HTTP {status}"
            except (OSError, HTTPException) as error:
                problem, wait_s = f"{getattr(error, 'reason', None) or error or type(error).__name__}", 0.0
                status = None
                # A host that was never heard of is rather a wrong URL than a moment of weakness.
                if not self.has_answered:
                    raise Failing(f"{name}: cannot be reached: {problem}") from None
            else:
                self.has_answered = True
                return answer
            self.has_answered = True
            if wait_s > _LONGEST_WAIT_S:
                raise Failing(f"{name}: {problem}, come back in {wait_s:,.0f} seconds", status=status)
            backoff_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
            # The jitter keeps requests that failed together from coming back together.
            if attempt < self._retries and given_up.wait(wait_s + backoff_s * random.uniform(0.5, 1)):
                break
        raise Failing(f"{name}: {problem}, after {self._retries + 1} attempts", status=status)

    def _post(self, body: bytes) -> bytes:
        """Return the answer to one request."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "embedsmith"}
        request = Request(f"{self.where.url}/{self._path}", data=body, headers=headers)
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self._timeout_s) as response:
            return response.read()

    def _refusal(self, error: HTTPError) -> Refused:
        """Return what a server means that will not take the request."""
        said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
        if self._key:  # some servers repeat the key they refuse
            said = said.replace(self._key, "…")
        if error.code in (401, 403):
            hint = f"put the key for this URL into the environment, as {KEYS[0]}"
        elif 300 <= error.code < 400:
            hint = "name the URL that it redirects to"
        else:
            hint = "check the URL, the model's name and the length of the texts"
        message = f"{self.where.name}: HTTP {error.code}{f': {said}' if said else ''}"
        return Refused(message, status=error.code, hint=hint)


class _NoRedirect(HTTPRedirectHandler):
    """Turns every redirect into the error that it came as."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return None: do not follow."""


def _retry_after_s(header: str | None) -> float:
    """Return the seconds that a `Retry-After` asks for, as a number or as a date; 0 without one.

    >>> _retry_after_s("2.5"), _retry_after_s(None), _retry_after_s("soon")
    (2.5, 0.0, 0.0)
    >>> _retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT")
    0.0
    """
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
