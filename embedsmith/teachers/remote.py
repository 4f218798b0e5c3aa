"""Embeddings over HTTP: any server that speaks OpenAI's `POST …/embeddings`.

https://api.openai.com/v1#text-embedding-3-small
http://localhost:8000/v1#intfloat/e5-small-v2        vLLM, text-embeddings-inference, llama.cpp, Ollama, …

Texts leave this machine. The model behind a URL may change without its name, which no fingerprint can tell.

Shapes: N texts, n texts of a request, D dimensions.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import numpy as np
from jaxtyping import Float32

from embedsmith.errors import ModelError, SettingsError

_KEYS = ("EMBEDSMITH_API_KEY", "OPENAI_API_KEY")
"""Environment variables that hold the key, the first of them that is set."""

_BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Answers after which the same request may succeed later."""

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 300.0


@dataclass(frozen=True)
class Endpoint:
    """Where embeddings are asked for, and of which model."""

    url: str
    """Base, without `/embeddings`."""
    model: str


def is_url(name: str) -> bool:
    """Return whether a teacher's name is a URL."""
    return name.startswith(("https://", "http://"))


def endpoint(name: str) -> Endpoint:
    """Return the endpoint that `URL#MODEL` names.

    >>> endpoint("https://example.org/v1/#some/model")
    Endpoint(url='https://example.org/v1', model='some/model')

    Raises:
        ModelError: there is no model, or the URL holds a secret, which would be written into every file.
    """
    base, _, model = name.partition("#")
    parts = urlsplit(base)
    if parts.username or parts.password or parts.query:
        # Not a word of it is repeated: it may hold a password.
        raise ModelError(
            "an embeddings URL with a user, a password or a query in it",
            hint=f"write https://HOST/v1#MODEL, and put the key into the environment, as {_KEYS[0]}",
        )
    if not parts.hostname or not model:
        raise ModelError(f"{name}: no {'model' if parts.hostname else 'host'}", hint="write https://HOST/v1#MODEL")
    return Endpoint(base.rstrip("/").removesuffix("/embeddings"), model)


def key_from_environment() -> str | None:
    """Return the key for embeddings URLs, None where none is set.

    Raises:
        SettingsError: it holds what no header can; the error does not repeat it.
    """
    for name in _KEYS:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise SettingsError(f"{name}: a key with a line break or another odd character", hint="set it again")
        if key:
            return key
    return None


class RemoteModel:
    """An embedding model behind a URL: batched, concurrent, patient requests.

    A server that is busy (429) or fails (5xx) is asked again, later each time and never before its `Retry-After`.
    """

    def __init__(
        self,
        where: Endpoint,
        *,
        key: str | None = None,
        query_prompt: str = "",
        passage_prompt: str = "",
        texts: int = 64,
        concurrency: int = 4,
        timeout_s: float = 60.0,
        retries: int = 6,
    ) -> None:
        """Take note of the endpoint; nothing is sent yet.

        Args:
            key: sent as a bearer token, and written nowhere.
            texts: of one request.
            concurrency: requests under way at once.
            timeout_s: seconds after which a request counts as lost.
            retries: times that a request is sent again.
        """
        self._where = where
        self._key = key
        self._prompts = {"query": query_prompt, "passage": passage_prompt}
        self._texts = texts
        self._concurrency = concurrency
        self._timeout_s = timeout_s
        self._retries = retries
        self._has_answered = False
        # A redirect would carry the key to another host.
        self._opener = build_opener(_NoRedirect)

    def contract(self, role: Literal["query", "passage"]) -> dict[str, Any]:
        """Return what determines the vectors of a role, as far as it can be known: URL, model, prompt."""
        return {"url": self._where.url, "model": self._where.model, "role": role, "prompt": self._prompts[role]}

    def spread(self, devices: Sequence[str]) -> AbstractContextManager[None]:
        """Do nothing: the devices are the server's."""
        return nullcontext()

    def embed(
        self,
        texts: Sequence[str],
        role: Literal["query", "passage"],
        *,
        tokens: int | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> Float32[np.ndarray, "N D"]:
        """Return one vector of length 1 for each text, in the order given.

        Args:
            tokens: of a batch of a model on this machine; requests have their own size.
            on_done: called with the number of texts done after each answer.

        Raises:
            ModelError: the server refuses the request, or its answer is not one vector a text.
            ConnectionError: it cannot be reached, or is busy or failing for too long.
        """
        prompted = [self._prompts[role] + text for text in texts]
        batches = [prompted[start : start + self._texts] for start in range(0, len(prompted), self._texts)]
        given_up = threading.Event()
        pool = ThreadPoolExecutor(max_workers=self._concurrency)
        try:
            # The very first alone: a wrong URL, model or key is then one failed request.
            parts = [] if self._has_answered else [self._request(batches[0], given_up)]
            futures = [pool.submit(self._request, batch, given_up) for batch in batches[len(parts) :]]
            for future in futures:
                parts.append(future.result())
                if on_done:
                    on_done(sum(map(len, parts)))
        finally:
            given_up.set()
            pool.shutdown(cancel_futures=True)
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise ModelError(f"{self._name}: vectors of {min(widths)} and of {max(widths)} dimensions", hint=_WHOSE)
        vectors = np.concatenate(parts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1).astype(np.float32)

    @property
    def _name(self) -> str:
        return f"{self._where.url}#{self._where.model}"

    def _request(self, texts: list[str], given_up: threading.Event) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of one request, sent as often as it takes.

        Args:
            given_up: set when another request has failed for good.
        """
        # OpenAI refuses an empty text.
        body = {"model": self._where.model, "input": [text or " " for text in texts], "encoding_format": "float"}
        for attempt in range(self._retries + 1):
            try:
                answer = self._post(json.dumps(body).encode())
            except HTTPError as error:
                with error:
                    if error.code not in _BUSY:
                        raise self._refusal(error) from None
                    problem, wait_s = f"HTTP {error.code}", _retry_after_s(error.headers.get("Retry-After"))
            except (OSError, HTTPException) as error:
                problem, wait_s = f"{getattr(error, 'reason', None) or error or type(error).__name__}", 0.0
                # A host that was never heard of is rather a wrong URL than a moment of weakness.
                if not self._has_answered:
                    raise ConnectionError(f"{self._name}: cannot be reached: {problem}") from None
            else:
                self._has_answered = True
                return _vectors(answer, len(texts), self._name)
            self._has_answered = True
            if wait_s > _LONGEST_WAIT_S:
                raise ConnectionError(f"{self._name}: {problem}, come back in {wait_s:,.0f} seconds")
            backoff_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
            # The jitter keeps requests that failed together from coming back together.
            if attempt < self._retries and given_up.wait(wait_s + backoff_s * random.uniform(0.5, 1)):
                break
        raise ConnectionError(f"{self._name}: {problem}, after {self._retries + 1} attempts")

    def _post(self, body: bytes) -> bytes:
        """Return the answer to one request."""
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "embedsmith"}
        request = Request(f"{self._where.url}/embeddings", data=body, headers=headers)
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        with self._opener.open(request, timeout=self._timeout_s) as response:
            return response.read()

    def _refusal(self, error: HTTPError) -> ModelError:
        """Return what a server means that will not take the request."""
        said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
        if self._key:  # some servers repeat the key they refuse
            said = said.replace(self._key, "…")
        if error.code in (401, 403):
            hint = f"put the key for this URL into the environment, as {_KEYS[0]}"
        elif 300 <= error.code < 400:
            hint = "name the URL that it redirects to"
        else:
            hint = "check the URL, the model's name and the length of the texts"
        return ModelError(f"{self._name}: HTTP {error.code}{f': {said}' if said else ''}", hint=hint)


_WHOSE = "the mistake is the server's; check its log"


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


def _vectors(answer: bytes, count: int, name: str) -> Float32[np.ndarray, "n D"]:
    """Return the vectors of an answer, in the order of the texts: by their `index`, not by their place.

    Raises:
        ModelError: the answer does not hold one finite vector of the same length for each text.
    """
    try:
        rows = {row["index"]: row["embedding"] for row in json.loads(answer)["data"]}
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused below
            vectors = np.array([rows[index] for index in range(count)], np.float32)
    except (ValueError, TypeError, KeyError) as error:
        what = f"no vector with index {error}" if isinstance(error, KeyError) else f"not embeddings ({error})"
        raise ModelError(f"{name}: the answer for {count} texts: {what}", hint=_WHOSE) from None
    if len(rows) != count:
        raise ModelError(f"{name}: got {len(rows)} vectors for {count} texts", hint=_WHOSE)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ModelError(f"{name}: the answer for {count} texts has shape {vectors.shape}", hint=_WHOSE)
    if not np.isfinite(vectors).all():
        raise ModelError(f"{name}: a vector is not finite", hint=_WHOSE)
    return vectors
