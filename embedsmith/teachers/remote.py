"""Embeddings over HTTP: any server that speaks OpenAI's `POST …/embeddings`.

Texts leave this machine. The model behind a URL may change without its name, which no fingerprint can detect.

Shapes: N texts, n texts of a request, D dimensions.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from jaxtyping import Float32

from embedsmith.errors import ModelError
from embedsmith.models.arithmetic import ARITHMETIC
from embedsmith.models.settings import Role
from embedsmith.services.endpoint import Endpoint
from embedsmith.services.requests import Service

_MOST_VECTOR_BYTES = 32 * 2**14
"""Of a vector as JSON: 16,384 dimensions of 32 characters each."""


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
        self._service = Service(
            where,
            "embeddings",
            key=key,
            timeout_s=timeout_s,
            retries=retries,
            most_bytes=texts * _MOST_VECTOR_BYTES + 2**20,
        )
        self._prompts: dict[Role, str] = {"query": query_prompt, "passage": passage_prompt}
        self._texts = texts
        self._concurrency = concurrency

    def contracts(self) -> dict[Role, dict[str, Any]]:
        """Return what determines the vectors of each role, as far as it can be known: URL, model, prompt."""
        shared = {"url": self._where.url, "model": self._where.model, "arithmetic": ARITHMETIC}
        return {role: {**shared, "role": role, "prompt": prompt} for role, prompt in self._prompts.items()}

    def spread(self, devices: Sequence[str]) -> AbstractContextManager[None]:
        """Do nothing: the devices are the server's."""
        return nullcontext()

    def embed(
        self,
        texts: Sequence[str],
        role: Role,
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
            parts = [] if self._service.has_answered else [self._request(batches[0], given_up)]
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
            raise ModelError(
                f"{self._where.name}: vectors of {min(widths)} and of {max(widths)} dimensions", hint=_WHOSE
            )
        vectors = np.concatenate(parts)
        # In float64: in float32 the squares of very small numbers are zero.
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        return (vectors / lengths).astype(np.float32)

    def embed_each(
        self,
        lists: Iterator[Sequence[str]],
        role: Role,
        *,
        tokens: int | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> Generator[Float32[np.ndarray, "_ D"], None, None]:
        """Yield the vectors of lists of texts, one list after the other: see `embed`."""
        done = 0
        for texts in lists:
            before = done
            progress = (lambda some, before=before: on_done(before + some)) if on_done else None
            yield self.embed(texts, role, tokens=tokens, on_done=progress) if texts else np.empty((0, 0), np.float32)
            done += len(texts)

    def _request(self, texts: list[str], given_up: threading.Event) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of one request.

        Args:
            given_up: set when another request has failed for good.
        """
        # OpenAI refuses an empty text.
        body = {"model": self._where.model, "input": [text or " " for text in texts], "encoding_format": "float"}
        return _vectors(self._service.ask(body, given_up), len(texts), self._where.name)


_WHOSE = "the mistake is the server's; check its log"


def _vectors(answer: bytes, count: int, name: str) -> Float32[np.ndarray, "n D"]:
    """Return the vectors of an answer, in the order of the texts: by their `index`, not by their place.

    Raises:
        ModelError: the answer does not hold one finite vector of the same length for each text.
    """
    try:
        data = json.loads(answer)["data"]
        rows = {row["index"]: row["embedding"] for row in data}
        ordered = [rows[index] for index in range(count)]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        what = f"no vector with index {error}" if isinstance(error, KeyError) else f"not embeddings ({error})"
        raise ModelError(f"{name}: the answer for {count} texts: {what}", hint=_WHOSE) from None
    if len(rows) != len(data):
        raise ModelError(f"{name}: the answer for {count} texts: two vectors with one index", hint=_WHOSE)
    if len(rows) != count:
        raise ModelError(f"{name}: got {len(rows)} vectors for {count} texts", hint=_WHOSE)
    return checked_vectors(ordered, count, name)


def checked_vectors(rows: Sequence[Any], count: int, name: str) -> Float32[np.ndarray, "n D"]:
    """Return the vectors that an answer of a server holds for some texts.

    Raises:
        ModelError: they are not one finite vector of the same length for each text.
    """
    if len(rows) != count:
        raise ModelError(f"{name}: got {len(rows)} vectors for {count} texts", hint=_WHOSE)
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which is refused below
            vectors = np.array(rows, np.float32)
    # An OverflowError is a whole number that no float can hold.
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise ModelError(f"{name}: the answer for {count} texts: not embeddings ({error})", hint=_WHOSE) from None
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ModelError(f"{name}: the answer for {count} texts has shape {vectors.shape}", hint=_WHOSE)
    if not np.isfinite(vectors).all():
        raise ModelError(f"{name}: a vector is not finite", hint=_WHOSE)
    if not np.linalg.norm(vectors.astype(np.float64), axis=1).all():
        raise ModelError(f"{name}: a vector of zeros, which has no direction", hint=_WHOSE)
    return vectors
