"""One way to name a model behind a URL, and which key goes to which host.

https://api.openai.com/v1#text-embedding-3-small
http://localhost:8000/v1#intfloat/e5-small-v2        vLLM, text-embeddings-inference, llama.cpp, Ollama, …

A recipe may come from anybody, so a recipe alone never decides where a key goes:

OPENAI_API_KEY         is sent to api.openai.com, and to no other host
EMBEDSMITH_API_KEY     is sent to the hosts in EMBEDSMITH_API_HOSTS, and to those named on the command line
plain http             carries no key, except to this machine itself
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from embedsmith.errors import ModelError, SettingsError
from embedsmith.settings import holds_password

KEY, OPENAI_KEY, HOSTS = "EMBEDSMITH_API_KEY", "OPENAI_API_KEY", "EMBEDSMITH_API_HOSTS"
"""Environment variables: two keys, and the hosts that may get the first one."""

_OPENAI = "api.openai.com"
_WRITE = "write https://HOST/v1#MODEL"


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

    @property
    def host(self) -> str:
        """Name or address of the server, in lower case."""
        return urlsplit(self.url).hostname or ""

    @property
    def is_here(self) -> bool:
        """Whether the server is this machine: what is sent there crosses no network.

        >>> [endpoint(f"http://{host}/v1#m").is_here for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "a.org")]
        [True, True, True, False]
        """
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def may_carry_key(self) -> bool:
        """Whether the connection is encrypted or local."""
        return self.is_here or urlsplit(self.url).scheme == "https"


@dataclass(frozen=True)
class Caller:
    """What the user has said about hosts, and wants to hear about them."""

    key_hosts: frozenset[str] = frozenset()
    """Hosts that the user named, which may get `EMBEDSMITH_API_KEY`."""
    on_contact: Callable[[str], None] = field(default=lambda line: None)
    """Called with one line before the first text is sent to a host."""


_caller: ContextVar[Caller] = ContextVar("caller")


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Within the block, hosts that the user named get keys, and a line says where texts are sent."""
    before = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(before)


def current_caller() -> Caller:
    """Return for whom servers are asked."""
    return _caller.get(Caller())


def hosts_in(words: Iterable[str]) -> frozenset[str]:
    """Return the hosts of the URLs in the words of a command line.

    >>> sorted(hosts_in(["--teacher", "https://A.org:8000/v1#m", "--set", "mining.teachers=[http://b.org/v1#m]"]))
    ['a.org', 'b.org']
    """
    found = re.findall(r"https?://([^\s/#?@\"',\]}]+)", " ".join(words), re.IGNORECASE)
    return frozenset(re.sub(r":\d*$", "", host).strip("[").lower() for host in found)


def is_url(name: str) -> bool:
    """Return whether a model's name is a URL, well written or not.

    >>> [is_url(name) for name in ("https://a.org/v1#m", "HTTP://a", "ftp://a", "package:a/b", "org/model")]
    [True, True, True, False, False]
    """
    return "://" in name or re.match(r"\s*https?:", name, re.IGNORECASE) is not None


def endpoint(name: str) -> Endpoint:
    """Return the endpoint that `URL#MODEL` names.

    >>> endpoint("https://example.org/v1/#some/model")
    Endpoint(url='https://example.org/v1', model='some/model')

    Raises:
        ModelError: it is no URL, there is no model, or the URL holds a secret, which would be written into every file.
    """
    import httpx2

    # Where a secret may stand in the name, not a word of it is repeated.
    if holds_password(name) or {*name.partition("#")[0]} & {*"@?"} or name.count("#") > 1:
        raise ModelError("a URL with a user, a password or a query in it", hint=f"{_WRITE}, and put the key into {KEY}")
    if not re.match(r"https?://", name, re.IGNORECASE):
        raise ModelError("a URL that begins with neither https:// nor http://", hint=_WRITE)
    base, _, model = name.partition("#")
    try:
        url = httpx2.URL(base)
    except httpx2.InvalidURL:
        raise ModelError("a URL whose host or port cannot be read", hint=_WRITE) from None
    host = url.raw_host.decode("ascii")
    if not host or not model:
        raise ModelError(f"{name}: no {'model' if host else 'host'}", hint=_WRITE)
    is_name = all(re.fullmatch(r"[a-z0-9_-]{1,63}", label) for label in host.removesuffix(".").split("."))
    if not (is_name or ":" in host) or (url.port is not None and not 0 < url.port < 65536):
        raise ModelError("a URL whose host or port cannot be read", hint=_WRITE)
    return Endpoint(str(url).rstrip("/").removesuffix("/embeddings").removesuffix("/chat/completions"), model)


def key_for(where: Endpoint) -> str | None:
    """Return the key of the environment that may be sent to a server, None where none is set or none may.

    Raises:
        SettingsError: the key holds what no header can; the error does not repeat it.
    """
    if not where.may_carry_key:
        return None
    is_openai = where.host == _OPENAI
    listed = {host.strip().lower() for host in os.environ.get(HOSTS, "").split(",")}
    is_named = where.host in listed | current_caller().key_hosts
    for name, may_get_it in ((OPENAI_KEY, is_openai), (KEY, is_named)):
        key = os.environ.get(name, "").strip() if may_get_it else ""
        if key and not (key.isascii() and key.isprintable()):
            raise SettingsError(f"{name}: a key with a line break or another odd character", hint="set it again")
        if key:
            return key
    return None


def remedy_without_key(where: Endpoint) -> str:
    """Return what to do when a server wants a key and did not get one."""
    if not where.may_carry_key:
        return "use https: no key is sent over plain http to another machine"
    if where.host == _OPENAI:
        return f"put the key for this URL into the environment, as {OPENAI_KEY}"
    return f"put the key for this URL into the environment, as {KEY}, and its host into {HOSTS}={where.host}"
