"""One way to name a model behind a URL, and where its key comes from.

https://api.openai.com/v1#text-embedding-3-small
http://localhost:8000/v1#intfloat/e5-small-v2        vLLM, text-embeddings-inference, llama.cpp, Ollama, …
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from embedsmith.errors import ModelError, SettingsError

KEYS = ("EMBEDSMITH_API_KEY", "OPENAI_API_KEY")
"""Environment variables that hold the key, the first of them that is set."""


@dataclass(frozen=True)
class Endpoint:
    """Where something is asked for, and of which model."""

    url: str
    """Base, without `/embeddings` or `/chat/completions`."""
    model: str

    @property
    def name(self) -> str:
        """How a user names it."""
        return f"{self.url}#{self.model}"


def is_url(name: str) -> bool:
    """Return whether a model's name is a URL."""
    return name.startswith(("https://", "http://"))


def endpoint(name: str) -> Endpoint:
    """Return the endpoint that `URL#MODEL` names.

    >>> endpoint("https://example.org/v1/#some/model")
    Endpoint(url='https://example.org/v1', model='some/model')

    Raises:
        ModelError: it is no URL, there is no model, or the URL holds a secret, which would be written into every file.
    """
    base, _, model = name.partition("#")
    parts = urlsplit(base)
    if parts.username or parts.password or parts.query:
        # Not a word of it is repeated: it may hold a password.
        raise ModelError(
            "a URL with a user, a password or a query in it",
            hint=f"write https://HOST/v1#MODEL, and put the key into the environment, as {KEYS[0]}",
        )
    if not is_url(name):
        # Nor here: a secret can stand anywhere in what is no URL.
        raise ModelError("a URL that begins with neither https:// nor http://", hint="write https://HOST/v1#MODEL")
    if not parts.hostname or not model:
        raise ModelError(f"{name}: no {'model' if parts.hostname else 'host'}", hint="write https://HOST/v1#MODEL")
    return Endpoint(base.rstrip("/").removesuffix("/embeddings").removesuffix("/chat/completions"), model)


def key_from_environment() -> str | None:
    """Return the key for URLs, None where none is set.

    Raises:
        SettingsError: it holds what no header can; the error does not repeat it.
    """
    for name in KEYS:
        key = os.environ.get(name, "").strip()
        if key and not (key.isascii() and key.isprintable()):
            raise SettingsError(f"{name}: a key with a line break or another odd character", hint="set it again")
        if key:
            return key
    return None
