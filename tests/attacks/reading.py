"""What the readers of foreign files share: what one is, and what counts as a good end of a reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEDS = Path(__file__).parent / "seeds"

Base = Callable[[Path], None]

is_worth: list[Callable[[], bool]] = []
"""Asked before each of several readings of a folder; the fuzzer puts one here."""


@dataclass(frozen=True)
class Reader:
    """One reader, or several that read the same files."""

    read: Callable[[Path], Any]
    """Read what lies in a folder; an EmbedsmithError is a good answer."""
    base: Base | None = None
    """Write a whole folder that is read well."""
    files: tuple[str, ...] = ()
    """Patterns of the files of the base that are changed; the others stay as they are."""
    seconds: float = 8.0
    """After which a reading counts as one that hangs."""


@contextmanager
def answering(answer: bytes) -> Iterator[None]:
    """Let every server give one answer, whatever it is asked."""
    from embedsmith.services.requests import Service

    asked = Service.ask
    Service.ask = lambda self, body, given_up: self._without_key(answer.decode("utf-8", "replace")).encode()  # type: ignore[method-assign]
    try:
        yield
    finally:
        Service.ask = asked  # type: ignore[method-assign]


def only(folder: Path) -> Path:
    """Return the only file of a folder."""
    (path,) = [path for path in folder.iterdir() if path.is_file()]
    return path


def each(*readings: Callable[[], Any]) -> None:
    """Do every reading; a caller's mistake in one of them does not keep the others from being done."""
    from embedsmith.errors import EmbedsmithError

    mistake: EmbedsmithError | None = None
    for reading in readings:
        if not all(asked() for asked in is_worth):
            continue
        try:
            reading()
        except EmbedsmithError as error:
            checked(error)
            mistake = error
    if mistake is not None:
        raise mistake


def checked(error: Any) -> None:
    """Assert that a caller's mistake is one line with a remedy, which can be printed."""
    assert len(str(error).splitlines()) == 1, f"not one line: {error!r}"
    assert error.hint, f"no remedy: {error!r}"
    assert len(str(error)) < 20_000, f"a long message: {str(error)[:200]!r}"
