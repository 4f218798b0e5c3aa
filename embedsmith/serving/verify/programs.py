"""Other programs that compute a model's vectors: servers by protocol, a folder in plain sentence-transformers, ONNX.

openai    `POST URL/embeddings`, OpenAI's; for prompts of the server with `input_type`, as `embedsmith serve` has it
vllm      the same with vLLM's `truncate_prompt_tokens`; for prompts of the server `POST /v2/embed`, Cohere's
tei       `POST URL/embed` of text-embeddings-inference; for prompts of the server with `prompt_name`
ollama    `POST URL/api/embed`; it applies no prompts

Shapes: n texts of a request, D dimensions.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float32

from embedsmith.errors import ModelError, SettingsError
from embedsmith.models.settings import Role
from embedsmith.services.endpoint import endpoint, key_for
from embedsmith.services.requests import Refused, Service
from embedsmith.serving.verify.settings import TEXTS, PromptsBy, ServerProtocol
from embedsmith.teachers.remote import checked_vectors

_MOST_BYTES = 32 * 2**20
_OF_THE_TEXT = frozenset({400, 413, 422})
"""Answers to a request whose texts a server does not take, which it may take without one of them."""
_PROMPT_NAME: dict[Role, str] = {"query": "query", "passage": "document"}
"""How a role's prompt is called in a saved model's folder."""


class Program(Protocol):
    """Something that computes vectors of texts."""

    name: str

    def vectors(self, texts: Sequence[str], role: Role) -> tuple[Float32[np.ndarray, "N D"], dict[int, str]]:
        """Return the vectors of those texts that it takes, in order, and why it refuses the others, by place."""


@dataclass(frozen=True)
class _Request:
    """One way to ask a server."""

    path: str
    texts: str
    """Key of the texts."""
    more: dict[str, Any]


def protocol_of(url: str) -> Literal["openai", "tei", "ollama"]:
    """Return which protocol a URL speaks, by its path and port.

    >>> [protocol_of(f"http://localhost{rest}") for rest in (":8000/v1", ":8080/embed", ":11434", ":11434/v1", ":80")]
    ['openai', 'tei', 'ollama', 'openai', 'openai']
    """
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if path.endswith("/api/embed") or path == "/api" or (parts.port == 11434 and not path):
        return "ollama"
    return "tei" if path.endswith("/embed") and not path.endswith("/v2/embed") else "openai"


class Server:
    """A server of vectors."""

    def __init__(self, name: str, *, protocol: ServerProtocol = "auto", prompts: PromptsBy = "client") -> None:
        """Take note of a server; nothing is sent yet.

        Args:
            name: URL#MODEL; text-embeddings-inference has one model, and needs no name of it.
            protocol: see the module; `auto` is by the URL.
            prompts: whether the server puts a role's prompt before its texts, or whoever asks.

        Raises:
            ModelError: it is no such name.
            SettingsError: the server has no prompts by protocol.
        """
        where = endpoint(name if "#" in name else f"{name}#-")
        self.protocol = protocol_of(where.url) if protocol == "auto" else protocol
        if "#" not in name and self.protocol != "tei":
            endpoint(name)
        if self.protocol == "ollama" and prompts == "server":
            raise SettingsError("Ollama applies no prompts", hint="leave --prompts server out: you send the prompt")
        base = where.url
        for ending in {"tei": ["/embed"], "ollama": ["/embed", "/api"], "vllm": ["/v1"]}.get(self.protocol, []):
            base = base.removesuffix(ending)
        self.name, self._prompts = where.name, prompts
        self._where = replace(where, url=base)
        self._services: dict[str, Service] = {}

    def vectors(self, texts: Sequence[str], role: Role) -> tuple[Float32[np.ndarray, "N D"], dict[int, str]]:
        """Return the vectors of those texts that the server takes, in order, and why it refuses the others, by place.

        Raises:
            ModelError: it refuses all of them, or its answer is not one vector a text.
            ConnectionError: it cannot be reached.
        """
        return self._all(texts, self._request(role))

    def in_base64(self, texts: Sequence[str], role: Role) -> Float32[np.ndarray, "N D"] | None:
        """Return the vectors of some texts, asked for in base64; None where the protocol or the server has none."""
        if self.protocol not in ("openai", "vllm"):
            return None
        request = self._request(role)
        if request.path != "embeddings":
            return None
        try:
            return self._ask(texts, replace(request, more={**request.more, "encoding_format": "base64"}))
        except Refused:
            return None

    def _request(self, role: Role) -> _Request:
        """Return how the texts of a role are asked for."""
        by_server, kind = self._prompts == "server", _PROMPT_NAME[role]
        if self.protocol == "tei":
            return _Request("embed", "inputs", {"truncate": True, **({"prompt_name": kind} if by_server else {})})
        if self.protocol == "ollama":
            return _Request("api/embed", "input", {"model": self._where.model, "truncate": True})
        named = {"model": self._where.model}
        if self.protocol == "vllm" and by_server:
            return _Request("v2/embed", "texts", {**named, "input_type": kind, "embedding_types": ["float"]})
        if self.protocol == "vllm":
            more = {**named, "encoding_format": "float", "truncate_prompt_tokens": -1}
            return _Request("v1/embeddings", "input", more)
        more = {**named, "encoding_format": "float", **({"input_type": kind} if by_server else {})}
        return _Request("embeddings", "input", more)

    def _all(self, texts: Sequence[str], request: _Request) -> tuple[Float32[np.ndarray, "N D"], dict[int, str]]:
        """Return the vectors of all texts that the server takes; where it takes a batch not, text by text."""
        parts: list[np.ndarray] = []
        refused: dict[int, str] = {}
        first: Refused | None = None
        for start in range(0, len(texts), TEXTS):
            batch = texts[start : start + TEXTS]
            try:
                parts.append(self._ask(batch, request))
                continue
            except Refused as error:
                if error.status not in _OF_THE_TEXT:
                    raise
                first = first or error
            for place, text in enumerate(batch, start=start):
                try:
                    parts.append(self._ask([text], request))
                except Refused as error:
                    if error.status not in _OF_THE_TEXT:
                        raise
                    refused[place] = str(error).removeprefix(f"{self._where.name}: ")
        if not parts:
            assert first
            raise first
        if len({part.shape[1] for part in parts}) > 1:
            widths = sorted({part.shape[1] for part in parts})
            raise ModelError(f"{self.name}: vectors of {widths[0]} and of {widths[-1]} dimensions", hint=_WHOSE)
        return np.concatenate(parts), refused

    def _ask(self, texts: Sequence[str], request: _Request) -> Float32[np.ndarray, "n D"]:
        """Return the vectors of one request."""
        if request.path not in self._services:
            self._services[request.path] = Service(
                self._where, request.path, key=key_for(self._where), retries=3, most_bytes=_MOST_BYTES
            )
        answer = self._services[request.path].ask({**request.more, request.texts: list(texts)}, threading.Event())
        return checked_vectors(_rows(answer, len(texts), self.name), len(texts), self.name)


_WHOSE = "the mistake is the server's; check its log"


def _rows(answer: bytes, count: int, name: str) -> list[Any]:
    """Return the vectors in an answer of any protocol, in the order of the texts.

    Raises:
        ModelError: there are none.
    """
    try:
        found = json.loads(answer)
        if isinstance(found, list):
            return found
        if "data" in found:
            rows = {row["index"]: _numbers(row["embedding"]) for row in found["data"]}
            if len(rows) != len(found["data"]):
                raise ValueError("two vectors with one index")
            return [rows[index] for index in range(len(rows))]
        given = found["embeddings"]
        return list(given["float"] if isinstance(given, dict) else given)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{name}: the answer for {count} texts: not embeddings ({what})", hint=_WHOSE) from None


def _numbers(embedding: Any) -> Any:
    """Return the numbers of a vector, which may be base64 of float32.

    >>> _numbers("AACAPwAAAMA=")
    [1.0, -2.0]
    """
    if not isinstance(embedding, str):
        return embedding
    numbers: list[float] = np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").tolist()
    return numbers
