"""What a server answers when it does not answer: a status, and OpenAI's JSON object of an error."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A request that is not carried out.

    Args:
        message: what is wrong, and what to do about it.
        status: of HTTP.
        kind: OpenAI's `type`.
        param: the field of the request that is wrong.
        code: OpenAI's `code`, for programs.
        retry_after_s: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.body: dict[str, Any] = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    @property
    def code(self) -> str:
        """The error's kind in the metrics."""
        error = self.body["error"]
        return str(error["code"] or error["type"])


def overloaded(message: str, *, code: str) -> Refused:
    """Return the refusal of a request that may succeed later."""
    status = 429 if code == "queue_full" else 503
    return Refused(message, status=status, kind="server_error", code=code, retry_after_s=1)
