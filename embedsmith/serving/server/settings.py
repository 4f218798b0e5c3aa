"""What a server accepts, and how long it works on a request."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from embedsmith.settings import Settings

Truncation = Literal["end", "error"]


class ServeSettings(Settings):
    """Limits of a server; a request beyond one is refused with the limit and the status that HTTP has for it."""

    truncate: Truncation = "end"
    """Of a text longer than the model reads: `end` cuts it and counts it in the usage, `error` refuses it. A request
    may say otherwise."""
    max_body_mib: float = Field(8.0, gt=0)
    """Size of a request's body in MiB."""
    max_inputs: int = Field(2048, ge=1)
    """Texts of a request; OpenAI's limit by default."""
    max_request_tokens: int = Field(300_000, ge=1)
    """Tokens of a request, all its texts together, as the model reads them; OpenAI's limit by default."""
    max_waiting: int = Field(1024, ge=1)
    """Requests that wait or are computed at once; the next one gets status 429."""
    timeout_s: float = Field(60.0, gt=0)
    """Seconds in which a request is answered, its reading included; else it gets status 503."""
    batch_tokens: int | None = Field(None, ge=1)
    """Tokens of a batch, padding included; by default what suits the device."""
